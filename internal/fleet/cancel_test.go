package fleet_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// cancelled wants the run to end as cancelled, and nothing of it to be left in the
// queue or in the list of open runs.
func (f *following) cancelled() {
	f.w.t.Helper()
	r, err := f.end()
	if !errors.Is(err, coordinator.ErrCancelled) || r == nil || r.State != coordinator.StateCancelled {
		f.w.t.Fatalf("run %s: %v, record %+v, want it cancelled", f.run, err, r)
	}
	f.w.closed(f.run)
	for _, which := range []string{"", task.CopyTwin, task.CopyAudit} {
		until(f.w.t, "the queue is empty", func() bool {
			out, err := f.w.queue.OutstandingCopies(f.w.t.Context(), which)
			return err == nil && len(out) == 0
		})
	}
}

// closed waits until a run is off the list of open ones.
func (w *world) closed(run string) {
	w.t.Helper()
	until(w.t, "run "+run+" is closed", func() bool {
		open, err := coordinator.OpenRuns(w.t.Context(), w.store)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range open {
			if r == run {
				return false
			}
		}
		return true
	})
}

// barrier stops whoever comes to a step, until it is opened.
type barrier struct {
	come, open chan struct{}
	once       sync.Once
}

func newBarrier() *barrier {
	return &barrier{come: make(chan struct{}), open: make(chan struct{})}
}

func (b *barrier) wait() {
	b.once.Do(func() { close(b.come) })
	<-b.open
}

// TestCancelInEveryPhase cancels a run wherever it may be, with and without the hint
// that tells its coordinator at once.
func TestCancelInEveryPhase(t *testing.T) {
	t.Parallel()
	for _, hint := range []bool{false, true} {
		if hint && testing.Short() {
			continue
		}
		name := map[bool]string{true: "hint", false: "no hint"}[hint]
		cancel := func(w *world, run string) {
			t.Helper()
			var err error
			if hint {
				err = w.client.Cancel(t.Context(), run)
			} else {
				err = coordinator.Cancel(t.Context(), w.store, run)
			}
			if err != nil {
				t.Error(err)
			}
		}
		t.Run(name+"/submitted", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.worker("w1")
			f := w.submit()
			cancel(w, f.run)
			w.coordinator("c1")
			f.cancelled()
			if results := w.results(); results != 0 {
				t.Errorf("%d tasks were done for a run that was cancelled before", results)
			}
		})
		t.Run(name+"/planning", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := newBarrier()
			w.coordinator("c1", func(_ *coordinator.Service, m *member) {
				m.store.set(func(op, key string) error {
					if op == "get" && strings.HasPrefix(key, "sources/") {
						b.wait()
					}
					return nil
				})
			})
			f := w.submit()
			<-b.come
			cancel(w, f.run)
			close(b.open)
			f.cancelled()
		})
		t.Run(name+"/running", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate()
			w.coordinator("c1")
			w.worker("w1", g.hold)
			f := w.submit()
			g.held(t)
			cancel(w, f.run)
			f.cancelled()
			close(g.open)
		})
		t.Run(name+"/taken over", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate()
			c1 := w.coordinator("c1")
			w.worker("w1", g.hold)
			f := w.submit()
			g.held(t)
			c1.kill()
			// What the first one has offered, and the second one would not.
			u := w.plan.Units[0]
			twin := &task.Message{
				ID: u.ID, Run: f.run, Op: operation.EncodeOp, Class: operation.ClassF32, Memory: u.Layout.Memory + source.Memory(w.source),
				Location: w.source, Files: u.Files, Copy: task.CopyTwin, Avoid: "w1",
			}
			if err := w.queue.Publish(t.Context(), twin); err != nil {
				t.Fatal(err)
			}
			cancel(w, f.run)
			w.coordinator("c2")
			f.cancelled()
			close(g.open)
		})
		t.Run(name+"/paused", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.coordinator("c1", fullStore(func() bool { return true }))
			w.worker("w1", fullWorker(func() bool { return true }))
			f := w.submit()
			f.await(coordinator.UpdatePaused)
			cancel(w, f.run)
			f.cancelled()
		})
		t.Run(name+"/assembling", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.worker("w1")
			b := newBarrier()
			var f *following
			ready := make(chan struct{})
			w.coordinator("c1", func(_ *coordinator.Service, m *member) {
				m.store.set(func(op, key string) error {
					if op == "put" && strings.HasSuffix(key, "/result/"+coordinator.ReportFile) {
						b.wait()
					}
					return nil
				})
			})
			go func() { defer close(ready); <-b.come }()
			f = w.submit()
			<-ready
			cancel(w, f.run)
			if hint { // else whoever is first wins: both are right
				f.w.pending(f.run)
			}
			close(b.open)
			r, err := f.end()
			switch {
			case err == nil && r.State == coordinator.StateDone:
				f.well()
			case errors.Is(err, coordinator.ErrCancelled):
				f.cancelled()
			default:
				t.Errorf("ended with %v", err)
			}
		})
		t.Run(name+"/over", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.coordinator("c1")
			w.worker("w1")
			f := w.submit()
			f.well()
			if err := w.client.Cancel(t.Context(), f.run); !errors.Is(err, coordinator.ErrOver) {
				t.Errorf("%v, want ErrOver", err)
			}
			if _, err := w.store.Stat(t.Context(), coordinator.RunKey(f.run, "cancel")); !errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("a run that is over was marked as cancelled: %v", err)
			}
		})
	}
}

// TestCancelOneOfTwo submits the same job twice at once and cancels one: the other
// ends well, though the two have all tasks in common.
func TestCancelOneOfTwo(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} {
		t.Run(map[bool]string{true: "the first", false: "the second"}[first], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate()
			w.coordinator("c1")
			w.coordinator("c2")
			w.worker("w1", g.hold)
			w.worker("w2", g.hold)
			a, b := w.submit(), w.submit()
			a.await(coordinator.UpdateStarted)
			b.await(coordinator.UpdateStarted)
			g.held(t)
			g.held(t)
			if !first {
				a, b = b, a
			}
			if err := w.client.Cancel(t.Context(), a.run); err != nil {
				t.Fatal(err)
			}
			r, err := a.end()
			if !errors.Is(err, coordinator.ErrCancelled) {
				t.Errorf("%v, record %+v", err, r)
			}
			close(g.open)
			b.well()
		})
	}
}

// TestTwoAtOnce submits the same job twice: each task is done once.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate()
	w.coordinator("c1")
	w.coordinator("c2")
	w.worker("w1", g.hold)
	a, b := w.submit(), w.submit()
	a.await(coordinator.UpdateStarted)
	b.await(coordinator.UpdateStarted)
	close(g.open)
	a.well()
	b.well()
	if n := len(g.begun); n != len(w.plan.Units) {
		t.Errorf("%d operations for %d tasks", n, len(w.plan.Units))
	}
}
