package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

func testIfAbsent(t *testing.T, b objstore.Bucket) {
	o := objstore.PutOptions{IfAbsent: true}
	first := []byte("first")
	info, err := b.Put(t.Context(), "a/b", bytes.NewReader(first), 5, o)
	if err != nil {
		t.Fatal(err)
	}
	checkInfo(t, info, "a/b", first)
	_, err = b.Put(t.Context(), "a/b", strings.NewReader("other"), 5, o)
	if !errors.Is(err, objstore.ErrExist) {
		t.Fatalf("second Put if absent: %v, want ErrExist", err)
	}
	want(t, b, "a/b", first)
	if again, err := b.Stat(t.Context(), "a/b"); err != nil || again.Version != info.Version {
		t.Errorf("a refused Put changed the version: %+v, %v", again, err)
	}
	if err := b.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err = b.Put(t.Context(), "a/b", strings.NewReader("third"), 5, o); err != nil {
		t.Errorf("Put if absent after Delete: %v", err)
	}
}

func testVersion(t *testing.T, b objstore.Bucket) {
	seen := ""
	for i := range 5 {
		data := noise(uint64(i), 100) // always the same size
		info := put(t, b, "a", data)
		if info.Version == seen {
			t.Errorf("overwriting kept version %q", seen)
		}
		seen = info.Version
		stat, err := b.Stat(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		info.SHA256 = [32]byte{} // which only Put knows
		if stat.Version != info.Version || stat.Size != info.Size || stat.Key != "a" || stat.SHA256 != info.SHA256 || stat.ModTime.IsZero() {
			t.Errorf("Put told %+v, Stat %+v", info, stat)
		}
		for list, err := range b.List(t.Context(), "") {
			if err != nil || list.Version != stat.Version || list.Size != stat.Size || list.Key != "a" || list.SHA256 != stat.SHA256 {
				t.Errorf("Stat told %+v, List %+v, %v", stat, list, err)
			}
		}
	}
}

// untouched checks that failed Puts did nothing: "old" is as it was, and "new"
// was never there.
func untouched(t *testing.T, b objstore.Bucket, old []byte) {
	t.Helper()
	want(t, b, "old", old)
	absent(t, b, "new")
	if got := keys(t, b, ""); len(got) != 1 || got[0] != "old" {
		t.Errorf("listing has %q after failed Puts, want only \"old\"", got)
	}
}

// endless gives zeros for ever.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func testSize(t *testing.T, b objstore.Bucket) {
	old := []byte("as it was")
	put(t, b, "old", old)
	for _, key := range []string{"old", "new"} {
		for _, c := range []struct {
			name string
			r    io.Reader
			size int64
		}{
			{"one too few", bytes.NewReader(noise(1, 99)), 100},
			{"one too few, plain", plain{bytes.NewReader(noise(1, 99))}, 100},
			{"one too many", bytes.NewReader(noise(1, 101)), 100},
			{"one too many, plain", plain{bytes.NewReader(noise(1, 101))}, 100},
			{"none", bytes.NewReader(nil), 1},
			{"some instead of none", bytes.NewReader(noise(1, 1)), 0},
			{"a buffer too few", plain{bytes.NewReader(noise(1, 1<<20))}, 2 << 20},
			{"far fewer", bytes.NewReader(noise(1, 1<<20)), 1 << 40},
			{"endless", endless{}, 3<<20 + 1},
			{"writer that hides errors", objstore.FromWriter(func(w io.Writer) error {
				for range 100 {
					w.Write(noise(1, 100<<10))
				}
				return nil
			}), 1 << 20},
		} {
			_, err := b.Put(t.Context(), key, c.r, c.size, objstore.PutOptions{})
			if !errors.Is(err, objstore.ErrSize) {
				t.Errorf("%s: Put(%q): %v, want ErrSize", c.name, key, err)
			}
		}
	}
	untouched(t, b, old)
}

// failing gives n bytes and then its error.
type failing struct {
	n   int
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.n == 0 {
		return 0, f.err
	}
	k := min(len(p), f.n)
	f.n -= k
	return k, nil
}

type readerError struct{ at int }

func (e *readerError) Error() string { return fmt.Sprintf("reader failed after %d bytes", e.at) }

