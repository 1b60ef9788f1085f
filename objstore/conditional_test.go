package objstore_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
)

// bare hides everything of a bucket that Bucket does not ask for.
type bare struct{ objstore.Bucket }

func TestGetIfFallback(t *testing.T) {
	t.Parallel()
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return bare{objstore.NewMem()} })
}

// Overwritten between the question and the answer: the last bytes are not given.
func TestGetIfFallbackChanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(b objstore.Bucket)
		want   error
	}{
		{"overwritten", func(b objstore.Bucket) { mustPut(t, b, "a", "other bytes") }, objstore.ErrChanged},
		{"deleted", func(b objstore.Bucket) { b.Delete(t.Context(), "a") }, objstore.ErrNotExist},
		{"untouched", func(objstore.Bucket) {}, nil},
	} {
		b := bare{objstore.NewMem()}
		info := mustPut(t, b, "a", "these bytes")
		r, err := objstore.GetIf(t.Context(), b, "a", info.Version, 2, -1)
		if err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 3)
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		test.change(b)
		// A reader that asks for exactly the rest never sees the end.
		tail := make([]byte, 6)
		k, err := io.ReadFull(r, tail)
		if !errors.Is(err, test.want) || test.want != nil && k > 0 || test.want == nil && !bytes.Equal(tail, []byte(" bytes")) {
			t.Errorf("%s: %q, %v, want %v", test.name, tail[:k], err, test.want)
		}
		if _, err := r.Read(tail); test.want == nil && err != io.EOF {
			t.Errorf("%s: %v after the last byte", test.name, err)
		}
		r.Close()
	}
}
