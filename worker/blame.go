package worker

import (
	"context"
	"errors"
	"io"
	"iter"
	"syscall"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// errNondeterministic marks a result that differs from one that exists.
var errNondeterministic = errors.New("the same task gave other bytes")

// errPanic marks an operation that panicked.
var errPanic = errors.New("operation panicked")

// kindOf says whose fault an attempt's error is.
func kindOf(err error) task.Kind {
	var store *operation.StoreError
	var lost *operation.LostInput
	switch {
	case errors.As(err, &lost):
		return task.Lost
	case errors.Is(err, errNondeterministic):
		return task.Nondeterministic
	case errors.Is(err, errPanic):
		return task.Internal
	case errors.Is(err, objstore.ErrFull):
		return task.Full
	case errors.As(err, &store), errors.Is(err, objstore.ErrReadOnly), errors.Is(err, objstore.ErrRoot),
		errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT): // scratch space is a store, too
		return task.Storage
	}
	return operation.Classify(err)
}

// storage reports whether it is the store's fault: the task is given back.
func storage(k task.Kind) bool { return k == task.Storage || k == task.Full }

// blamed is a bucket whose errors are marked as the store's own, where they are: that
// an object is not there, or is there already, is an answer, and what a reader
// reports that is being stored is the reader's.
type blamed struct{ objstore.Bucket }

var (
	_ objstore.Conditional = (*blamed)(nil)
	_ objstore.Wrapper     = (*blamed)(nil)
)

// Unwrap implements objstore.Wrapper.
func (b *blamed) Unwrap() objstore.Bucket { return b.Bucket }

func blame(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, answer := range []error{
		objstore.ErrNotExist, objstore.ErrExist, objstore.ErrSize, objstore.ErrKey, objstore.ErrRange,
		objstore.ErrCannotCopy, objstore.ErrTooLarge, objstore.ErrChanged,
	} {
		if errors.Is(err, answer) {
			return err
		}
	}
	return &operation.StoreError{Err: err}
}

// Get implements objstore.Bucket.
func (b *blamed) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := b.Bucket.Get(ctx, key, off, n)
	if err != nil {
		return nil, blame(ctx, err)
	}
	return &blamedReader{ctx, r}, nil
}

// GetIf implements objstore.Conditional.
func (b *blamed) GetIf(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error) {
	r, err := objstore.GetIf(ctx, b.Bucket, key, version, off, n)
	if err != nil {
		return nil, blame(ctx, err)
	}
	return &blamedReader{ctx, r}, nil
}

type blamedReader struct {
	ctx context.Context
	io.ReadCloser
}

// Read implements io.Reader.
func (r *blamedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader's own contract
		err = blame(r.ctx, err)
	}
	return n, err
}

// Put implements objstore.Bucket.
func (b *blamed) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	given := &given{Reader: r}
	var from io.Reader = given
	if w, ok := r.(io.WriterTo); ok {
		from = &givenTo{given, w}
	}
	info, err := b.Bucket.Put(ctx, key, from, size, o)
	if given.failed {
		return info, err
	}
	return info, blame(ctx, err)
}

// given is a reader that remembers whether it failed by itself.
type given struct {
	io.Reader
	failed bool
}

// Read implements io.Reader.
func (g *given) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if err != nil && err != io.EOF {
		g.failed = true
	}
	return n, err
}

// Close implements io.Closer, which readers of objstore.FromWriter want to be told.
func (g *given) Close() error {
	if c, ok := g.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// givenTo is one that can write, too: what fails then may be what it writes to.
type givenTo struct {
	*given
	to io.WriterTo
}

// WriteTo implements io.WriterTo.
func (g *givenTo) WriteTo(w io.Writer) (int64, error) {
	out := &taker{w: w}
	n, err := g.to.WriteTo(out)
	if err != nil && !out.failed {
		g.failed = true
	}
	return n, err
}

type taker struct {
	w      io.Writer
	failed bool
}

// Write implements io.Writer.
func (t *taker) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.failed = t.failed || err != nil
	return n, err
}

// Stat implements objstore.Bucket.
func (b *blamed) Stat(ctx context.Context, key string) (objstore.Info, error) {
	info, err := b.Bucket.Stat(ctx, key)
	return info, blame(ctx, err)
}

// List implements objstore.Bucket.
func (b *blamed) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range b.Bucket.List(ctx, prefix) {
			if !yield(info, blame(ctx, err)) {
				return
			}
		}
	}
}

// Delete implements objstore.Bucket.
func (b *blamed) Delete(ctx context.Context, key string) error {
	return blame(ctx, b.Bucket.Delete(ctx, key))
}

// rest notes that the store has failed this worker once more. It returns for how long
// the task is given back, and keeps the worker from pulling others meanwhile: one
// with a broken way to the store would else hold up every task there is.
func (s *shift) rest() time.Duration {
	s.mu.Lock()
	s.troubles++
	n := s.troubles
	s.mu.Unlock()
	most := s.MaxRest
	if most <= 0 {
		most = 30 * time.Second
	}
	d := jitter(max(1, min(most, time.Second<<min(n-1, 5))*2/3))
	s.room.rest(d)
	return d
}

// rested notes that the store has served an attempt to its end.
func (s *shift) rested() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles = 0
}
