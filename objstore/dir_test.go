//go:build unix

package objstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
)

func openDir(t *testing.T) *objstore.Dir {
	t.Helper()
	d, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	t.Parallel()
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return openDir(t) })
}

func TestDirPrefix(t *testing.T) {
	t.Parallel()
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return objstore.Prefix(openDir(t), "p/q") })
}

// mustPut stores a text.
func mustPut(t *testing.T, b objstore.Bucket, key, text string) objstore.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, strings.NewReader(text), int64(len(text)), objstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// mustGet reads a text.
func mustGet(t *testing.T, b objstore.Bucket, key string) string {
	t.Helper()
	r, err := b.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tree lists the files and directories below root, without the marker and the
// folder of temporary files itself.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if rel != "." && rel != ".objstore" && rel != ".tmp" {
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func checkTree(t *testing.T, d *objstore.Dir, want ...string) {
	t.Helper()
	if got := tree(t, d.Root()); !slices.Equal(got, want) {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
}

func TestDirLayout(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	mustPut(t, d, "tasks/ab/result.json", "{}")
	checkTree(t, d, "tasks", "tasks/ab", "tasks/ab/result.json")
	fi, err := os.Stat(filepath.Join(d.Root(), "tasks/ab/result.json"))
	if err != nil {
		t.Fatal(err)
	}
	marker, err := os.Stat(filepath.Join(d.Root(), ".objstore"))
	if err != nil {
		t.Fatal(err)
	}
	// As the umask has it: other users' workers read it too.
	if err := os.WriteFile(filepath.Join(d.Root(), "plain"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	plain, err := os.Stat(filepath.Join(d.Root(), "plain"))
	if err != nil {
		t.Fatal(err)
	}
	if want := plain.Mode(); fi.Mode() != want || marker.Mode() != want {
		t.Errorf("modes %v and %v, want %v", fi.Mode(), marker.Mode(), want)
	}
	if err := d.Delete(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	// The folders go with the last object, but the root stays.
	if err := d.Delete(t.Context(), "tasks/ab/result.json"); err != nil {
		t.Fatal(err)
	}
	checkTree(t, d)
	// The store can be opened again, also by several at once.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := objstore.OpenDir(d.Root()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkTree(t, d)
}

// Processes that claim one empty directory at once, and fill it, all succeed.
func TestDirClaimRace(t *testing.T) {
	t.Parallel()
	for range 10 {
		root := filepath.Join(t.TempDir(), "deep/store")
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				d, err := objstore.CreateDir(root)
				if err != nil {
					t.Error(err)
					return
				}
				mustPut(t, d, fmt.Sprintf("k/%d", i), "x")
			})
		}
		wg.Wait()
	}
}

func TestOpenDirRefuses(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	file, foreign, other := filepath.Join(base, "file"), filepath.Join(base, "foreign"), filepath.Join(base, "other")
	for _, err := range []error{
		os.WriteFile(file, []byte("x"), 0o666),
		os.Mkdir(foreign, 0o777), os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("x"), 0o666),
		os.Mkdir(other, 0o777), os.WriteFile(filepath.Join(other, ".objstore"), []byte("objstore directory 9\n"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		root, text string
	}{
		{filepath.Join(base, "missing"), "create it"},
		{file, "not a directory"},
		{foreign, "thesis.txt"},
		{other, "another layout"},
	} {
		_, err := objstore.OpenDir(c.root)
		if !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.root) {
			t.Errorf("OpenDir(%q): %v, want ErrRoot with %q", c.root, err, c.text)
		}
	}
	if got := tree(t, foreign); !slices.Equal(got, []string{"thesis.txt"}) {
		t.Errorf("the foreign directory holds %q now", got)
	}
	if _, err := os.Stat(filepath.Join(base, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the missing directory was made: %v", err)
	}
}

func TestOpenDirReadOnly(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, ".cache/x"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", ".gitattributes", ".cache/x/y", "bad\nname"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, root)
	d, err := objstore.OpenDirReadOnly(root)
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range d.List(t.Context(), "") {
		if err != nil || info.Key != "model.safetensors" {
			t.Errorf("List: %+v, %v", info, err)
		}
	}
	if got := mustGet(t, d, "model.safetensors"); got != "model.safetensors" {
		t.Errorf("read %q", got)
	}
	_, perr := d.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{})
	_, cerr := d.Copy(t.Context(), "a", d, "model.safetensors")
	derr := d.Delete(t.Context(), "model.safetensors")
	_, serr := d.Sweep(t.Context(), 0)
	for op, err := range map[string]error{"Put": perr, "Copy": cerr, "Delete": derr, "Sweep": serr} {
		if !errors.Is(err, objstore.ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", op, err)
		}
	}
	if got := tree(t, root); !slices.Equal(got, before) {
		t.Errorf("the directory holds %q now", got)
	}
}

// A store whose disk is gone must not look like one that lost its objects, nor
// be made anew in its place.
func TestDirRootGone(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "store")
	d, err := objstore.CreateDir(root)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, d, "a/b", "x")
	for _, empty := range []bool{false, true} { // no directory, or the empty one below the mount
		if empty {
			err = os.Mkdir(root, 0o777)
		} else {
			err = os.Rename(root, root+".away")
		}
		if err != nil {
			t.Fatal(err)
		}
		_, gerr := d.Get(t.Context(), "a/b", 0, -1)
		_, serr := d.Stat(t.Context(), "a/b")
		_, perr := d.Put(t.Context(), "a/b", strings.NewReader("x"), 1, objstore.PutOptions{})
		_, swerr := d.Sweep(t.Context(), 0)
		derr := d.Delete(t.Context(), "a/b")
		var lerr error
		for _, lerr = range d.List(t.Context(), "") {
		}
		for op, err := range map[string]error{"Get": gerr, "Stat": serr, "Put": perr, "Sweep": swerr, "Delete": derr, "List": lerr} {
			if !errors.Is(err, objstore.ErrRoot) || errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("%s (empty directory in its place: %v): %v, want ErrRoot", op, empty, err)
			}
		}
	}
	if got := tree(t, root); len(got) > 0 {
		t.Errorf("a store was begun in the empty directory: %q", got)
	}
}

