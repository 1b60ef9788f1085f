package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// write is do for an operation that makes an object. A gateway to a file system may
// refuse the name because of an object above or below it, and does so in error too
// when a folder is removed while it makes it: so we look, and try again if
// there is no such object.
func (b *Bucket) write(ctx context.Context, name string, op func(ctx context.Context, x *exchange) error) error {
	for try := 0; ; try++ {
		err := b.do(ctx, op)
		// versitygw calls it an internal error at the end of a multipart upload.
		internal := code(err) == "InternalError"
		if !inTheWay(err) && !internal {
			return err
		}
		if e := b.conflict(ctx, name); errors.Is(e, objstore.ErrKey) {
			return e
		}
		if internal || try >= b.o.Retries {
			return err
		}
		if err := b.pause(ctx, try, 0); err != nil {
			return err
		}
	}
}

// inTheWay says that a server refused a name because of another one.
func inTheWay(err error) bool {
	switch code(err) {
	case "ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory":
		return true
	}
	return false
}

// conflict looks for objects above and below the name, and is an ErrKey if there
// are any. Its errors are explained.
func (b *Bucket) conflict(ctx context.Context, name string) error {
	for i := len(b.prefix); i < len(name); i++ {
		if name[i] != '/' {
			continue
		}
		switch _, err := b.head(ctx, name[:i]); {
		case err == nil:
			return &explained{fmt.Errorf("%w: the object %q is in the way: no key may lie below another object's key", objstore.ErrKey, strings.TrimPrefix(name[:i], b.prefix))}
		case !notFound(err) && !inTheWay(err):
			return b.explain(err, writing)
		}
	}
	below := false
	err := b.list(ctx, name+"/", func(minio.ObjectInfo) bool {
		below = true
		return false
	})
	if below {
		return &explained{fmt.Errorf("%w: there are objects below it: no key may lie above another object's key", objstore.ErrKey)}
	}
	return b.explain(err, writing)
}
