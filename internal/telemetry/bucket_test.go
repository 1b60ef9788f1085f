package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
)

// spy is a bucket that can be told apart.
type spy struct{ objstore.Bucket }

// TestBucketIsABucket holds the decorator to the contract of buckets.
func TestBucketIsABucket(t *testing.T) {
	t.Parallel()
	tel := scraped(t)
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return tel.Bucket(objstore.NewMem()) })
}

// TestBucketCopiesDirectly has the backend of a measured bucket found.
func TestBucketCopiesDirectly(t *testing.T) {
	t.Parallel()
	tel := scraped(t)
	m := objstore.NewMem()
	src, dst := objstore.Prefix(tel.Bucket(m), "a"), tel.Bucket(objstore.Prefix(m, "b"))
	if _, err := src.Put(t.Context(), "k", bytes.NewReader([]byte("x")), 1, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	c, ok := dst.(objstore.Copier)
	if !ok {
		t.Fatal("not a copier any more")
	}
	if _, err := c.Copy(t.Context(), "k", src, "k"); err != nil {
		t.Errorf("copy: %v", err)
	}
	if _, err := tel.Bucket(spy{m}).(objstore.Copier).Copy(t.Context(), "k", src, "k"); !errors.Is(err, objstore.ErrCannotCopy) {
		t.Errorf("copy to a bucket that cannot: %v", err)
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"ok": nil, "missing": objstore.ErrNotExist, "condition": objstore.ErrExist, "full": objstore.ErrFull,
		"stopped": context.Canceled, "error": io.ErrUnexpectedEOF,
	} {
		if got := outcomeOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}
