package local_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/objstore/hub/hubtest"
)

// A model that is read from the hub gives the files that it gives from a directory.
func TestModelOnTheHub(t *testing.T) {
	t.Parallel()
	model, dir := tinyModel(t, 2), t.TempDir()
	files := map[string][]byte{}
	entries, err := os.ReadDir(model)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(model, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	h := hubtest.New(t, files)
	results := map[string]map[string]string{}
	for name, at := range map[string]string{"here": model, "hub": hub.Scheme + hubtest.ID + "@main"} {
		out := filepath.Join(dir, name)
		j, err := newJob(at, out)
		if err != nil {
			t.Fatal(err)
		}
		j.Store, j.Hub = filepath.Join(dir, name+"-store"), hub.Options{Endpoint: h.Endpoint}
		if _, err := local.Run(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		results[name] = map[string]string{}
		written, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range written {
			b, err := os.ReadFile(filepath.Join(out, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			results[name][e.Name()] = string(b)
		}
	}
	if !maps.Equal(results["here"], results["hub"]) {
		t.Errorf("results differ: %v and %v", slices.Sorted(maps.Keys(results["here"])), slices.Sorted(maps.Keys(results["hub"])))
	}
	if len(results["here"]) < 5 {
		t.Errorf("files %v", slices.Sorted(maps.Keys(results["here"])))
	}
}
