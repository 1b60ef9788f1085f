package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// maxCopyObject is S3's limit for copying in one request.
const maxCopyObject = 5 << 30

// Copy implements objstore.Copier between buckets of one server.
func (b *Bucket) Copy(ctx context.Context, dst string, src objstore.Bucket, srcKey string) (objstore.Info, error) {
	name, err := b.name(dst)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("copy: %w", err)
	}
	src, srcKey, err = objstore.Unwrap(src, srcKey)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("copy: %w", err)
	}
	from, ok := src.(*Bucket)
	if !ok || *from.endpoint != *b.endpoint {
		return objstore.Info{}, fmt.Errorf("copy %s: %w", srcKey, objstore.ErrCannotCopy)
	}
	srcName, err := from.name(srcKey)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("copy: %w", err)
	}
	info, err := b.copyFrom(ctx, name, from, srcName)
	if err != nil {
		return objstore.Info{}, fmt.Errorf("copy %s to %s: %w", srcKey, dst, err)
	}
	info.Key = dst
	return info, nil
}

func (b *Bucket) copyFrom(ctx context.Context, name string, from *Bucket, srcName string) (objstore.Info, error) {
	src, err := from.stat(ctx, srcName)
	if err != nil {
		return objstore.Info{}, err
	}
	if from.bucket == b.bucket && srcName == name { // which S3 refuses
		return src, nil
	}
	if b.o.CheckConflicts {
		if err := b.conflict(ctx, name); err != nil {
			return objstore.Info{}, err
		}
	}
	var info objstore.Info
	if src.Size > b.maxCopy {
		info, err = b.copyParts(ctx, name, from.bucket, srcName, src)
	} else {
		info, err = b.copyWhole(ctx, name, from.bucket, srcName, src)
	}
	switch {
	case err == nil:
		return info, nil
	case status(err) == http.StatusPreconditionFailed:
		return objstore.Info{}, fmt.Errorf("%w: it was overwritten while it was copied", objstore.ErrChanged)
	case notFound(err):
		return objstore.Info{}, from.missing(ctx)
	case from.bucket != b.bucket && denied(err), code(err) == "NotImplemented":
		// The credentials of this store may not read the other one, though its own may.
		return objstore.Info{}, fmt.Errorf("%w: %w", objstore.ErrCannotCopy, b.explain(err, reading))
	}
	return objstore.Info{}, b.explain(err, writing)
}

// copyWhole copies in one request. Its errors are do's.
func (b *Bucket) copyWhole(ctx context.Context, name, srcBucket, srcName string, src objstore.Info) (objstore.Info, error) {
	var done minio.UploadInfo
	var date time.Time
	err := b.write(ctx, name, func(ctx context.Context, x *exchange) (err error) {
		done, err = b.core.Client.CopyObject(ctx, minio.CopyDestOptions{Bucket: b.bucket, Object: name}, minio.CopySrcOptions{Bucket: srcBucket, Object: srcName, MatchETag: src.Version})
		date = x.date
		return err
	})
	if err != nil {
		return objstore.Info{}, err
	}
	if !done.LastModified.IsZero() {
		date = done.LastModified
	}
	return b.stored(ctx, name, src.Size, done.ETag, date)
}

// copyParts copies piece by piece into a multipart upload. Its errors are do's.
func (b *Bucket) copyParts(ctx context.Context, name, srcBucket, srcName string, src objstore.Info) (objstore.Info, error) {
	m, err := b.begin(ctx, name)
	if err != nil {
		return objstore.Info{}, err
	}
	defer func() {
		m.cancel(context.Canceled)
		m.wg.Wait()
		if m.id != "" {
			m.abort(ctx)
		}
	}()
	length := b.maxCopy
	if src.Size > length*maxParts {
		return objstore.Info{}, fmt.Errorf("%w: %d bytes: S3 copies %d", objstore.ErrTooLarge, src.Size, length*maxParts)
	}
	turns := make(chan struct{}, b.o.UploadThreads)
	for number, off := 1, int64(0); off < src.Size; number, off = number+1, off+length {
		select {
		case turns <- struct{}{}:
		case <-m.ctx.Done():
			return objstore.Info{}, m.failed()
		}
		m.wg.Go(func() {
			defer func() { <-turns }()
			part, err := m.copyPart(number, srcBucket, srcName, src.Version, off, min(length, src.Size-off))
			if err != nil {
				m.cancel(err)
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.parts = append(m.parts, part)
		})
	}
	m.wg.Wait()
	if m.ctx.Err() != nil {
		return objstore.Info{}, m.failed()
	}
	return m.complete(ctx, src.Size)
}

// copyPart copies one piece. Its errors are do's.
func (m *multipart) copyPart(number int, srcBucket, srcName, etag string, off, n int64) (part minio.CompletePart, err error) {
	match := map[string]string{"x-amz-copy-source-if-match": etag}
	err = m.b.do(m.ctx, func(ctx context.Context, _ *exchange) (err error) {
		part, err = m.b.core.CopyObjectPart(ctx, srcBucket, srcName, m.b.bucket, m.name, m.id, number, off, n, match)
		// S3 may begin a good answer and then put an error into it, which minio-go takes for
		// a result without an ETag.
		if err == nil && part.ETag == "" {
			return &failure{message: fmt.Sprintf("server gave no ETag for part %d", number), passes: true}
		}
		part.ETag = strings.Trim(part.ETag, `"`)
		return err
	})
	return part, err
}

// SweepUploads removes multipart uploads below the store's prefix that were begun at
// least olderThan ago, by the server's clock, and tells how many: they are of
// processes that died, and cost storage, though nobody sees them. One that is
// still under way fails by it, so a day is a good choice.
func (b *Bucket) SweepUploads(ctx context.Context, olderThan time.Duration) (int, error) {
	n, err := b.sweep(ctx, olderThan)
	if err != nil {
		return n, fmt.Errorf("sweep uploads of %s: %w", b, b.explain(err, writing))
	}
	return n, nil
}

// sweep is SweepUploads. Its errors are do's.
func (b *Bucket) sweep(ctx context.Context, olderThan time.Duration) (n int, err error) {
	keyMarker, idMarker := "", ""
	for {
		var (
			page minio.ListMultipartUploadsResult
			now  time.Time
		)
		err := b.do(ctx, func(ctx context.Context, x *exchange) (err error) {
			page, err = b.core.ListMultipartUploads(ctx, b.bucket, b.prefix, keyMarker, idMarker, "", 1000)
			now = x.date
			return err
		})
		if err != nil {
			return n, err
		}
		if now.IsZero() {
			return n, errors.New("server does not tell its time (no Date)")
		}
		for _, up := range page.Uploads {
			if !strings.HasPrefix(up.Key, b.prefix) || now.Sub(up.Initiated) < olderThan {
				continue
			}
			err := b.do(ctx, func(ctx context.Context, _ *exchange) error {
				return b.core.AbortMultipartUpload(ctx, b.bucket, up.Key, up.UploadID)
			})
			switch {
			case err == nil:
				n++
			case code(err) != "NoSuchUpload": // somebody else was quicker
				return n, err
			}
		}
		if !page.IsTruncated {
			return n, nil
		}
		if page.NextKeyMarker < keyMarker || page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker {
			return n, errors.New("server lists uploads in circles")
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
