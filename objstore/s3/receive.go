package s3

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/shardpress/shardpress/objstore"
)

const (
	firstBuffer = 8 << 10
	// hashPiece stays in the caches, and lets a cancelled upload end soon.
	hashPiece     = 256 << 10
	maxEmptyReads = 100
)

// upload takes the bytes of a Put into buffers of the size of a part, which it hands
// to a multipart upload as soon as one more byte comes than fits in the first.
type upload struct {
	ctx      context.Context
	b        *Bucket
	name     string
	size     int64 // expected, negative if unknown
	ifAbsent bool
	partSize int

	sum   hash.Hash
	n     int64  // taken
	buf   []byte // what waits, len of cap
	extra [512]byte
	err   error // the first of ours
	multi *multipart
}

func newUpload(ctx context.Context, b *Bucket, name string, size int64, ifAbsent bool) *upload {
	part := b.o.PartSize
	if size > part*maxParts {
		part = (size/maxParts + mib) &^ (mib - 1)
	}
	return &upload{ctx: ctx, b: b, name: name, size: size, ifAbsent: ifAbsent, partSize: int(part), sum: sha256.New()}
}

// receive takes what r gives, and its digest.
func (u *upload) receive(r io.Reader) (sum [32]byte, err error) {
	if u.size > maxPart*maxParts {
		return sum, fmt.Errorf("%w: %d bytes: S3 takes %d", objstore.ErrTooLarge, u.size, int64(maxPart)*maxParts)
	}
	_, err = io.Copy(u, r) // an io.WriterTo pushes into u, others are read by ReadFrom
	failed := u.err
	if u.err == nil { // a source must not go on to use u, but one may
		u.err = io.ErrClosedPipe
	}
	switch {
	case failed != nil:
		return sum, failed
	case err != nil:
		return sum, err
	case u.ctx.Err() != nil:
		return sum, u.ctx.Err()
	case u.size >= 0 && u.n != u.size:
		return sum, fmt.Errorf("%w: got %d bytes, expected %d", objstore.ErrSize, u.n, u.size)
	}
	u.sum.Sum(sum[:0])
	return sum, nil
}

// Write takes p.
func (u *upload) Write(p []byte) (int, error) {
	u.take(p)
	if u.err != nil {
		return 0, u.err
	}
	return len(p), nil
}

// ReadFrom takes what r gives until io.EOF, without a copy where it can.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for empty := 0; u.err == nil; {
		if u.err = u.ctx.Err(); u.err != nil {
			break
		}
		u.grow()
		// Whether a full buffer is the last one is not known before one more byte is asked for.
		free := u.buf[len(u.buf):cap(u.buf)]
		direct := len(free) > 0
		if !direct {
			free = u.extra[:]
		}
		k, err := r.Read(free[:min(len(free), hashPiece)])
		if k < 0 || k > len(free) {
			return total, fmt.Errorf("reader gave %d bytes of %d", k, len(free))
		}
		total += int64(k)
		switch {
		case !direct:
			u.take(free[:k])
		case u.count(k):
			u.sum.Write(free[:k])
			u.buf = u.buf[:len(u.buf)+k]
		}
		switch {
		case u.err != nil:
		case err == io.EOF:
			return total, nil
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
	return total, u.err
}

// count takes note of k more bytes and refuses them when they are too many, so that
// an endless source stops at the size that was promised.
func (u *upload) count(k int) bool {
	switch {
	case u.err != nil:
	case u.size >= 0 && int64(k) > u.size-u.n:
		u.err = fmt.Errorf("%w: more than the %d bytes expected", objstore.ErrSize, u.size)
	default:
		u.n += int64(k)
	}
	return u.err == nil
}

// take copies p into buffers.
func (u *upload) take(p []byte) {
	if len(p) == 0 || !u.count(len(p)) {
		return
	}
	for len(p) > 0 && u.err == nil {
		if u.err = u.ctx.Err(); u.err != nil {
			return
		}
		u.grow()
		if len(u.buf) == cap(u.buf) {
			u.err = u.dispatch()
			continue
		}
		k := min(len(p), cap(u.buf)-len(u.buf), hashPiece)
		u.sum.Write(p[:k])
		u.buf = append(u.buf, p[:k]...)
		p = p[k:]
	}
}

// grow makes room in the first buffer, which begins small, since most objects are,
// and since a size is only a claim. Later ones have the size of a part.
func (u *upload) grow() {
	if len(u.buf) < cap(u.buf) || cap(u.buf) >= u.partSize {
		return
	}
	want := max(firstBuffer, 4*cap(u.buf))
	if u.size >= 0 && int64(want) > u.size && u.size >= int64(len(u.buf)) {
		// No more than was promised; one byte too many goes to extra.
		want = max(int(u.size), len(u.buf))
		if want == cap(u.buf) {
			return
		}
	}
	want = min(want, u.partSize)
	var next []byte
	if want == u.partSize {
		next = u.b.lend(u.partSize)[:len(u.buf)]
	} else {
		next = make([]byte, len(u.buf), want)
	}
	copy(next, u.buf)
	u.buf = next
}

// lend gives an empty buffer of n bytes.
func (b *Bucket) lend(n int) []byte {
	if int64(n) == b.o.PartSize {
		if p, ok := b.buffers.Get().(*[]byte); ok {
			return (*p)[:0]
		}
	}
	return make([]byte, 0, n)
}

// giveBack takes a buffer that nobody uses any more.
func (b *Bucket) giveBack(p []byte) {
	if int64(cap(p)) == b.o.PartSize {
		p = p[:0]
		b.buffers.Put(&p)
	}
}
