package objstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"
)

const (
	// bufferSize is what a plain reader is asked for at a time, and what small
	// writes are gathered into: large enough to make the system calls vanish.
	bufferSize = 1 << 20
	// directSize is the write that is worth a call of its own.
	directSize = 64 << 10
	// pieceSize keeps a piece in the first caches between hashing it and copying it
	// into the kernel, and the system call near 20 µs: the Go scheduler takes the
	// processor away from a goroutine that is longer in one, and with no other
	// processor idle the goroutine then waits for a thread to be woken.
	pieceSize = 64 << 10
	// maxEmptyReads is how often a reader may give nothing, without an error.
	maxEmptyReads = 100
	// smallSize is the object that gets a buffer of its own size. Most objects are
	// documents of a few KiB, and each put of one at the same time as others would
	// else have one more large buffer stay in the pool.
	smallSize = 64 << 10
	// minRead is the least that a reader is asked for.
	minRead = 512
)

// keptBuffers is how many large buffers a store holds on to.
const keptBuffers = 4

// buffers lends buffers of bufferSize bytes. It is no sync.Pool, which has one for
// each processor beside those in use, depending on who runs where.
type buffers struct {
	mu   sync.Mutex
	free []*[]byte
}

func (b *buffers) get() *[]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.free) - 1; last >= 0 {
		p := b.free[last]
		b.free = b.free[:last]
		return p
	}
	p := make([]byte, bufferSize)
	return &p
}

func (b *buffers) put(p *[]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) < keptBuffers {
		b.free = append(b.free, p)
	}
}

// sink hashes what passes through it on its way to w. It gathers small writes,
// lets large ones through without copying them, and remembers its first error,
// so that a source which ignores errors cannot hide one.
type sink struct {
	ctx  context.Context
	w    io.Writer
	sum  hash.Hash
	size int64 // expected, negative if unknown
	n    int64 // taken so far, including what lies in buf
	buf  []byte
	fill int // bytes of buf waiting
	err  error
}

// receive moves what r gives into w. own tells an error of the store (writing,
// size, context) from an error of r.
func receive(ctx context.Context, w io.Writer, r io.Reader, size int64, b *buffers) (n int64, sum [32]byte, own bool, err error) {
	s := &sink{ctx: ctx, w: w, sum: sha256.New(), size: size}
	if size >= 0 && size < smallSize {
		s.buf = make([]byte, max(size+1, minRead)) // one more, to meet the end or what is too much
	} else {
		buf := b.get()
		defer b.put(buf)
		s.buf = *buf
	}
	// io.Copy lets an io.WriterTo push into s, and else calls s.ReadFrom. A
	// source must not use s after it returned, but one that does must not write
	// into a buffer that somebody else has by then.
	_, err = io.Copy(s, r)
	if s.err == nil && err == nil {
		s.flush()
	}
	n, failed := s.n, s.err
	s.buf = nil
	if s.err == nil {
		s.err = io.ErrClosedPipe
	}
	switch {
	case failed != nil: // what the source made of it is of no interest
		return n, sum, true, failed
	case err != nil:
		return n, sum, false, err
	case size >= 0 && n != size:
		return n, sum, true, fmt.Errorf("%w: got %d bytes, expected %d", ErrSize, n, size)
	}
	s.sum.Sum(sum[:0])
	return n, sum, false, nil
}

// Write takes p.
func (s *sink) Write(p []byte) (int, error) {
	if !s.take(len(p)) {
		return 0, s.err
	}
	if len(p) >= directSize {
		s.flush()
		s.emit(p)
	} else {
		for rest := p; len(rest) > 0 && s.err == nil; {
			k := copy(s.buf[s.fill:], rest)
			s.fill += k
			rest = rest[k:]
			if s.fill == len(s.buf) {
				s.flush()
			}
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

// ReadFrom takes what r gives until io.EOF.
func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for empty := 0; ; {
		if s.err == nil {
			s.err = s.ctx.Err()
		}
		if s.err != nil {
			return total, s.err
		}
		k, err := r.Read(s.buf[s.fill:])
		if !s.take(k) {
			return total, s.err
		}
		s.fill += k
		total += int64(k)
		if s.fill == len(s.buf) {
			s.flush()
		}
		switch {
		case err == io.EOF:
			return total, s.err
		case err != nil:
			return total, err
		case k > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return total, io.ErrNoProgress
			}
		}
	}
}

// take counts k more bytes and refuses them when they are too many, so that an
// endless source stops at the size that was promised.
func (s *sink) take(k int) bool {
	if s.err == nil && s.size >= 0 && int64(k) > s.size-s.n {
		s.err = fmt.Errorf("%w: more than the %d bytes expected", ErrSize, s.size)
	}
	if s.err != nil {
		return false
	}
	s.n += int64(k)
	return true
}

// flush passes on what was gathered.
func (s *sink) flush() {
	p := s.buf[:s.fill]
	s.fill = 0
	s.emit(p)
}

// emit hashes and writes p, piece by piece, until the first error.
func (s *sink) emit(p []byte) {
	for len(p) > 0 && s.err == nil {
		if s.err = s.ctx.Err(); s.err != nil {
			return
		}
		piece := p[:min(len(p), pieceSize)]
		s.sum.Write(piece)
		_, s.err = s.w.Write(piece)
		p = p[len(piece):]
	}
}
