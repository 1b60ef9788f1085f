package objstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/shardpress/shardpress/objstore"
)

// breaking is a bucket whose objects cannot be read to the end.
type breaking struct{ objstore.Bucket }

var errBroken = errors.New("the connection broke")

func (b breaking) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	r, err := b.Bucket.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, 3), iotest.ErrReader(errBroken)), r}, nil
}

func TestDigest(t *testing.T) {
	t.Parallel()
	b := objstore.NewMem()
	for _, text := range []string{"", "abc", strings.Repeat("0123456789", 1<<18)} {
		if _, err := b.Put(t.Context(), "k", strings.NewReader(text), -1, objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256([]byte(text))
		if got, err := objstore.Digest(t.Context(), b, "k"); err != nil || got != hex.EncodeToString(want[:]) {
			t.Errorf("%d bytes: %q, %v", len(text), got, err)
		}
	}
	if got, err := objstore.Digest(t.Context(), b, "none"); got != "" || !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("of nothing: %q, %v", got, err)
	}
	if got, err := objstore.Digest(t.Context(), breaking{b}, "k"); got != "" || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "read k") {
		t.Errorf("cut off: %q, %v", got, err)
	}
}
