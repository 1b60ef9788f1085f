package objstore

import (
	"errors"
	"io"
)

// FromWriter turns code that writes into a reader for Put. The reader
// implements io.WriterTo: a store that copies with io.Copy has write called with
// the store's own writer, in the same goroutine, without a pipe or a copy.
// Backends that must read get the bytes through a pipe, from a goroutine that
// starts with the first Read.
//
// write is called at most once. Its error is what Read and WriteTo return. The
// reader also implements io.Closer: whoever has called Read and stops before the
// end must close it, which fails write's next Write and so ends the goroutine.
func FromWriter(write func(io.Writer) error) io.Reader {
	return &writerReader{write: write}
}

// writerReader is the reader of FromWriter; it is used by one goroutine.
type writerReader struct {
	write func(io.Writer) error // nil once it has been called
	pipe  *io.PipeReader
}

var errUsed = errors.New("reader of FromWriter was used before and cannot start again")

// WriteTo calls the function with w.
func (r *writerReader) WriteTo(w io.Writer) (int64, error) {
	if r.pipe != nil { // somebody began to Read: go on with that
		return io.Copy(w, r.pipe)
	}
	write := r.write
	if write == nil {
		return 0, errUsed
	}
	r.write = nil
	c := &countingWriter{w: w}
	err := write(c)
	return c.n, err
}

// Read gives what the function writes.
func (r *writerReader) Read(p []byte) (int, error) {
	if r.pipe == nil {
		write := r.write
		if write == nil {
			return 0, errUsed
		}
		r.write = nil
		pr, pw := io.Pipe()
		r.pipe = pr
		go func() { pw.CloseWithError(write(pw)) }()
	}
	return r.pipe.Read(p)
}

// Close ends a function that is still writing.
func (r *writerReader) Close() error {
	r.write = nil
	if r.pipe != nil {
		return r.pipe.Close()
	}
	return nil
}

// countingWriter counts what w takes.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	k, err := c.w.Write(p)
	c.n += int64(k)
	return k, err
}
