package fleet_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/worker"
)

// TestBrokerRestarted stops the broker in mid-run, and starts it again with what it
// had or with nothing.
func TestBrokerRestarted(t *testing.T) {
	t.Parallel()
	for _, wiped := range []bool{false, true} {
		t.Run(map[bool]string{false: "restarted", true: "wiped"}[wiped], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate()
			w.coordinator("c1")
			w.coordinator("c2")
			w.worker("w1", g.hold)
			f := w.submit()
			g.held(t)
			w.broker.Close()
			if wiped {
				if err := os.RemoveAll(w.dir); err != nil {
					t.Fatal(err)
				}
			}
			w.startBroker(w.addr)
			close(g.open)
			f.well()
		})
	}
}

// TestBrokerAwayWhileTasksEnd has a task committed that can be told to nobody.
func TestBrokerAwayWhileTasksEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate()
	w.coordinator("c1")
	w.worker("w1", g.hold)
	f := w.submit()
	g.held(t)
	w.broker.Close()
	close(g.open)
	until(t, "a task is committed without the broker", func() bool { return w.results() > 0 })
	w.startBroker(w.addr)
	f.well()
}

// TestWorkerCutOff cuts a worker off from the broker for longer than the time in
// which a dead worker is noticed. It comes back with a result that another worker
// has made meanwhile.
func TestWorkerCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate()
	p := faultproxy.NewTCP(t, w.addr)
	w.coordinator("c1")
	w.workerAt("w1", p.Addr(), g.hold)
	f := w.submit()
	id := g.held(t)
	p.Refuse(true)
	p.CloseAll()
	w.worker("w2")
	until(t, "another worker does the task", func() bool {
		_, err := w.store.Stat(t.Context(), task.ResultKey(id))
		return err == nil
	})
	p.Refuse(false)
	close(g.open)
	f.well()
	until(t, "the late result is one", func() bool {
		all, err := fleet.Attempts(t.Context(), w.store, f.run)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if a.ID == id && a.Worker == "w1" && a.State == task.AttemptLate {
				return true
			}
		}
		return false
	})
}

// TestWorkerKilled kills a worker in mid-task.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := newGate()
	w.coordinator("c1")
	m := w.worker("w1", g.hold)
	f := w.submit()
	g.held(t)
	m.kill()
	w.worker("w2")
	f.well()
}

// TestWorkerHung has an operation that neither ends nor makes progress, on a worker
// whose heartbeats go on.
func TestWorkerHung(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hung := make(chan struct{})
	var once sync.Once
	w.coordinator("c1")
	w.worker("w1", func(x *worker.Worker, _ *member) {
		x.Silence = 5 * x.BeatEvery
		x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
			first := false
			once.Do(func() { first = true })
			if !first {
				return op.Run(ctx, spec, env)
			}
			close(hung)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	})
	f := w.submit()
	<-hung
	w.worker("w2")
	if r := f.well(); r.Totals.Failures != 1 {
		t.Errorf("totals %+v, want one attempt that was given up", r.Totals)
	}
}
