package source_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

func openCache(t *testing.T, dir string, limit int64) *source.Cache {
	t.Helper()
	c, err := source.OpenCache(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// block is the i-th block of a test and its name.
func block(i int) (name string, p []byte) {
	sum := sha256.Sum256(fmt.Append(nil, i))
	return hex.EncodeToString(sum[:]), bytes.Repeat([]byte{byte(i)}, 1000-sha256.Size)
}

// on gives the bytes of the files in a directory.
func on(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		n += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCache(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	c := openCache(t, dir, 10_000)
	has := func(i int) bool {
		t.Helper()
		name, want := block(i)
		p := make([]byte, len(want))
		if !c.Load(name, p) {
			return false
		}
		if !bytes.Equal(p, want) {
			t.Errorf("block %d is another", i)
		}
		return true
	}
	if _, err := source.OpenCache(dir, 1); err == nil {
		t.Error("two caches in one directory")
	}
	for i := range 10 {
		c.Store(block(i))
	}
	if !has(0) {
		t.Error("block 0 is not there")
	}
	c.Store(block(10))
	if has(1) || !has(0) || !has(2) || !has(10) {
		t.Error("another block than the one unused for longest is gone")
	}
	if s := c.Stats(); s.Bytes != 10_000 || on(t, dir) != 10_000 || s.Hits != 4 || s.Misses != 1 || s.Failed != 0 {
		t.Errorf("%+v, %d bytes on disk", s, on(t, dir))
	}
	name, _ := block(2)
	if c.Load(name, make([]byte, 5)) {
		t.Error("a block of another length is given")
	}
	c.Store("../x", []byte("y"))
	c.Store(name, make([]byte, 20_000))
	// Another process goes on, with less room, and not with what is damaged or unfinished.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	name, _ = block(10)
	path := filepath.Join(dir, name[:2], name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[5] ^= 1
	write(t, filepath.Dir(path), name, b)
	write(t, filepath.Dir(path), ".new-x", b)
	c = openCache(t, dir, 5_000)
	if on(t, dir) != 5_000 || c.Stats().Bytes != 5_000 {
		t.Errorf("%d bytes on disk, %+v", on(t, dir), c.Stats())
	}
	if has(10) || c.Stats().Bytes != 4_000 {
		t.Error("a damaged block is given or kept")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "precious.txt", []byte("not ours"))
	if _, err := source.OpenCache(dir, 5_000); err == nil {
		t.Error("a directory with other files is taken for a cache")
	}
}

// A cache whose directory is lost does no harm, and says so.
func TestCacheThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	c := openCache(t, dir, 10_000)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Dir(dir), "cache", nil) // a file in its place
	c.Store(block(1))
	name, p := block(1)
	if s := c.Stats(); c.Load(name, p) || s.Failed != 1 || s.LastFailure == nil || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCacheByMany(t *testing.T) {
	t.Parallel()
	c := openCache(t, t.TempDir(), 5_000)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				name, want := block((i*7 + g) % 12)
				p := make([]byte, len(want))
				if !c.Load(name, p) {
					c.Store(name, want)
				} else if !bytes.Equal(p, want) {
					t.Error("other bytes")
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Bytes > 5_000 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// A worker with a cache reads weights once, whichever way they come.
func TestOpenerUsesTheCache(t *testing.T) {
	t.Parallel()
	local, err := shard.Open(t.Context(), writeModel(t), shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	store := objstore.NewMem()
	id, err := shard.Upload(t.Context(), local, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := openCache(t, t.TempDir(), 1<<30)
	o := &source.Opener{Store: store, Cache: c}
	for range 2 {
		s, err := o.Source(t.Context(), source.Uploaded(id), local.Manifest.Files)
		if err != nil {
			t.Fatal(err)
		}
		sameWeights(t, local.Manifest, s, local.Source())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if s := c.Stats(); s.Hits == 0 || s.Hits != s.Misses {
		t.Errorf("%+v", s)
	}
}
