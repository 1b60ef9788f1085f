package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// markKey is the metadata by which an upload knows its object again.
const markKey = "Shardpress-Put"

// Put implements objstore.Bucket. What fits in one part is one PUT; more is a
// multipart upload, which is aborted if it does not end well.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	name, err := b.name(key)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put: %w", err)
	}
	info, err := b.put(ctx, name, r, size, o)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	info.Key = key
	return info, nil
}

func (b *Bucket) put(ctx context.Context, name string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if err := ctx.Err(); err != nil {
		return objstore.Info{}, err
	}
	if o.IfAbsent && size > b.o.PartSize {
		return objstore.Info{}, b.tooLarge()
	}
	if b.o.CheckConflicts {
		if err := b.conflict(ctx, name); err != nil {
			return objstore.Info{}, err
		}
	}
	u := newUpload(ctx, b, name, size, o.IfAbsent)
	defer u.end()
	sum, err := u.receive(r)
	if err != nil {
		return objstore.Info{}, err
	}
	info, err := u.finish()
	if err != nil {
		return objstore.Info{}, err
	}
	info.SHA256 = sum
	return info, nil
}

// tooLarge refuses an IfAbsent that would need a multipart upload.
func (b *Bucket) tooLarge() error {
	return fmt.Errorf("%w: if-absent needs one PUT, which holds %d bytes here: put large bytes under a key of their own, and a small object if-absent that names them", objstore.ErrTooLarge, b.o.PartSize)
}

// newMark is a text that no other upload has.
func newMark() map[string]string { return map[string]string{markKey: rand.Text()} }

// marked says whether the object carries the mark.
func marked(o minio.ObjectInfo, mark map[string]string) bool {
	for k, v := range o.UserMetadata {
		if strings.EqualFold(strings.TrimPrefix(strings.ToLower(k), "x-amz-meta-"), markKey) {
			return v == mark[markKey]
		}
	}
	return false
}

// putOne stores data with one PUT.
func (b *Bucket) putOne(ctx context.Context, name string, data []byte, ifAbsent bool) (objstore.Info, error) {
	opts := minio.PutObjectOptions{DisableContentSha256: true}
	if ifAbsent {
		opts.SetMatchETagExcept("*")
		opts.UserMetadata = newMark()
	}
	for try := 0; ; try++ {
		var (
			done  minio.UploadInfo
			date  time.Time
			tries int
		)
		err := b.write(ctx, name, func(ctx context.Context, x *exchange) (err error) {
			tries++
			done, err = b.core.PutObject(ctx, b.bucket, name, bytes.NewReader(data), int64(len(data)), "", "", opts)
			date = x.date
			return err
		})
		switch {
		case err == nil:
			b.saw()
			return b.stored(ctx, name, int64(len(data)), done.ETag, date)
		case !ifAbsent:
			return objstore.Info{}, b.explain(err, writing)
		case status(err) == http.StatusPreconditionFailed && tries+try == 1:
			return objstore.Info{}, objstore.ErrExist
		case status(err) != http.StatusPreconditionFailed && code(err) != "ConditionalRequestConflict" && code(err) != "Conflict":
			return objstore.Info{}, b.explain(err, writing)
		}
		// A PUT whose answer was lost may have succeeded. And a conflict is with another
		// PUT that is under way, and may fail.
		o, herr := b.head(ctx, name)
		switch {
		case herr == nil && marked(o, opts.UserMetadata):
			return b.info(o), nil
		case herr == nil:
			return objstore.Info{}, objstore.ErrExist
		case !notFound(herr):
			return objstore.Info{}, b.explain(herr, writing)
		case try >= b.o.Retries:
			return objstore.Info{}, objstore.ErrExist
		}
		if err := b.pause(ctx, try, 0); err != nil {
			return objstore.Info{}, err
		}
	}
}

// stored is the Info of an object that was just stored. The server's answer has no
// time but its Date; without that, or without an ETag, it is asked.
func (b *Bucket) stored(ctx context.Context, name string, size int64, etag string, date time.Time) (objstore.Info, error) {
	etag = strings.Trim(etag, `"`)
	if etag == "" || date.IsZero() {
		return b.stat(ctx, name)
	}
	return objstore.Info{Key: name, Size: size, Version: etag, ModTime: date}, nil
}
