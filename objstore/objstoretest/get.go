package objstoretest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// Sizes straddle the buffers that backends use.
func testRoundTrip(t *testing.T, b objstore.Bucket) {
	for i, size := range []int{0, 1, 255, 64<<10 - 1, 64 << 10, 256<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 7} {
		data := noise(uint64(i), size)
		put(t, b, "known/size", data)
		want(t, b, "known/size", data)
		// bytes.Reader is an io.WriterTo, so this goes another way.
		info, err := b.Put(t.Context(), "unknown", bytes.NewReader(data), -1, objstore.PutOptions{})
		if err != nil {
			t.Fatalf("Put of %d bytes without size: %v", size, err)
		}
		checkInfo(t, info, "unknown", data)
		want(t, b, "unknown", data)
	}
}

func testRange(t *testing.T, b objstore.Bucket) {
	data := noise(1, 1000)
	put(t, b, "full", data)
	put(t, b, "empty", nil)
	for _, c := range []struct {
		key       string
		off, n    int64
		from, to  int
		errWanted error
	}{
		{"full", 0, -1, 0, 1000, nil},
		{"full", 0, 1000, 0, 1000, nil},
		{"full", 0, 10, 0, 10, nil},
		{"full", 0, 0, 0, 0, nil},
		{"full", 7, 1, 7, 8, nil},
		{"full", 999, 1, 999, 1000, nil},
		{"full", 500, -1, 500, 1000, nil},
		{"full", 900, 200, 900, 1000, nil}, // cut at the end
		{"full", 1, 1<<63 - 1, 1, 1000, nil},
		{"full", 1000, -1, 0, 0, nil},
		{"full", 1000, 5, 0, 0, nil},
		{"full", 1001, -1, 0, 0, objstore.ErrRange},
		{"full", 1001, 0, 0, 0, objstore.ErrRange},
		{"full", 1<<63 - 1, 1, 0, 0, objstore.ErrRange},
		{"full", -1, 1, 0, 0, objstore.ErrRange},
		{"empty", 0, -1, 0, 0, nil},
		{"empty", 0, 0, 0, 0, nil},
		{"empty", 0, 5, 0, 0, nil},
		{"empty", 1, 5, 0, 0, objstore.ErrRange},
		{"absent", 0, 0, 0, 0, objstore.ErrNotExist},
		{"absent", 5, 5, 0, 0, objstore.ErrNotExist},
	} {
		got, err := read(t.Context(), b, c.key, c.off, c.n)
		if !errors.Is(err, c.errWanted) {
			t.Errorf("Get(%q, %d, %d): %v, want %v", c.key, c.off, c.n, err, c.errWanted)
			continue
		}
		if !bytes.Equal(got, data[c.from:c.to]) {
			t.Errorf("Get(%q, %d, %d): not bytes %d to %d (%d bytes)", c.key, c.off, c.n, c.from, c.to, len(got))
		}
	}
}

func testMissing(t *testing.T, b objstore.Bucket) {
	absent(t, b, "a")
	put(t, b, "a/b", []byte("x"))
	absent(t, b, "a") // a folder is no object
	absent(t, b, "a/b/c")
	absent(t, b, "a/c")
}

// What was opened is read whole, whatever happens to the object meanwhile, or
// fails: never a mixture.
func testOpenReader(t *testing.T, b objstore.Bucket) {
	old := noise(1, 1<<20)
	put(t, b, "a", old)
	r, err := b.Get(t.Context(), "a", 10, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 100)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", noise(2, 1<<20))
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	tail, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(slices.Concat(head, tail), old[10:]) {
		t.Error("an open reader mixes an object with what overwrote it")
	}
}
