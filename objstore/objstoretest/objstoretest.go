// Package objstoretest is the contract of objstore.Bucket as a test suite. Every
// backend runs it, those outside this module too:
//
//	func TestBucket(t *testing.T) {
//		objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return mybucket.New(t.TempDir()) })
//	}
//
// The suite stores at most a few megabytes at a time, and never sleeps.
package objstoretest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// Run checks that the buckets of open keep the contract. Each call of open gives
// an empty bucket, which nobody else uses, and cleans up with t.Cleanup. The
// tests run in parallel.
func Run(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, b objstore.Bucket)
	}{
		{"RoundTrip", testRoundTrip},
		{"Range", testRange},
		{"Missing", testMissing},
		{"OpenReader", testOpenReader},
		{"GetIf", testGetIf},
		{"IfAbsent", testIfAbsent},
		{"IfAbsentRace", testIfAbsentRace},
		{"OverwriteRace", testOverwriteRace},
		{"FolderRace", testFolderRace},
		{"Version", testVersion},
		{"Size", testSize},
		{"FailingReader", testFailingReader},
		{"Cancel", testCancel},
		{"CancelledBefore", testCancelledBefore},
		{"FromWriter", testFromWriter},
		{"FromWriterFails", testFromWriterFails},
		{"Keys", testKeys},
		{"KeyConflict", testKeyConflict},
		{"List", testList},
		{"ListRandom", testListRandom},
		{"ListStops", testListStops},
		{"Delete", testDelete},
		{"Copy", testCopy},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

// noise gives n bytes that depend on seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	p := make([]byte, n)
	rand.NewChaCha8(key).Read(p)
	return p
}

// plain hides every method of a reader but Read.
type plain struct{ io.Reader }

// put stores data with its size known and fails the test if it cannot, or if what
// Put tells is wrong.
func put(t *testing.T, b objstore.Bucket, key string, data []byte) objstore.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, plain{bytes.NewReader(data)}, int64(len(data)), objstore.PutOptions{})
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	checkInfo(t, info, key, data)
	return info
}

// checkInfo compares what a Put returned with what it stored.
func checkInfo(t *testing.T, info objstore.Info, key string, data []byte) {
	t.Helper()
	if info.Key != key || info.Size != int64(len(data)) || info.SHA256 != sha256.Sum256(data) || info.Version == "" || info.ModTime.IsZero() {
		t.Errorf("Put(%q) of %d bytes told %+v", key, len(data), info)
	}
}

// read gives n bytes of an object from off.
func read(ctx context.Context, b objstore.Bucket, key string, off, n int64) ([]byte, error) {
	r, err := b.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// want fails the test if the object is not data.
func want(t *testing.T, b objstore.Bucket, key string, data []byte) {
	t.Helper()
	got, err := read(t.Context(), b, key, 0, -1)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("Get(%q): other bytes than stored (%d, stored %d)", key, len(got), len(data))
	}
	info, err := b.Stat(t.Context(), key)
	if err != nil || info.Size != int64(len(data)) {
		t.Fatalf("Stat(%q): %+v, %v; want size %d", key, info, err, len(data))
	}
}

// absent fails the test if there is anything under key.
func absent(t *testing.T, b objstore.Bucket, key string) {
	t.Helper()
	if _, err := b.Stat(t.Context(), key); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("Stat(%q): %v, want ErrNotExist", key, err)
	}
	if _, err := read(t.Context(), b, key, 0, -1); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("Get(%q): %v, want ErrNotExist", key, err)
	}
	for _, k := range keys(t, b, "") {
		if k == key {
			t.Errorf("List gives %q, which does not exist", key)
		}
	}
}

// keys lists the keys with a prefix.
func keys(t *testing.T, b objstore.Bucket, prefix string) []string {
	t.Helper()
	var all []string
	for info, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("List(%q): %v", prefix, err)
		}
		all = append(all, info.Key)
	}
	return all
}
