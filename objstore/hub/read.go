package hub

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/shardpress/shardpress/objstore"
)

// maxSkip bounds what is read and thrown away where a server gives a file from its beginning although a later part was asked for, as some do for
// small files.
const maxSkip = 64 << 20

// errIdle says that a connection gave nothing for too long.
var errIdle = errors.New("the connection gave nothing for too long")

// reader reads a range of a file and asks for the rest of it when the connection breaks.
type reader struct {
	ctx      context.Context
	bucket   *Bucket
	file     objstore.Info
	off, end int64
	body     *body     // nil between connections
	failed   int       // connections in a row that gave nothing
	sum      hash.Hash // of a file that is read whole, if its digest is known
	err      error     // for good
}

func newReader(ctx context.Context, b *Bucket, f objstore.Info, off, n int64) *reader {
	r := &reader{ctx: ctx, bucket: b, file: f, off: off, end: off + n}
	if off == 0 && n == f.Size && f.SHA256 != [32]byte{} {
		r.sum = sha256.New()
	}
	return r
}

// open connects, if there is anything to read.
func (r *reader) open() error {
	if r.off == r.end || r.body != nil {
		return r.ctx.Err()
	}
	return r.bucket.link.again(r.ctx, func() (err error) {
		r.body, err = r.bucket.connect(r.ctx, r.file, r.off, r.end)
		return err
	})
}

// Read gives the next bytes.
func (r *reader) Read(p []byte) (int, error) {
	for r.err == nil {
		if err := r.ctx.Err(); err != nil {
			r.err = err
			break
		}
		if r.off == r.end {
			r.err = r.ended()
			break
		}
		if len(p) == 0 {
			return 0, nil
		}
		if err := r.open(); err != nil {
			r.err = fmt.Errorf("read %s of %s: %w", r.file.Key, r.bucket.ref, err)
			break
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.end-r.off)])
		if r.sum != nil {
			r.sum.Write(p[:n])
		}
		r.off += int64(n)
		if n > 0 {
			r.failed = 0
		}
		if err != nil && r.off < r.end {
			r.broke(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// broke drops a connection, and waits before the next one if it gave nothing.
func (r *reader) broke(err error) {
	r.body.Close()
	r.body = nil
	r.failed++
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	switch {
	case r.ctx.Err() != nil:
		r.err = r.ctx.Err()
	case r.failed == maxTries:
		r.err = fmt.Errorf("read %s of %s: %w (tried %d times)", r.file.Key, r.bucket.ref, conceal(err), r.failed)
	case r.failed > 1:
		r.err = r.bucket.link.wait(r.ctx, pause(r.failed-1, 0))
	}
}

// ended is the end of the range, or says that the bytes are not those of the file.
func (r *reader) ended() error {
	if r.sum != nil && [32]byte(r.sum.Sum(nil)) != r.file.SHA256 {
		return fmt.Errorf("read %s of %s: %w: its SHA-256 is not the one that the hub lists", r.file.Key, r.bucket.ref, objstore.ErrChanged)
	}
	return io.EOF
}

// Close lets the connection go.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = errors.New("reader is closed")
	}
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
	return nil
}

// connect makes one request for bytes off to end of a file, where it was found before or where the hub says.
func (b *Bucket) connect(ctx context.Context, f objstore.Info, off, end int64) (*body, error) {
	bytes := strconv.FormatInt(off, 10) + "-" + strconv.FormatInt(end-1, 10)
	ctx, cancel := context.WithCancelCause(ctx)
	b.mu.Lock()
	at := b.where[f.Key]
	b.mu.Unlock()
	known := at != nil
	if !known {
		at = b.link.address("/" + b.ref.ID + "/resolve/" + b.ref.Revision + "/" + escape(f.Key))
	}
	resp, found, err := b.link.get(ctx, at, bytes, b.ref) //nolint:bodyclose // the body that is returned closes it
	if err != nil {
		b.forget(f.Key, at)
		cancel(nil)
		return nil, err
	}
	if err := b.check(resp, f, off, end); err != nil {
		b.forget(f.Key, at)
		discard(resp.Body)
		cancel(nil)
		return nil, err
	}
	if !b.link.ours(found) { // the hub itself need not be spared
		b.mu.Lock()
		b.where[f.Key] = found
		b.mu.Unlock()
	}
	idle := time.AfterFunc(answerTime, func() { cancel(errIdle) })
	idle.Stop()
	return &body{resp: resp, cancel: cancel, idle: idle, ctx: ctx}, nil
}

// forget drops the address that a file was found at.
func (b *Bucket) forget(key string, at *url.URL) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.where[key] == at {
		delete(b.where, key)
	}
}

// check holds an answer against what the file is known to be, and moves to where the range begins.
func (b *Bucket) check(resp *http.Response, f objstore.Info, off, end int64) error {
	if c := resp.Header.Get("X-Repo-Commit"); c != "" && c != b.ref.Revision {
		return fmt.Errorf("%w: the hub answers with commit %s", objstore.ErrChanged, clip(c))
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("the hub answers in the encoding %q, although none was asked for", clip(e))
	}
	if resp.StatusCode == http.StatusPartialContent {
		first, last, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || first != off || last >= end {
			return fmt.Errorf("the hub answers with the range %q, asked for bytes %d to %d", clip(resp.Header.Get("Content-Range")), off, end-1)
		}
		if total >= 0 && total != f.Size {
			return fmt.Errorf("%w: the hub listed %d bytes and serves %d", objstore.ErrChanged, f.Size, total)
		}
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != f.Size {
		return fmt.Errorf("%w: the hub listed %d bytes and serves %d", objstore.ErrChanged, f.Size, resp.ContentLength)
	}
	if off > maxSkip {
		return fmt.Errorf("the hub serves no ranges of %s: use another endpoint", f.Key)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
		return &passing{err: fmt.Errorf("read the hub's answer: %w", conceal(err))}
	}
	return nil
}

// contentRange reads "bytes first-last/total"; total is -1 for "*".
func contentRange(s string) (first, last, total int64, ok bool) {
	rest, found := strings.CutPrefix(s, "bytes ")
	span, size, found2 := strings.Cut(rest, "/")
	a, b, found3 := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	total = -1
	var err3 error
	if size != "*" {
		total, err3 = strconv.ParseInt(size, 10, 64)
	}
	ok = found && found2 && found3 && err1 == nil && err2 == nil && err3 == nil && first >= 0 && last >= first && (total < 0 || last < total)
	return first, last, total, ok
}

// escape makes a path out of a key.
func escape(key string) string {
	parts := strings.Split(key, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// body is an answer whose connection may not be silent for long.
type body struct {
	resp   *http.Response
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   *time.Timer // runs during Read
}

func (b *body) Read(p []byte) (int, error) {
	b.idle.Reset(answerTime)
	n, err := b.resp.Body.Read(p)
	b.idle.Stop()
	if err != nil && errors.Is(context.Cause(b.ctx), errIdle) {
		err = errIdle
	}
	return n, err
}

func (b *body) Close() {
	b.idle.Stop()
	b.resp.Body.Close()
	b.cancel(nil)
}
