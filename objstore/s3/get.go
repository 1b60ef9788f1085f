package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// Get implements objstore.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return b.get(ctx, key, nil, off, n)
}

// GetIf implements objstore.Conditional, by If-Match.
func (b *Bucket) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	return b.get(ctx, key, &version, off, n)
}

func (b *Bucket) get(ctx context.Context, key string, version *string, off, n int64) (io.ReadCloser, error) {
	name, err := b.name(key)
	if err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	r, err := b.open(ctx, name, version, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	r.key = key
	return r, nil
}

// maxChanges is how often an object may be overwritten between two questions of one Get.
const maxChanges = 10

// open opens a range, of a given version if that is not nil.
func (b *Bucket) open(ctx context.Context, name string, version *string, off, n int64) (*body, error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", objstore.ErrRange, off)
	}
	etag := ""
	if version != nil {
		etag = *version
	}
	if n == 0 || version != nil && !quotable(etag) {
		r, _, err := b.openNothing(ctx, name, version, off)
		return r, err
	}
	for range maxChanges {
		r := &body{ctx: ctx, b: b, name: name, pos: off, etag: etag}
		err := r.request(n)
		switch {
		case err == nil:
			return r, nil
		case status(err) == http.StatusPreconditionFailed:
			return nil, fmt.Errorf("%w: version %q was asked for", objstore.ErrChanged, etag)
		case status(err) == http.StatusRequestedRangeNotSatisfiable:
			r, size, err := b.openNothing(ctx, name, version, off)
			if err == nil && off < size { // it has grown since
				continue
			}
			return r, err
		case notFound(err):
			return nil, b.missing(ctx)
		default:
			return nil, b.explain(err, reading)
		}
	}
	return nil, errors.New("object is overwritten faster than it can be opened")
}

// quotable says whether a version can be an ETag, and be sent as one.
func quotable(version string) bool {
	return version != "" && version != "*" && !strings.ContainsFunc(version, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// openNothing opens no bytes at off, if that is not behind the end, and tells the size.
func (b *Bucket) openNothing(ctx context.Context, name string, version *string, off int64) (*body, int64, error) {
	info, err := b.stat(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	if version != nil && info.Version != *version {
		return nil, 0, fmt.Errorf("%w: version %q was asked for, %q is there", objstore.ErrChanged, clip(*version), info.Version)
	}
	if off > info.Size {
		return nil, 0, fmt.Errorf("%w: offset %d of %d bytes", objstore.ErrRange, off, info.Size)
	}
	return &body{ctx: ctx, b: b, name: name, pos: off, end: off}, info.Size, nil
}

// body reads a range, over as many connections as it takes.
type body struct {
	ctx      context.Context
	b        *Bucket
	key      string
	name     string
	etag     string // of the object that is being read, or that is asked for
	pos, end int64  // what is left to give

	rc     io.ReadCloser // nil between connections
	cancel context.CancelFunc
	idle   *time.Timer // ends a connection that is silent
	vain   int         // connections in a row that gave nothing
	err    error       // what Read gives from now on
}

// request asks for n bytes from pos (n < 0: all). The error is do's.
func (r *body) request(n int64) error {
	var opts minio.GetObjectOptions
	if r.pos > 0 || n >= 0 {
		opts.Set("Range", byteRange(r.pos, n))
	}
	if r.etag != "" {
		opts.Set("If-Match", `"`+r.etag+`"`)
	}
	return r.b.do(r.ctx, func(ctx context.Context, x *exchange) error {
		rc, info, header, err := r.b.core.GetObject(ctx, r.b.bucket, r.name, opts)
		if err != nil {
			return err
		}
		end, err := r.extent(n, x.status, info.Size, header)
		switch {
		case err != nil:
		case r.etag != "" && info.ETag != r.etag: // a server that does not know If-Match
			err = &failure{status: http.StatusPreconditionFailed, code: "PreconditionFailed"}
		}
		if err != nil {
			rc.Close()
			return err
		}
		r.b.saw()
		x.keep = true
		r.rc, r.cancel, r.end, r.etag = rc, x.cancel, end, info.ETag
		r.idle = time.AfterFunc(r.b.o.Stall, x.cancel)
		r.idle.Stop()
		return nil
	})
}

// byteRange writes a Range header.
func byteRange(off, n int64) string {
	if n < 0 || n-1 > math.MaxInt64-off {
		return "bytes=" + strconv.FormatInt(off, 10) + "-"
	}
	return "bytes=" + strconv.FormatInt(off, 10) + "-" + strconv.FormatInt(off+n-1, 10)
}

// extent checks that the answer is what was asked for, and gives the position of its end.
func (r *body) extent(n int64, status int, length int64, header http.Header) (int64, error) {
	bad := func(format string, args ...any) (int64, error) {
		return 0, &failure{message: "server does not keep to HTTP: " + fmt.Sprintf(format, args...), passes: true}
	}
	if length < 0 {
		return bad("no Content-Length")
	}
	if status != http.StatusPartialContent {
		if r.pos != 0 {
			return bad("status %d for a range", status)
		}
		if n >= 0 { // an empty object has no ranges, and some servers ignore them
			length = min(length, n)
		}
		return length, nil
	}
	first, last, total, ok := parseContentRange(header.Get("Content-Range"))
	if !ok || first != r.pos || length != last-first+1 {
		return bad("Content-Range %q, Content-Length %d for %s", r.b.quote(header.Get("Content-Range")), length, byteRange(r.pos, n))
	}
	wanted := total
	if n >= 0 && n < total-r.pos {
		wanted = r.pos + n
	}
	if last+1 != wanted {
		return bad("Content-Range %q for %s", r.b.quote(header.Get("Content-Range")), byteRange(r.pos, n))
	}
	return wanted, nil
}

// parseContentRange reads "bytes first-last/total".
func parseContentRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, size, ok1 := strings.Cut(s, "/")
	from, to, ok2 := strings.Cut(span, "-")
	if !ok1 || !ok2 {
		return 0, 0, 0, false
	}
	number := func(s string) int64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			ok = false
		}
		return int64(n)
	}
	first, last, total = number(from), number(to), number(size)
	return first, last, total, ok && first <= last && last < total
}

func (r *body) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = r.ctx.Err()
	}
	if r.err == nil && r.pos == r.end {
		r.err = io.EOF
	}
	if errors.Is(r.err, io.EOF) {
		return 0, io.EOF
	}
	for r.err == nil && len(p) > 0 {
		if r.rc == nil {
			if r.err = r.resume(); r.err != nil {
				break
			}
		}
		r.idle.Reset(r.b.o.Stall)
		k, err := r.rc.Read(p[:min(int64(len(p)), r.end-r.pos)])
		r.idle.Stop()
		r.pos += int64(k)
		if err != nil {
			r.drop()
		}
		if k > 0 {
			r.vain = 0
			return k, nil
		}
		switch {
		case err == nil:
			return 0, nil
		case r.ctx.Err() != nil:
			r.err = r.ctx.Err()
		case r.vain >= r.b.o.Retries:
			switch {
			case errors.Is(err, io.EOF):
				err = io.ErrUnexpectedEOF
			case errors.Is(err, context.Canceled): // by idle
				err = fmt.Errorf("no byte came for %s: %w", r.b.o.Stall, io.ErrUnexpectedEOF)
			}
			r.err = fmt.Errorf("connection broke off %d bytes before the end: %w", r.end-r.pos, plain(err))
		default:
			r.err = r.b.pause(r.ctx, r.vain, 0)
			r.vain++
		}
	}
	if r.err != nil {
		return 0, fmt.Errorf("get %s: %w", r.key, r.err)
	}
	return 0, nil
}

// resume asks for the rest of the object that was being read.
func (r *body) resume() error {
	if r.etag == "" {
		return fmt.Errorf("connection broke off, and without an ETag the rest may be of another object: %w", io.ErrUnexpectedEOF)
	}
	end := r.end
	err := r.request(end - r.pos)
	switch {
	case err == nil && r.end != end:
		r.drop()
		return fmt.Errorf("%w: it got shorter while it was read", objstore.ErrChanged)
	case err == nil:
		return nil
	case status(err) == http.StatusPreconditionFailed, status(err) == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: it was overwritten while it was read", objstore.ErrChanged)
	case notFound(err):
		return r.b.missing(r.ctx)
	}
	return r.b.explain(err, reading)
}

// drop ends a connection.
func (r *body) drop() {
	if r.rc != nil {
		r.idle.Stop()
		r.cancel()
		r.rc.Close()
		r.rc = nil
	}
}

// Close implements io.Closer.
func (r *body) Close() error {
	r.drop()
	if r.err == nil {
		r.err = errClosed
	}
	return nil
}

var errClosed = errors.New("read of a closed object")