func testFailingReader(t *testing.T, b objstore.Bucket) {
	old := []byte("as it was")
	put(t, b, "old", old)
	for _, key := range []string{"old", "new"} {
		for _, n := range []int{0, 1, 1000, 1 << 20, 2<<20 + 5} {
			for _, size := range []int64{-1, 4 << 20, int64(n)} {
				failed := &readerError{n}
				_, err := b.Put(t.Context(), key, &failing{n, failed}, size, objstore.PutOptions{})
				var got *readerError
				if !errors.As(err, &got) || got != failed {
					t.Errorf("Put(%q, size %d): %v, want %v", key, size, err, failed)
				}
			}
		}
		// Not to be mistaken for the end.
		_, err := b.Put(t.Context(), key, &failing{10, io.ErrUnexpectedEOF}, -1, objstore.PutOptions{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Put(%q): %v, want ErrUnexpectedEOF", key, err)
		}
	}
	untouched(t, b, old)
}

// cancelling cancels a context after n bytes, and goes on giving as if nothing
// had happened.
type cancelling struct {
	n, size int
	cancel  context.CancelFunc
}

func (c *cancelling) Read(p []byte) (int, error) {
	if c.size == 0 {
		return 0, io.EOF
	}
	k := min(len(p), c.size)
	if c.n > 0 {
		k = min(k, c.n)
		c.n -= k
	}
	if c.n == 0 {
		c.cancel()
	}
	c.size -= k
	return k, nil
}

func testCancel(t *testing.T, b objstore.Bucket) {
	old := []byte("as it was")
	put(t, b, "old", old)
	for _, key := range []string{"old", "new"} {
		for _, n := range []int{1, 1 << 20, 3 << 20} {
			for _, size := range []int64{-1, 4 << 20} {
				ctx, cancel := context.WithCancel(t.Context())
				_, err := b.Put(ctx, key, &cancelling{n, 4 << 20, cancel}, size, objstore.PutOptions{})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Put(%q) cancelled after %d bytes: %v, want context.Canceled", key, n, err)
				}
				cancel()
			}
		}
		// A source that pushes is stopped too.
		ctx, cancel := context.WithCancel(t.Context())
		_, err := b.Put(ctx, key, objstore.FromWriter(func(w io.Writer) error {
			cancel()
			for range 8 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
			return nil
		}), -1, objstore.PutOptions{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Put(%q) from a writer, cancelled: %v, want context.Canceled", key, err)
		}
	}
	untouched(t, b, old)
}

func testCancelledBefore(t *testing.T, b objstore.Bucket) {
	old := []byte("as it was")
	put(t, b, "old", old)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.Get(ctx, "old", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	_, rerr := io.ReadAll(r)
	_, gerr := read(ctx, b, "old", 0, -1)
	_, perr := b.Put(ctx, "new", strings.NewReader("x"), 1, objstore.PutOptions{})
	_, serr := b.Stat(ctx, "old")
	derr := b.Delete(ctx, "old")
	var lerr error
	for _, err := range b.List(ctx, "") {
		lerr = err
	}
	for op, err := range map[string]error{"Read": rerr, "Get": gerr, "Put": perr, "Stat": serr, "Delete": derr, "List": lerr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", op, err)
		}
	}
	untouched(t, b, old)
}

func testFromWriter(t *testing.T, b objstore.Bucket) {
	data := noise(3, 3<<20)
	// Pieces of all sizes: smaller and larger than any buffer.
	write := func(w io.Writer) error {
		rest := data
		for n := 1; len(rest) > 0; n = n*3 + 1 {
			k := min(n, len(rest))
			if m, err := w.Write(rest[:k]); err != nil || m != k {
				return fmt.Errorf("wrote %d of %d bytes: %w", m, k, err)
			}
			rest = rest[k:]
		}
		return nil
	}
	for _, size := range []int64{-1, int64(len(data))} {
		info, err := b.Put(t.Context(), "a", objstore.FromWriter(write), size, objstore.PutOptions{})
		if err != nil {
			t.Fatalf("Put of size %d: %v", size, err)
		}
		checkInfo(t, info, "a", data)
		want(t, b, "a", data)
	}
	if _, err := b.Put(t.Context(), "empty", objstore.FromWriter(func(io.Writer) error { return nil }), -1, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	want(t, b, "empty", nil)
}

func testFromWriterFails(t *testing.T, b objstore.Bucket) {
	old := []byte("as it was")
	put(t, b, "old", old)
	for _, key := range []string{"old", "new"} {
		for _, n := range []int{0, 10, 2 << 20} {
			failed := &readerError{n}
			_, err := b.Put(t.Context(), key, objstore.FromWriter(func(w io.Writer) error {
				w.Write(make([]byte, n))
				return failed
			}), -1, objstore.PutOptions{})
			if !errors.Is(err, failed) {
				t.Errorf("Put(%q): %v, want %v", key, err, failed)
			}
		}
	}
	untouched(t, b, old)
}
