package fleet_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/shardpress/shardpress/objstore"
)

var errDead = errors.New("this member is dead")

// tap is one member's way to the store. It asks a function before each operation.
type tap struct {
	objstore.Bucket

	mu   sync.Mutex
	dead bool
	hook func(op, key string) error
	past func(key string)
}

var (
	_ objstore.Copier      = (*tap)(nil)
	_ objstore.Conditional = (*tap)(nil)
)

func (t *tap) die() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = true
}

// set has hook asked from now on.
func (t *tap) set(hook func(op, key string) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hook = hook
}

// after has past told of each put that has come through.
func (t *tap) after(past func(key string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.past = past
}

func (t *tap) ask(op, key string) error {
	t.mu.Lock()
	dead, hook := t.dead, t.hook
	t.mu.Unlock()
	switch {
	case dead:
		return errDead
	case hook != nil:
		return hook(op, key)
	}
	return nil
}

func (t *tap) Unwrap() objstore.Bucket { return t.Bucket }

func (t *tap) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := t.ask("get", key); err != nil {
		return nil, err
	}
	return t.Bucket.Get(ctx, key, off, n)
}

func (t *tap) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	if err := t.ask("get", key); err != nil {
		return nil, err
	}
	return objstore.GetIf(ctx, t.Bucket, key, version, off, n)
}

func (t *tap) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if err := t.ask("put", key); err != nil {
		return objstore.Info{}, err
	}
	info, err := t.Bucket.Put(ctx, key, r, size, o)
	t.mu.Lock()
	past := t.past
	t.mu.Unlock()
	if err == nil && past != nil {
		past(key)
	}
	return info, err
}

func (t *tap) Copy(ctx context.Context, dst string, src objstore.Bucket, srcKey string) (objstore.Info, error) {
	if err := t.ask("copy", dst); err != nil {
		return objstore.Info{}, err
	}
	return objstore.Copy(ctx, t.Bucket, dst, src, srcKey)
}

func (t *tap) Stat(ctx context.Context, key string) (objstore.Info, error) {
	if err := t.ask("stat", key); err != nil {
		return objstore.Info{}, err
	}
	return t.Bucket.Stat(ctx, key)
}

func (t *tap) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if err := t.ask("list", prefix); err != nil {
			yield(objstore.Info{}, err)
			return
		}
		t.Bucket.List(ctx, prefix)(yield)
	}
}

func (t *tap) Delete(ctx context.Context, key string) error {
	if err := t.ask("delete", key); err != nil {
		return err
	}
	return t.Bucket.Delete(ctx, key)
}
