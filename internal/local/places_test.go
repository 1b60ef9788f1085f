package local_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/local"
)

// TestPlacesInEachOthersWay nests source, output and store, also by way of
// symbolic links and of directories that are not there yet.
func TestPlacesInEachOthersWay(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	root := t.TempDir()
	link := filepath.Join(root, "link")
	if err := os.Symlink(model, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ out, store string }{
		"out is the model":               {model, ""},
		"out in the model":               {filepath.Join(model, "new", "out"), ""},
		"out in the model, by a link":    {filepath.Join(link, "new"), ""},
		"model in out":                   {filepath.Dir(model), filepath.Join(root, "store")},
		"store in the model":             {filepath.Join(root, "out"), filepath.Join(model, "store")},
		"store in the model, by a link":  {filepath.Join(root, "out"), filepath.Join(link, "a", "b")},
		"store in out":                   {filepath.Join(root, "out"), filepath.Join(root, "out", "store")},
		"out in the store":               {filepath.Join(root, "store", "out"), filepath.Join(root, "store")},
		"out and store are one":          {filepath.Join(root, "out"), filepath.Join(root, ".", "out")},
		"model in the store, by a link ": {filepath.Join(root, "out"), filepath.Dir(model)},
	} {
		j := mustJob(t, model, c.out)
		j.Store = c.store
		if _, err := local.Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), "inside the other") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, dir := range []string{root, model} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{root: 1, model: 3}[dir]; len(entries) != want {
			t.Errorf("refused runs left something behind: %v", entries)
		}
	}
}

// TestDefaultStore is beside the output, wherever that is said to be.
func TestDefaultStore(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for out, want := range map[string]string{
		"/a/b": "/a/.shardpress", "/a/b/": "/a/.shardpress", "b": filepath.Join(here, ".shardpress"), ".": filepath.Join(filepath.Dir(here), ".shardpress"),
	} {
		if got := local.DefaultStore(out); got != want {
			t.Errorf("store of %s is %s, want %s", out, got, want)
		}
	}
}

// TestReplacementSparesOtherFiles: what somebody put into a finished result is not
// ours to remove.
func TestReplacementSparesOtherFiles(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	out := filepath.Join(t.TempDir(), "out")
	if err := finish(t.Context(), model, out, calm(t, model)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := snapshot(out)
	if err != nil {
		t.Fatal(err)
	}
	j := mustJob(t, model, out)
	j.Overwrite = true
	if _, err := local.Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), "notes.txt") || !strings.Contains(err.Error(), out) {
		t.Errorf("error %v, want one that names notes.txt", err)
	}
	if err := same(out, before); err != nil {
		t.Errorf("a refused replacement has changed the directory: %v", err)
	}
}

// TestCollectAndRunAgain empties a store: finished results stay, and new ones are
// made again.
func TestCollectAndRunAgain(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	want := calm(t, model)
	dir := t.TempDir()
	first := filepath.Join(dir, "first")
	if err := finish(t.Context(), model, first, want); err != nil {
		t.Fatal(err)
	}
	store := local.DefaultStore(first)
	got, err := local.Collect(t.Context(), store, 0, false)
	if err != nil || got.Tasks != 3 || got.Runs != 1 || got.Kept != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(store, "[^.]*")); err != nil || len(left) != 0 {
		t.Errorf("left in the store: %q, %v", left, err)
	}
	if err := same(first, want); err != nil {
		t.Errorf("a finished result lost something: %v", err)
	}
	if _, err := local.Run(t.Context(), mustJob(t, model, first)); err == nil || !strings.Contains(err.Error(), "no longer in the store") {
		t.Errorf("the same command after a collection: %v", err)
	}
	if err := finish(t.Context(), model, filepath.Join(dir, "second"), want); err != nil {
		t.Error(err)
	}
}
