package objstore

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFromWriterRead(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	r := FromWriter(func(w io.Writer) error {
		io.WriteString(w, "some bytes")
		return failed
	})
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil || string(head) != "some" {
		t.Fatalf("read %q, %v", head, err)
	}
	// io.Copy finds the WriterTo of a reader that was begun.
	var rest bytes.Buffer
	if _, err := io.Copy(&rest, r); !errors.Is(err, failed) || rest.String() != " bytes" {
		t.Errorf("the rest is %q, %v", rest.String(), err)
	}
}

func TestFromWriterOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	r := FromWriter(func(w io.Writer) error { calls++; _, err := w.Write([]byte("x")); return err })
	if n, err := io.Copy(io.Discard, r); n != 1 || err != nil {
		t.Errorf("first: %d, %v", n, err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, errUsed) {
		t.Errorf("WriteTo again: %v", err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, errUsed) {
		t.Errorf("Read after WriteTo: %v", err)
	}
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}

// Closing ends a writer in the middle.
func TestFromWriterClose(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	r := FromWriter(func(w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 10)); err != nil {
				ended <- err
				return err
			}
		}
	})
	if _, err := r.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := r.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the writer ended with %v", err)
	}
}
