package telemetry

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/objstore"
)

// largeObject is from how many bytes on a read or a write is told of in the trace.
const largeObject = 8 << 20

// Bucket counts and measures what goes through b, and tells of large reads and
// writes in the span of their context. What b can do beyond a bucket's duties
// remains.
func (t *Telemetry) Bucket(b objstore.Bucket) objstore.Bucket {
	if !t.measuring && !t.tracing {
		return b
	}
	for _, op := range []string{opGet, opPut} {
		for _, outcome := range []string{"error", "full"} {
			t.metrics.storeRequests.Add(context.Background(), 0, by("operation", op, "outcome", outcome)) // so that the first is an increase
		}
	}
	return &bucket{t: t, next: b}
}

type bucket struct {
	t    *Telemetry
	next objstore.Bucket
}

var (
	_ objstore.Copier      = (*bucket)(nil)
	_ objstore.Conditional = (*bucket)(nil)
	_ objstore.Wrapper     = (*bucket)(nil)
)

// Unwrap gives the bucket behind, for copies between backends.
func (b *bucket) Unwrap() objstore.Bucket { return b.next }

// Operations and outcomes of requests.
const (
	opGet    = "get"
	opPut    = "put"
	opStat   = "stat"
	opList   = "list"
	opDelete = "delete"
	opCopy   = "copy"
)

func outcomeOf(err error) string {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return "ok"
	case errors.Is(err, objstore.ErrNotExist):
		return "missing"
	case errors.Is(err, objstore.ErrExist), errors.Is(err, objstore.ErrChanged):
		return "condition"
	case errors.Is(err, objstore.ErrCannotCopy):
		return "refused"
	case errors.Is(err, context.Canceled):
		return "stopped"
	case errors.Is(err, objstore.ErrFull):
		return "full"
	}
	return "error"
}

// done counts a request that is over.
func (b *bucket) done(ctx context.Context, op, key string, begin time.Time, bytes int64, err error) {
	elapsed := time.Since(begin).Seconds()
	in := b.t.metrics
	in.storeRequests.Add(ctx, 1, by("operation", op, "outcome", outcomeOf(err)))
	in.storeDuration.Record(ctx, elapsed, by("operation", op))
	if bytes > 0 {
		in.storeBytes.Add(ctx, bytes, by("operation", op))
	}
	if bytes < largeObject {
		return
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("store "+op, trace.WithAttributes(
			attribute.String("key", key), keyBytes.Int64(bytes), attribute.Float64("seconds", elapsed), keyOutcome.String(outcomeOf(err))))
	}
}

func (b *bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return b.get(ctx, key, func() (io.ReadCloser, error) { return b.next.Get(ctx, key, off, n) })
}

func (b *bucket) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	return b.get(ctx, key, func() (io.ReadCloser, error) { return objstore.GetIf(ctx, b.next, key, version, off, n) })
}

func (b *bucket) get(ctx context.Context, key string, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	begin := time.Now()
	r, err := open()
	if err != nil {
		b.done(ctx, opGet, key, begin, 0, err)
		return nil, err
	}
	m := &measuredReader{ReadCloser: r}
	m.over = func() { b.done(ctx, opGet, key, begin, m.bytes, m.err) }
	return m, nil
}

// measuredReader tells of a read when it is closed.
type measuredReader struct {
	io.ReadCloser
	bytes int64
	err   error
	over  func()
}

func (r *measuredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bytes += int64(n)
	if err != nil {
		r.err = err
	}
	return n, err
}

func (r *measuredReader) Close() error {
	err := r.ReadCloser.Close()
	if r.over != nil {
		r.over()
		r.over = nil
	}
	return err
}

func (b *bucket) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	begin := time.Now()
	info, err := b.next.Put(ctx, key, r, size, o)
	b.done(ctx, opPut, key, begin, info.Size, err)
	return info, err
}

func (b *bucket) Stat(ctx context.Context, key string) (objstore.Info, error) {
	begin := time.Now()
	info, err := b.next.Stat(ctx, key)
	b.done(ctx, opStat, key, begin, 0, err)
	return info, err
}

func (b *bucket) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		begin := time.Now()
		var last error
		defer func() { b.done(ctx, opList, prefix, begin, 0, last) }()
		for info, err := range b.next.List(ctx, prefix) {
			last = err
			if !yield(info, err) {
				return
			}
		}
	}
}

func (b *bucket) Delete(ctx context.Context, key string) error {
	begin := time.Now()
	err := b.next.Delete(ctx, key)
	b.done(ctx, opDelete, key, begin, 0, err)
	return err
}

func (b *bucket) Copy(ctx context.Context, dst string, src objstore.Bucket, srcKey string) (objstore.Info, error) {
	c, ok := b.next.(objstore.Copier)
	if !ok {
		return objstore.Info{}, objstore.ErrCannotCopy
	}
	begin := time.Now()
	info, err := c.Copy(ctx, dst, src, srcKey)
	b.done(ctx, opCopy, dst, begin, 0, err)
	return info, err
}
