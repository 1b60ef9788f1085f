package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// fetches counts what is read of a store.
type fetches struct {
	objstore.Bucket

	mu sync.Mutex
	n  map[string]int
}

func (f *fetches) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	f.mu.Lock()
	f.n[key]++
	f.mu.Unlock()
	return f.Bucket.Get(ctx, key, off, n)
}

func (f *fetches) times(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n[key]
}

func put(t *testing.T, b objstore.Bucket, key string, data []byte) {
	t.Helper()
	if _, err := b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// manifest puts the table of contents of a result with one file.
func manifest(t *testing.T, b objstore.Bucket, out, name string, data []byte) {
	t.Helper()
	text, err := json.Marshal(coordinator.Manifest{Version: 1, Files: []coordinator.ManifestEntry{{Name: name, Size: int64(len(data)), SHA256: hash(data)}}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, out+"/"+coordinator.ManifestFile, text)
}

// TestMirrorHoldsToTheManifest fetches a file that is or becomes another than the
// result's manifest says, or that is there already.
func TestMirrorHoldsToTheManifest(t *testing.T) {
	t.Parallel()
	const out, name = "results/a", "model.safetensors"
	good, bad := []byte("what was made"), []byte("what was mode")
	var id task.ID
	for what, c := range map[string]struct {
		early, late []byte // in the store, while the run goes on and when it is over
		have        []byte // in the other place before
		fetches     int
		damaged     bool
	}{
		"good":                   {good, good, nil, 1, false},
		"made again meanwhile":   {bad, good, nil, 2, false},
		"damaged":                {good, bad, nil, 1, false}, // after it was fetched
		"damaged early and late": {bad, bad, nil, 1 + maxFetches, true},
		"there already":          {good, good, good, 0, false},
		"another there":          {good, good, bad, 1, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			store, to := &fetches{Bucket: objstore.NewMem(), n: map[string]int{}}, objstore.NewMem()
			r := &task.Result{ID: id, Attempt: "1", Outputs: []task.Written{{
				Name: operation.ShardOutput, Key: task.OutputKey(id, "1", operation.ShardOutput), Size: int64(len(good)), SHA256: hash(good),
			}}}
			text, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			put(t, store, task.ResultKey(id), text)
			put(t, store, out+"/"+name, c.early)
			if c.have != nil {
				put(t, to, name, c.have)
			}
			client := &Client{Store: store, Log: slog.New(slog.DiscardHandler)}
			m := client.Mirror(t.Context(), &coordinator.Plan{Units: []coordinator.Unit{{ID: id, File: name}}}, out, to)
			m.Want(name)
			m.Stop() // waits for what is wanted
			if _, err := to.Stat(t.Context(), name); err != nil {
				t.Fatalf("not fetched while the run goes on: %v", err)
			}
			m.queue = make(chan string) // which Finish closes
			put(t, store, out+"/"+name, c.late)
			manifest(t, store, out, name, good)
			err = m.Finish(t.Context())
			if c.damaged {
				if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), name) {
					t.Errorf("%v, want the damage", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if n := store.times(out + "/" + name); n != c.fetches {
				t.Errorf("fetched %d times, want %d", n, c.fetches)
			}
			if _, err := to.Stat(t.Context(), coordinator.ManifestFile); (err == nil) == c.damaged {
				t.Errorf("the manifest of a result that is damaged %v: %v", c.damaged, err)
			}
			if sum, err := objstore.Digest(t.Context(), to, name); !c.damaged && (err != nil || sum != hash(good)) {
				t.Errorf("it is another file, %v", err)
			}
		})
	}
}
