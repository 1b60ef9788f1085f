package objstore

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Prefix is the part of b below p: its key "k" is b's key p + "/" + "k". A
// trailing slash of p means nothing, and an empty p gives b itself. If p is not
// a valid key, every operation reports ErrKey. The result is a Copier, which
// copies directly if b can, and Conditional.
func Prefix(b Bucket, p string) Bucket {
	p = strings.TrimSuffix(p, "/")
	if p == "" {
		return b
	}
	return &prefixed{bucket: b, prefix: p}
}

type prefixed struct {
	bucket Bucket
	prefix string // without trailing slash
}

var (
	_ Copier      = (*prefixed)(nil)
	_ Conditional = (*prefixed)(nil)
)

// key is the bucket's key for key. It is checked first as it stands, so that
// what is valid does not depend on whether a prefix lies in between.
func (b *prefixed) key(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	full := b.prefix + "/" + key
	return full, CheckKey(full)
}

// strip is the inverse, for what the bucket returns.
func (b *prefixed) strip(info Info) Info {
	info.Key = strings.TrimPrefix(info.Key, b.prefix+"/")
	return info
}

func (b *prefixed) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	full, err := b.key(key)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	return b.bucket.Get(ctx, full, off, n)
}

func (b *prefixed) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	full, err := b.key(key)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	return GetIf(ctx, b.bucket, full, version, off, n)
}

func (b *prefixed) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	full, err := b.key(key)
	if err != nil {
		return Info{}, fmt.Errorf("put: %w", err)
	}
	info, err := b.bucket.Put(ctx, full, r, size, o)
	return b.strip(info), err
}

func (b *prefixed) Stat(ctx context.Context, key string) (Info, error) {
	full, err := b.key(key)
	if err != nil {
		return Info{}, fmt.Errorf("stat: %w", err)
	}
	info, err := b.bucket.Stat(ctx, full)
	return b.strip(info), err
}

func (b *prefixed) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := CheckPrefix(prefix); err != nil {
			yield(Info{}, fmt.Errorf("list: %w", err))
			return
		}
		for info, err := range b.bucket.List(ctx, b.prefix+"/"+prefix) {
			if !yield(b.strip(info), err) {
				return
			}
		}
	}
}

func (b *prefixed) Delete(ctx context.Context, key string) error {
	full, err := b.key(key)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return b.bucket.Delete(ctx, full)
}

func (b *prefixed) Copy(ctx context.Context, dst string, src Bucket, srcKey string) (Info, error) {
	full, err := b.key(dst)
	if err != nil {
		return Info{}, fmt.Errorf("copy: %w", err)
	}
	c, ok := b.bucket.(Copier)
	if !ok {
		return Info{}, fmt.Errorf("copy %s: %w", srcKey, ErrCannotCopy)
	}
	info, err := c.Copy(ctx, full, src, srcKey)
	return b.strip(info), err
}

// Wrapper is implemented by buckets that hand everything on to another one under
// the same keys, and only look on. A backend's Copy looks through them.
type Wrapper interface {
	Unwrap() Bucket
}

// Unwrap finds the bucket and the key that key of b stands for, below any
// number of prefixes and wrappers: a Copier asks it what a source really is.
func Unwrap(b Bucket, key string) (Bucket, string, error) {
	if err := CheckKey(key); err != nil {
		return nil, "", err
	}
	for {
		if w, ok := b.(Wrapper); ok {
			b = w.Unwrap()
			continue
		}
		p, ok := b.(*prefixed)
		if !ok {
			return b, key, nil
		}
		full, err := p.key(key)
		if err != nil {
			return nil, "", err
		}
		b, key = p.bucket, full
	}
}
