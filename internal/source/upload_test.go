package source_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// A worker that keeps the document of an uploaded checkpoint gets along with one that was mended.
func TestUploadedAgain(t *testing.T) {
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
	worker := &source.Opener{Store: store}
	at := source.Uploaded(id)
	read := func() error {
		s, err := worker.Source(t.Context(), at, local.Manifest.Files)
		if err != nil {
			return err
		}
		defer s.Close()
		for _, x := range local.Manifest.Tensors {
			if err := s.ReadAt(t.Context(), x.File, make([]byte, x.Length), x.Offset); err != nil {
				return err
			}
		}
		return nil
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	for info, err := range store.List(t.Context(), shard.UploadedPrefix(id)) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(info.Key, ".bin") {
			if _, err := store.Put(t.Context(), info.Key, strings.NewReader("x"), 1, objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := read(); !errors.Is(err, shard.ErrDamaged) || !strings.Contains(err.Error(), "upload") {
		t.Errorf("damaged: error %v", err)
	}
	if _, err := shard.Upload(t.Context(), local, store, nil); err != nil {
		t.Fatal(err)
	}
	if err := read(); err != nil {
		t.Errorf("after another upload: %v", err)
	}
}
