//go:build unix

package objstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// links is the number of names of the file of a key.
func links(t *testing.T, d *objstore.Dir, key string) int {
	t.Helper()
	fi, err := os.Stat(filepath.Join(d.Root(), key))
	if err != nil {
		t.Fatal(err)
	}
	return int(fi.Sys().(*syscall.Stat_t).Nlink)
}

func TestDirCopyLinks(t *testing.T) {
	t.Parallel()
	from, to := openDir(t), openDir(t)
	put := mustPut(t, from, "p/a", "bytes")
	mustPut(t, to, "out/a", "what was there")
	info, err := objstore.Prefix(to, "out").(objstore.Copier).Copy(t.Context(), "a", objstore.Prefix(from, "p"), "a")
	if err != nil {
		t.Fatal(err)
	}
	if info.Key != "a" || info.Size != 5 || info.Version != put.Version || info.SHA256 != [32]byte{} {
		t.Errorf("Copy told %+v, Put %+v", info, put)
	}
	if n := links(t, to, "out/a"); n != 2 {
		t.Errorf("%d links, want 2", n)
	}
	// A link changes the change time of the file, and must not change its version.
	if stat, err := from.Stat(t.Context(), "p/a"); err != nil || stat.Version != put.Version || !stat.ModTime.Equal(put.ModTime) {
		t.Errorf("Stat of the source tells %+v, %v; Put told %+v", stat, err, put)
	}
	// The same again, onto a name of the same file: rename(2) does nothing then.
	for range 2 {
		if _, err := to.Copy(t.Context(), "out/a", from, "p/a"); err != nil {
			t.Fatal(err)
		}
	}
	if n := links(t, to, "out/a"); n != 2 {
		t.Errorf("%d links after copying again, want 2", n)
	}
	checkTree(t, to, "out", "out/a")
	// Neither side sees what happens to the other.
	mustPut(t, from, "p/a", "other bytes")
	if got := mustGet(t, to, "out/a"); got != "bytes" {
		t.Errorf("the copy holds %q after its source was overwritten", got)
	}
	if n := links(t, to, "out/a"); n != 1 {
		t.Errorf("%d links, want 1", n)
	}
	if _, err := from.Copy(t.Context(), "p/b", to, "out/a"); err != nil {
		t.Fatal(err)
	}
	if err := to.Delete(t.Context(), "out/a"); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, from, "p/b"); got != "bytes" {
		t.Errorf("the copy holds %q after its source was deleted", got)
	}
	checkTree(t, to)
}

func TestDirCopyRefuses(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	m := objstore.NewMem()
	mustPut(t, m, "a", "bytes")
	mustPut(t, d, "d/a", "bytes")
	if _, err := d.Copy(t.Context(), "b", m, "a"); !errors.Is(err, objstore.ErrCannotCopy) {
		t.Errorf("from memory: %v, want ErrCannotCopy", err)
	}
	if _, err := m.Copy(t.Context(), "b", d, "d/a"); !errors.Is(err, objstore.ErrCannotCopy) {
		t.Errorf("into memory: %v, want ErrCannotCopy", err)
	}
	for _, key := range []string{"absent", "d", "d/a/b"} {
		if _, err := d.Copy(t.Context(), "b", d, key); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("Copy of %q: %v, want ErrNotExist", key, err)
		}
	}
	if _, err := d.Copy(t.Context(), "d", d, "d/a"); !errors.Is(err, objstore.ErrKey) {
		t.Errorf("Copy over a folder: %v, want ErrKey", err)
	}
	checkTree(t, d, "d", "d/a")
}

// A link is as old as its file, so that every sweep takes it for stale; copies
// must survive that.
func TestDirCopyWhileSweeping(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	mustPut(t, d, "a", "bytes")
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				if _, err := d.Sweep(t.Context(), 0); err != nil {
					t.Errorf("Sweep: %v", err)
					return
				}
			}
		})
	}
	for range 50 {
		if _, err := d.Copy(t.Context(), "x/b", d, "a"); err != nil {
			t.Errorf("Copy: %v", err)
		}
		if err := d.Delete(t.Context(), "x/b"); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	done.Store(true)
	wg.Wait()
	checkTree(t, d, "a")
}
