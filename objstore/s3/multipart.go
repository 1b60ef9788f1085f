package s3

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/shardpress/shardpress/objstore"
)

// abortTimeout bounds the clearing up after an upload that failed. What is left then
// is for SweepUploads.
const (
	abortTimeout = 30 * time.Second
	maxAborts    = 3
)

// multipart is a multipart upload under way.
type multipart struct {
	b      *Bucket
	name   string
	id     string
	mark   map[string]string
	ctx    context.Context // of the parts: ends with the first failure
	cancel context.CancelCauseFunc

	wg    sync.WaitGroup
	free  chan []byte // buffers whose part is stored
	held  int         // buffers that exist, the one being filled included
	extra int         // of them, those that count in Bucket.extra
	count int         // parts begun

	mu    sync.Mutex
	parts []minio.CompletePart
}

// begin starts a multipart upload. Its errors are do's.
func (b *Bucket) begin(ctx context.Context, name string) (*multipart, error) {
	m := &multipart{b: b, name: name, mark: newMark(), held: 1, free: make(chan []byte, b.o.UploadThreads)}
	err := b.write(ctx, name, func(ctx context.Context, _ *exchange) (err error) {
		// One whose answer was lost is left for SweepUploads: it has no parts.
		m.id, err = b.core.NewMultipartUpload(ctx, b.bucket, name, minio.PutObjectOptions{UserMetadata: m.mark})
		return err
	})
	if err != nil {
		return nil, err
	}
	b.saw()
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	return m, nil
}

// dispatch sends the full buffer on its way and gets another one.
func (u *upload) dispatch() error {
	if u.ifAbsent {
		return u.b.tooLarge()
	}
	if u.multi == nil {
		m, err := u.b.begin(u.ctx, u.name)
		if err != nil {
			return u.b.explain(err, writing)
		}
		u.multi = m
	}
	if u.multi.count == maxParts {
		return fmt.Errorf("%w: S3 takes %d parts, here of %d bytes: say the size, or set a larger part size", objstore.ErrTooLarge, maxParts, u.partSize)
	}
	u.multi.send(u.buf)
	u.buf = nil
	var err error
	u.buf, err = u.multi.buffer(u.partSize)
	return err
}

// send stores a part, in the background, and then frees its buffer.
func (m *multipart) send(data []byte) {
	m.count++
	number := m.count
	m.wg.Go(func() {
		part, err := m.put(number, data)
		if err != nil {
			m.cancel(err)
			return // the buffer may still be with a request that is being given up
		}
		m.mu.Lock()
		m.parts = append(m.parts, part)
		m.mu.Unlock()
		m.free <- data[:0]
	})
}

// put stores a part. Its errors are do's.
func (m *multipart) put(number int, data []byte) (minio.CompletePart, error) {
	var etag string
	err := m.b.do(m.ctx, func(ctx context.Context, _ *exchange) error {
		p, err := m.b.core.PutObjectPart(ctx, m.b.bucket, m.name, m.id, number, bytes.NewReader(data), int64(len(data)), minio.PutObjectPartOptions{DisableContentSha256: true})
		if err == nil && p.ETag == "" {
			return &failure{message: fmt.Sprintf("server gave no ETag for part %d", number), passes: true}
		}
		etag = p.ETag
		return err
	})
	return minio.CompletePart{PartNumber: number, ETag: etag}, err
}

// buffer gives an empty buffer: one that is free, or a new one if there may be more,
// or else the first that gets free.
func (m *multipart) buffer(size int) ([]byte, error) {
	select {
	case p := <-m.free:
		return p, nil
	default:
	}
	if m.held < m.b.o.UploadThreads {
		select {
		case m.b.extra <- struct{}{}:
			m.held++
			m.extra++
			return m.b.lend(size), nil
		default: // other uploads have them all: take turns with our own
		}
	}
	select {
	case p := <-m.free:
		return p, nil
	case <-m.ctx.Done():
		return nil, m.b.explain(m.failed(), writing)
	}
}

// failed is why the upload ended: an error of do.
func (m *multipart) failed() error { return context.Cause(m.ctx) }

// finish makes the object.
func (u *upload) finish() (objstore.Info, error) {
	if u.multi == nil {
		data := u.buf
		u.buf = nil
		info, err := u.b.putOne(u.ctx, u.name, data, u.ifAbsent)
		if err == nil { // else a connection may still be reading from it
			u.b.giveBack(data)
		}
		return info, err
	}
	m := u.multi
	if len(u.buf) > 0 {
		m.send(u.buf)
		u.buf = nil
	}
	m.wg.Wait()
	if m.ctx.Err() != nil {
		return objstore.Info{}, u.b.explain(m.failed(), writing)
	}
	info, err := m.complete(u.ctx, u.n)
	return info, u.b.explain(err, writing)
}

// complete makes an object of the parts. Its errors are do's.
func (m *multipart) complete(ctx context.Context, size int64) (objstore.Info, error) {
	slices.SortFunc(m.parts, func(a, b minio.CompletePart) int { return a.PartNumber - b.PartNumber })
	var (
		done  minio.UploadInfo
		date  time.Time
		tries int
	)
	err := m.b.write(ctx, m.name, func(ctx context.Context, x *exchange) (err error) {
		tries++
		done, err = m.b.core.CompleteMultipartUpload(ctx, m.b.bucket, m.name, m.id, m.parts, minio.PutObjectOptions{})
		date = x.date
		return err
	})
	if err == nil {
		m.id = "" // nothing left to abort
		m.b.saw()
		return m.b.stored(ctx, m.name, size, done.ETag, date)
	}
	// When an answer was lost the upload may be complete, and then there is none of its ID.
	if tries > 1 {
		if o, herr := m.b.head(ctx, m.name); herr == nil && marked(o, m.mark) {
			m.id = ""
			return m.b.info(o), nil
		}
	}
	return objstore.Info{}, err
}

// end gives back what the upload holds, and aborts one that was not completed.
func (u *upload) end() {
	if u.buf != nil {
		u.b.giveBack(u.buf)
		u.buf = nil
	}
	m := u.multi
	if m == nil {
		return
	}
	m.cancel(context.Canceled)
	m.wg.Wait()
	for range m.extra {
		<-u.b.extra
	}
	close(m.free)
	for p := range m.free {
		u.b.giveBack(p)
	}
	if m.id != "" {
		m.abort(u.ctx)
	}
}

// abort removes the parts, also when the upload was cancelled. It asks until the server
// does not know the upload any more: a part whose request was given up may still be
// stored after the first abort.
func (m *multipart) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	for try := range maxAborts {
		err := m.b.do(ctx, func(ctx context.Context, _ *exchange) error {
			return m.b.core.AbortMultipartUpload(ctx, m.b.bucket, m.name, m.id)
		})
		// The upload's own error is the one to tell; SweepUploads does what is left.
		if err != nil || m.b.pause(ctx, try, 0) != nil {
			return
		}
	}
}
