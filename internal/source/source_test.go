package source_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/objstore/hub/hubtest"
	"github.com/shardpress/shardpress/shard"
)

// Whoever plans and whoever works get the same bytes from every kind of location.
func TestLocations(t *testing.T) {
	t.Parallel()
	dir := writeModel(t)
	store := objstore.NewMem()
	copyTo(t, store, "models/tiny", dir)
	local, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	h := hubtest.New(t, hubFiles(t, dir))
	onHub := &source.Opener{Hub: hub.Options{Endpoint: h.Endpoint}}
	pinned := hub.Ref{ID: hubtest.ID, Revision: h.Commit("v1", hubFiles(t, dir))}.String()
	id, err := shard.Upload(t.Context(), local, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	one := "model-1.safetensors"
	for _, c := range []struct {
		name, location, of string
		opener             *source.Opener
		files              int
	}{
		{"any directory", source.File(dir), source.File(dir), &source.Opener{AnyDir: true}, 2},
		{"an allowed directory", source.File(dir), source.File(dir), &source.Opener{Dirs: []string{t.TempDir(), filepath.Dir(dir)}}, 2},
		{"the allowed directory itself", source.File(dir), source.File(dir), &source.Opener{Dirs: []string{dir}}, 2},
		{"one file", source.File(filepath.Join(dir, one)), source.File(dir), &source.Opener{Dirs: []string{dir}}, 1},
		{"the store", source.Store("models/tiny/"), "store:models/tiny", &source.Opener{Store: store}, 2},
		{"uploaded", source.Uploaded(id), "store:sources/" + id, &source.Opener{Store: store}, 2},
		{"a tag of the hub", "hf://" + hubtest.ID + "@v1", pinned, onHub, 2},
		{"a commit of the hub", pinned, pinned, onHub, 2},
		{"one file of the store", source.Store("models/tiny/" + one), "store:models/tiny", &source.Opener{Store: store}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ck, err := c.opener.Open(t.Context(), c.location)
			if err != nil {
				t.Fatal(err)
			}
			defer ck.Close()
			if len(ck.Manifest.Files) != c.files || source.Of(ck) != c.of {
				t.Errorf("%d files at %s", len(ck.Manifest.Files), source.Of(ck))
			}
			s, err := c.opener.Source(t.Context(), source.Of(ck), ck.Manifest.Files)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if c.files == len(local.Manifest.Files) {
				sameWeights(t, local.Manifest, s, local.Source())
			}
			sameWeights(t, ck.Manifest, s, ck.Source())
		})
	}
}

// No location leads to what the opener was not told of.
func TestLocationsThatAreRefused(t *testing.T) {
	t.Parallel()
	dir, outside := writeModel(t), writeModel(t)
	allowed := filepath.Dir(dir)
	link := filepath.Join(allowed, "link")
	inner := filepath.Join(allowed, "inner")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		link: outside, filepath.Join(inner, "model.safetensors"): filepath.Join(outside, "model-0.safetensors"),
		filepath.Join(dir, "hosts.json"): "/etc/hosts",
	} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	store := objstore.NewMem()
	copyTo(t, store, "models/tiny", dir)
	ck, err := shard.Open(t.Context(), outside, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	files := ck.Manifest.Files
	named := func(name string) []shard.File {
		f := files[0]
		f.Name = name
		return []shard.File{f}
	}
	shared := &source.Opener{Dirs: []string{allowed}, Store: objstore.Prefix(store, "models")}
	for _, c := range []struct {
		name, location string
		files          []shard.File
		opener         *source.Opener
		want           error
	}{
		{"no directories", source.File(dir), files, &source.Opener{}, task.ErrInvalid},
		{"no store", "store:models/tiny", files, &source.Opener{}, task.ErrInvalid},
		{"no store to upload to", source.Uploaded(strings.Repeat("0", 64)), files, &source.Opener{}, task.ErrInvalid},
		{"nothing was uploaded", source.Uploaded(strings.Repeat("0", 64)), files, shared, shard.ErrMissing},
		{"another directory", source.File(outside), files, shared, task.ErrInvalid},
		{"up and out", "file://" + dir + "/../../" + filepath.Base(outside), files, shared, nil},
		{"a link out", source.File(link), files, shared, task.ErrInvalid},
		{"a file that is a link out", source.File(inner), named("model.safetensors"), shared, task.ErrInvalid},
		{"a directory that is not there", source.File(filepath.Join(allowed, "nothing")), files, shared, fs.ErrNotExist},
		{"a file name with a path", source.File(dir), named("../" + filepath.Base(outside) + "/model-0.safetensors"), shared, shard.ErrMalformed},
		{"a file name with a path in the store", "store:tiny", named("../tiny/model-0.safetensors"), shared, shard.ErrMalformed},
		{"a host", "file://host" + dir, files, shared, task.ErrInvalid},
		{"a relative path", "file:x/y", files, shared, task.ErrInvalid},
		{"a key that leads up", "store:../models/tiny", files, shared, task.ErrInvalid},
		{"a key inside that leads up", "store:tiny/../../x", files, shared, task.ErrInvalid},
		{"an absolute key", "store:/models", files, shared, task.ErrInvalid},
		{"a hidden key", "store:.tmp", files, shared, task.ErrInvalid},
		{"the whole store", "store:", files, shared, task.ErrInvalid},
		{"a file of the whole store", "store:model.safetensors", files, shared, task.ErrInvalid},
		{"a hub that is not read", "hf://a/b@main", files, &source.Opener{NoHub: true}, task.ErrInvalid},
		{"a hub name that leads elsewhere", "hf://a/../b@main", files, shared, task.ErrInvalid},
		{"no scheme", dir, files, shared, task.ErrInvalid},
		{"another scheme", "https://example.com/model", files, shared, task.ErrInvalid},
		{"nothing", "", files, shared, task.ErrInvalid},
	} {
		s, err := c.opener.Source(t.Context(), c.location, c.files)
		if err == nil {
			s.Close()
		}
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if c.files[0].Name != files[0].Name || c.want == nil {
			continue
		}
		opened, err := c.opener.Open(t.Context(), c.location)
		if err == nil {
			opened.Close()
		}
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: open: error %v", c.name, err)
		}
	}
	if _, err := shared.Open(t.Context(), source.File(dir)); err == nil || !strings.Contains(err.Error(), "hosts.json") {
		t.Errorf("an extra file that is a link out: error %v", err)
	}
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{"file:///tmp", "store:a/b", "store:sources/" + strings.Repeat("a", 64), "hf://owner/name@main", "file://%zz", "hf://../..@x"} {
		f.Add(s)
	}
	o := &source.Opener{Store: objstore.NewMem(), Dirs: []string{f.TempDir()}}
	f.Fuzz(func(t *testing.T, location string) {
		if strings.HasPrefix(location, "hf:") {
			return // asks a host
		}
		if ck, err := o.Open(t.Context(), location); err == nil {
			t.Errorf("opened %q, which is nothing: %v", location, ck.Location())
		}
	})
}