// Folders that a crash left behind do not stand in the way of an object.
func TestDirLeftovers(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	for _, dir := range []string{"a/b/c", "a/d", "x/y"} {
		if err := os.MkdirAll(filepath.Join(d.Root(), dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, d, "a", "now an object")
	if _, err := d.Put(t.Context(), "x", strings.NewReader("too"), 3, objstore.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	checkTree(t, d, "a", "x")
	// Somebody cleaned up thoroughly.
	if err := os.Remove(filepath.Join(d.Root(), ".tmp")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, d, "a", "again")
	if err := os.Remove(filepath.Join(d.Root(), ".tmp")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Copy(t.Context(), "x", d, "a"); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, d, "x"); got != "again" {
		t.Errorf("read %q", got)
	}
}

// Only regular files are objects: what else lies in the tree is neither listed,
// nor followed, nor waited for.
func TestDirOtherFiles(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	secret := filepath.Join(t.TempDir(), "secret")
	for _, err := range []error{
		os.WriteFile(secret, []byte("x"), 0o666),
		os.Symlink(secret, filepath.Join(d.Root(), "link")),
		syscall.Mkfifo(filepath.Join(d.Root(), "pipe"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"link", "pipe"} {
		_, gerr := d.Get(t.Context(), key, 0, -1)
		_, serr := d.Stat(t.Context(), key)
		_, cerr := d.Copy(t.Context(), "copy", d, key)
		for op, err := range map[string]error{"Get": gerr, "Stat": serr, "Copy": cerr} {
			if !errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("%s(%q): %v, want ErrNotExist", op, key, err)
			}
		}
	}
	for info, err := range d.List(t.Context(), "") {
		t.Errorf("List gives %+v, %v", info, err)
	}
	mustPut(t, d, "link", "replaced, not followed")
	if text, err := os.ReadFile(secret); err != nil || string(text) != "x" {
		t.Errorf("the file behind the link holds %q, %v", text, err)
	}
	checkTree(t, d, "link", "pipe")
}

// Handles of their own stand for processes of their own.
func TestDirHandlesRace(t *testing.T) {
	t.Parallel()
	root := openDir(t).Root()
	const racers = 32
	errs := make([]error, racers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			d, err := objstore.OpenDir(root)
			<-start
			if err == nil {
				_, err = d.Put(t.Context(), "a/b/c", bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 1000)), 1000, objstore.PutOptions{IfAbsent: true})
			}
			errs[i] = err
		})
	}
	close(start)
	wg.Wait()
	winner := slices.Index(errs, nil)
	for i, err := range errs {
		if (err != nil || i != winner) && !errors.Is(err, objstore.ErrExist) {
			t.Errorf("racer %d: %v (winner %d)", i, err, winner)
		}
	}
	d, err := objstore.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, d, "a/b/c"); winner < 0 || got != strings.Repeat(string([]byte{byte(winner)}), 1000) {
		t.Errorf("not the bytes of the winner %d", winner)
	}
	checkTree(t, d, "a", "a/b", "a/b/c")
}

// What is being written is nowhere to be seen.
func TestDirTemporaryHidden(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	_, err := d.Put(t.Context(), "a/b", objstore.FromWriter(func(w io.Writer) error {
		w.Write(make([]byte, 1<<20))
		if n := len(tree(t, d.Root())); n != 1 {
			t.Errorf("%d files in the middle of a Put, want 1", n)
		}
		for info, err := range d.List(t.Context(), "") {
			t.Errorf("List gives %+v, %v", info, err)
		}
		return nil
	}), -1, objstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, d, "a", "a/b")
}

// The loser of IfAbsent does not read its source, if it can know before.
func TestDirIfAbsentEarly(t *testing.T) {
	t.Parallel()
	d := openDir(t)
	mustPut(t, d, "a", "x")
	_, err := d.Put(t.Context(), "a", objstore.FromWriter(func(io.Writer) error {
		t.Error("the source was asked")
		return nil
	}), -1, objstore.PutOptions{IfAbsent: true})
	if !errors.Is(err, objstore.ErrExist) {
		t.Error(err)
	}
}

func BenchmarkDirPut(b *testing.B) {
	d, err := objstore.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{2 << 10, 64 << 20} {
		data := make([]byte, size)
		for _, c := range []struct {
			name string
			r    func() io.Reader
		}{
			{"pushed", func() io.Reader { return bytes.NewReader(data) }},
			{"read", func() io.Reader { return struct{ io.Reader }{bytes.NewReader(data)} }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := d.Put(b.Context(), "a", c.r(), -1, objstore.PutOptions{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
