package source_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
	"github.com/shardpress/shardpress/shard"
)

// With a real S3 server for a store: in place and uploaded, overwritten, and while the server comes and goes.
func TestSourcesInS3(t *testing.T) {
	t.Parallel()
	dir := writeModel(t)
	server := s3test.Start(t)
	options := server.Options()
	options.Retries = 2 // it will be gone for good at the end
	store, err := s3.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	local, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	copyTo(t, store, "in/place", dir)
	id, err := shard.Upload(t.Context(), local, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &source.Opener{AnyDir: true, Store: store}
	want, err := work(t.Context(), o, source.File(dir), planOf(t, local))
	if err != nil {
		t.Fatal(err)
	}
	for _, location := range []string{source.Uploaded(id), source.Store("in/place")} {
		ck, err := o.Open(t.Context(), location)
		if err != nil {
			t.Fatal(err)
		}
		defer ck.Close()
		plan := planOf(t, ck)
		got, err := work(t.Context(), o, location, plan)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: results differ: %v, error %v", location, !slices.Equal(got, want), err)
		}
		server.Restart()
		if got, err = work(t.Context(), o, location, plan); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: after a restart: results differ: %v, error %v", location, !slices.Equal(got, want), err)
		}
	}
	ck, err := o.Open(t.Context(), "store:in/place")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	plan := planOf(t, ck)
	if err := store.Delete(t.Context(), "in/place/model-1.safetensors"); err != nil {
		t.Fatal(err)
	}
	if _, err := work(t.Context(), o, "store:in/place", plan); !errors.Is(err, shard.ErrSourceChanged) {
		t.Errorf("a file that is gone: %v", err)
	}
	if _, err := objstore.Copy(t.Context(), store, "in/place/model-1.safetensors", store, "in/place/model-0.safetensors"); err != nil {
		t.Fatal(err)
	}
	if _, err := work(t.Context(), o, "store:in/place", plan); !errors.Is(err, shard.ErrSourceChanged) {
		t.Errorf("a file that is another: %v", err)
	}
	server.Kill()
	_, err = work(t.Context(), o, source.Uploaded(id), planOf(t, local))
	if !errors.Is(err, shard.ErrUnreachable) || operation.Classify(err) != task.Storage {
		t.Errorf("a server that is gone: %v", err)
	}
}
