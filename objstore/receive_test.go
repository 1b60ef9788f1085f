package objstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
)

// recorder keeps what it is given, and the sizes of the pieces.
type recorder struct {
	bytes.Buffer
	pieces []int
	fail   error
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	r.pieces = append(r.pieces, len(p))
	return r.Buffer.Write(p)
}

// pusher is a source that must not be read.
type pusher struct {
	t    *testing.T
	data []byte
	step int
}

func (p pusher) Read([]byte) (int, error) {
	p.t.Error("a source that can push was read")
	return 0, io.EOF
}

func (p pusher) WriteTo(w io.Writer) (n int64, err error) {
	for rest := p.data; len(rest) > 0; {
		k, err := w.Write(rest[:min(p.step, len(rest))])
		n += int64(k)
		if err != nil {
			return n, err
		}
		rest = rest[k:]
	}
	return n, nil
}

func TestReceivePushed(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Repeat("0123456789abcde", 200_000)) // 3 MB
	for _, step := range []int{1000, directSize - 1, directSize, bufferSize, bufferSize + 1, len(data)} {
		var w recorder
		var b buffers
		n, sum, _, err := receive(t.Context(), &w, pusher{t, data, step}, int64(len(data)), &b)
		if err != nil || n != int64(len(data)) || sum != sha256.Sum256(data) || !bytes.Equal(w.Bytes(), data) {
			t.Errorf("steps of %d: %d bytes, %v", step, n, err)
		}
		// Small writes are gathered, large ones only cut into pieces.
		most := len(data)/pieceSize + len(data)/bufferSize + 1
		if step >= directSize {
			most += len(data) / step
		}
		if len(w.pieces) > most {
			t.Errorf("steps of %d: %d writes, want at most %d", step, len(w.pieces), most)
		}
	}
}

// A large write reaches the file from where it lies.
func TestReceiveCopiesNothing(t *testing.T) {
	t.Parallel()
	data := make([]byte, bufferSize)
	var b buffers
	w := addresses{}
	if _, _, _, err := receive(t.Context(), w, pusher{t, data, len(data)}, -1, &b); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(data); i += pieceSize {
		if !w[&data[i]] {
			t.Errorf("piece at %d was copied", i)
		}
	}
}

// addresses knows where the pieces lay that it was given.
type addresses map[*byte]bool

func (a addresses) Write(p []byte) (int, error) {
	a[&p[0]] = true
	return len(p), nil
}

func TestReceiveErrors(t *testing.T) {
	t.Parallel()
	var b buffers
	full := errors.New("full")
	// The store's error wins, whatever the source makes of it.
	_, _, own, err := receive(t.Context(), &recorder{fail: full}, FromWriter(func(w io.Writer) error {
		for range 3 {
			w.Write(make([]byte, bufferSize))
		}
		return errors.New("something else")
	}), -1, &b)
	if !own || !errors.Is(err, full) {
		t.Errorf("failing store: %v, own %v", err, own)
	}
	// An error of the source that looks like one of the store is not taken for it.
	_, _, own, err = receive(t.Context(), &recorder{}, FromWriter(func(io.Writer) error { return full }), -1, &b)
	if own || !errors.Is(err, full) {
		t.Errorf("failing source: %v, own %v", err, own)
	}
	if _, _, _, err = receive(t.Context(), &recorder{}, stuck{}, -1, &b); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("source that gives nothing: %v, want io.ErrNoProgress", err)
	}
	// A source that keeps the writer finds it shut.
	var kept io.Writer
	if _, _, _, err = receive(t.Context(), &recorder{}, FromWriter(func(w io.Writer) error { kept = w; return nil }), -1, &b); err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Write([]byte("late")); err == nil {
		t.Error("write after the end was taken")
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }
