package objstoretest

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// testGetIf: the version asked for, or ErrChanged.
func testGetIf(t *testing.T, b objstore.Bucket) {
	data := noise(1, 100_000)
	info := put(t, b, "a/b", data)
	for _, c := range []struct{ off, n, from, to int64 }{
		{0, -1, 0, 100_000}, {0, 100_000, 0, 100_000}, {5, 10, 5, 15}, {99_990, 100, 99_990, 100_000}, {100_000, 1, 0, 0}, {7, 0, 0, 0},
	} {
		r, err := objstore.GetIf(t.Context(), b, "a/b", info.Version, c.off, c.n)
		if err != nil {
			t.Fatalf("GetIf(%d, %d): %v", c.off, c.n, err)
		}
		got, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, data[c.from:c.to]) {
			t.Errorf("GetIf(%d, %d): %d bytes, %v; want bytes %d to %d", c.off, c.n, len(got), err, c.from, c.to)
		}
	}
	readIf := func(key, version string, off, n int64) ([]byte, error) {
		r, err := objstore.GetIf(t.Context(), b, key, version, off, n)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if _, err := readIf("a/b", info.Version, 100_001, 1); !errors.Is(err, objstore.ErrRange) {
		t.Errorf("GetIf behind the end: %v, want ErrRange", err)
	}
	if _, err := readIf("../b", info.Version, 0, 1); !errors.Is(err, objstore.ErrKey) {
		t.Errorf("GetIf of a bad key: %v, want ErrKey", err)
	}
	if _, err := readIf("absent", info.Version, 0, 1); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("GetIf of an absent object: %v, want ErrNotExist", err)
	}
	now := put(t, b, "a/b", noise(2, 100_000))
	for _, version := range []string{info.Version, "", "nonsense", "\"", "*", now.Version + "x"} {
		for _, n := range []int64{-1, 0, 10} {
			if got, err := readIf("a/b", version, 0, n); !errors.Is(err, objstore.ErrChanged) || len(got) > 0 {
				t.Errorf("GetIf of version %q, %d bytes: got %d bytes, %v, want ErrChanged", version, n, len(got), err)
			}
		}
	}
	if _, err := readIf("a/b", now.Version, 0, -1); err != nil {
		t.Errorf("GetIf of the present version: %v", err)
	}
}
