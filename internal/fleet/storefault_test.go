package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/worker"
)

// results counts the results in the store.
func (w *world) results() (n int) {
	w.t.Helper()
	for _, u := range w.plan.Units {
		if _, err := w.store.Stat(w.t.Context(), task.ResultKey(u.ID)); err == nil {
			n++
		}
	}
	return n
}

// pending wants a run not to be over.
func (w *world) pending(run string) {
	w.t.Helper()
	if r, err := coordinator.ReadRecord(w.t.Context(), w.store, run); r != nil || err != nil {
		w.t.Errorf("run %s is over: %+v, %v", run, r, err)
	}
}

// full has every put fail that needs room for data, while it is so.
func full(m *member, so func() bool) {
	m.store.set(func(op, key string) error {
		if (op == "put" || op == "copy") && (strings.HasSuffix(key, ".safetensors") || strings.HasSuffix(key, "/probe")) && so() {
			return fmt.Errorf("put %s: %w", key, objstore.ErrFull)
		}
		return nil
	})
}

func fullStore(so func() bool) func(*coordinator.Service, *member) {
	return func(_ *coordinator.Service, m *member) { full(m, so) }
}

func fullWorker(so func() bool) func(*worker.Worker, *member) {
	return func(_ *worker.Worker, m *member) { full(m, so) }
}

// TestFullStorePausesTheRun has no room in the store for a while.
func TestFullStorePausesTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var room atomic.Bool
	so := func() bool { return !room.Load() }
	w.coordinator("c1", fullStore(so))
	w.worker("w1", fullWorker(so))
	f := w.submit(func(s *coordinator.Submission) { s.MaxWorkers = 1 }) // the other tasks are not offered in the pause
	if u := f.await(coordinator.UpdatePaused); !strings.Contains(u.Message, objstore.ErrFull.Error()) {
		t.Errorf("paused because of %q", u.Message)
	}
	until(t, "the snapshot says paused", func() bool {
		s, err := w.client.Snapshot(t.Context(), f.run)
		return err == nil && s != nil && s.Phase == coordinator.PhasePaused && s.Reason != ""
	})
	w.pending(f.run)
	room.Store(true)
	f.await(coordinator.UpdateResumed)
	f.well()
}

// TestStoreFailsAtTheEnds fails the first or the last of what a coordinator does with
// the store in a run: neither ends the run, or keeps its end from being seen.
func TestStoreFailsAtTheEnds(t *testing.T) {
	t.Parallel()
	names := []string{"state.json", "pin", "submit.json", "spec.json", "plan.json", "result.json", "UNFINISHED.json", "MANIFEST.json", "report.json"}
	if testing.Short() {
		names = names[:2]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var mu sync.Mutex
			asked := map[string]int{} // by kind of operation, each of which fails once
			w.coordinator("c1", func(_ *coordinator.Service, m *member) {
				m.store.set(func(op, key string) error {
					if !strings.HasSuffix(key, "/"+name) {
						return nil
					}
					mu.Lock()
					defer mu.Unlock()
					if asked[op]++; asked[op] == 1 {
						return fmt.Errorf("%s %s: %w", op, key, errInjected)
					}
					return nil
				})
			})
			w.worker("w1")
			f := w.submit()
			f.well()
			w.closed(f.run)
			mu.Lock()
			defer mu.Unlock()
			if len(asked) == 0 {
				t.Error("nothing failed")
			}
			for op, n := range asked {
				if n == 1 && (op == "put" || op == "get") {
					t.Errorf("%s was not tried again", op)
				}
			}
		})
	}
}

var errInjected = errors.New("the store does not answer")

// TestStoreFailsTheClient fails what a client reads when the run is over: it asks
// again.
func TestStoreFailsTheClient(t *testing.T) {
	t.Parallel()
	names := []string{coordinator.ReportFile, coordinator.ManifestFile, "state.json", "plan.json"}
	if testing.Short() {
		names = names[:1]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var failed atomic.Int64
			mine := &tap{Bucket: w.store}
			mine.set(func(op, key string) error {
				if op == "get" && strings.HasSuffix(key, "/"+name) && failed.Add(1) == 1 {
					return fmt.Errorf("reach %s: %w", key, errInjected)
				}
				return nil
			})
			w.client.Store = mine
			w.coordinator("c1")
			w.worker("w1")
			w.submit().well()
			if failed.Load() < 2 {
				t.Error("it was not tried again")
			}
		})
	}
}

// TestScratchFull has a worker whose own disk takes nothing: its cache is of no use,
// and an operation that wants to write there fails more often than a task may.
func TestScratchFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "cache")
	cache, err := source.OpenCache(dir, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // below which nothing can be made, by anybody
		t.Fatal(err)
	}
	var failed atomic.Int64
	first := w.plan.Units[0].ID
	w.coordinator("c1")
	w.worker("w1", func(x *worker.Worker, m *member) {
		x.Sources = &source.Opener{Store: m.store, NoHub: true, Cache: cache}
		x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
			if env.Message.ID == first && failed.Add(1) <= 5 {
				return nil, fmt.Errorf("write scratch: %w", syscall.ENOSPC)
			}
			return op.Run(ctx, spec, env)
		})
	})
	f := w.submit()
	f.well()
	if failed.Load() < 5 || cache.Stats().Failed == 0 {
		t.Errorf("%d attempts, cache %+v: nothing was full", failed.Load(), cache.Stats())
	}
}
