package s3

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// Stat implements objstore.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (objstore.Info, error) {
	name, err := b.name(key)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("stat: %w", err)
	}
	info, err := b.stat(ctx, name)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return info, nil
}

// stat asks for the head of an object. Its errors are explained.
func (b *Bucket) stat(ctx context.Context, name string) (objstore.Info, error) {
	o, err := b.head(ctx, name)
	switch {
	case err == nil:
		return b.info(o), nil
	case notFound(err):
		return objstore.Info{}, b.missing(ctx)
	}
	return objstore.Info{}, b.explain(err, reading)
}

// head asks for the head of an object. Its errors are do's.
func (b *Bucket) head(ctx context.Context, name string) (o minio.ObjectInfo, err error) {
	err = b.do(ctx, func(ctx context.Context, _ *exchange) (err error) {
		o, err = b.core.StatObject(ctx, b.bucket, name, minio.StatObjectOptions{})
		if err == nil && o.Size < 0 {
			return &failure{message: "server does not keep to HTTP: no Content-Length", passes: true}
		}
		return err
	})
	if err == nil {
		o.Key = name
		b.saw()
	}
	return o, err
}

// info is what objstore tells of an object.
func (b *Bucket) info(o minio.ObjectInfo) objstore.Info {
	return objstore.Info{Key: strings.TrimPrefix(o.Key, b.prefix), Size: o.Size, Version: o.ETag, ModTime: o.LastModified}
}

// notFound says that there is no such object, as far as the server's answer goes: to
// a HEAD it does not say whether there is a bucket.
func notFound(err error) bool {
	switch code(err) {
	case "", "NoSuchKey", "NoSuchVersion":
		return status(err) == http.StatusNotFound
	}
	return false
}

// List implements objstore.Bucket. A page that fails is asked for again behind the
// last object given.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if err := objstore.CheckPrefix(prefix); err != nil {
			yield(objstore.Info{}, fmt.Errorf("list: %w", err))
			return
		}
		err := b.list(ctx, b.prefix+prefix, func(o minio.ObjectInfo) bool { return yield(b.info(o), nil) })
		if err != nil {
			yield(objstore.Info{}, fmt.Errorf("list %s: %w", prefix, b.explain(err, reading)))
		}
	}
}

// unnamed are files of versitygw that are about to get their name.
var unnamed = regexp.MustCompile(`(^|/)\.[^/]+\.sgwtmp\.[0-9]+$`)

// list gives the objects whose names begin with prefix, in order, until yield wants
// no more. Its errors are do's.
func (b *Bucket) list(ctx context.Context, prefix string, yield func(minio.ObjectInfo) bool) error {
	last := ""
	for ended := false; !ended; {
		from := last
		err := b.do(ctx, func(ctx context.Context, _ *exchange) error {
			none := false
			for o := range b.core.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, StartAfter: last, FetchOwner: &none}) {
				if o.Err != nil {
					if last != from { // it got further, so that tries count anew
						return nil
					}
					return o.Err
				}
				b.saw()
				if o.Key <= last {
					return &failure{message: fmt.Sprintf("server lists %q behind %q: it must list in the order of bytes", clip(o.Key), clip(last))}
				}
				last = o.Key
				// Gateways to file systems may list folders, and files of their own.
				if !strings.HasPrefix(o.Key, prefix) || unnamed.MatchString(o.Key) || objstore.CheckKey(strings.TrimPrefix(o.Key, b.prefix)) != nil {
					continue
				}
				if !yield(o) {
					ended = true
					return nil
				}
			}
			ended = true
			return ctx.Err() // of which the iterator says nothing
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete implements objstore.Bucket.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	name, err := b.name(key)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	err = b.do(ctx, func(ctx context.Context, _ *exchange) error {
		return b.core.RemoveObject(ctx, b.bucket, name, minio.RemoveObjectOptions{})
	})
	switch {
	case err == nil:
		return nil
	case notFound(err):
		return nil
	case folder(err): // so it is no object
		return nil
	}
	return fmt.Errorf("delete %s: %w", key, b.explain(err, writing))
}

// folder says that a gateway to a file system found a folder, or a file where a
// folder should be.
func folder(err error) bool {
	return inTheWay(err) || code(err) == "ErrDirectoryNotEmpty" || code(err) == "DirectoryNotEmpty"
}
