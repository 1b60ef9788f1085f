package fleet_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/worker"
)

// TestCoordinatorKilled kills the coordinator at one of its writes, before it is
// done. The lease stays as it is; another coordinator goes on when it has ended.
func TestCoordinatorKilled(t *testing.T) {
	t.Parallel()
	places := []string{"task.json", "pin", "spec.json", "UNFINISHED.json", ".safetensors", "report.json", "MANIFEST.json", "state.json"}
	if testing.Short() {
		places = places[:1]
	}
	for _, place := range places {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.worker("w1")
			fallen := make(chan struct{})
			var once atomic.Bool
			c1 := w.coordinator("c1", func(_ *coordinator.Service, m *member) {
				m.store.set(func(op, key string) error {
					if (op == "put" || op == "copy") && strings.HasSuffix(key, place) && once.CompareAndSwap(false, true) {
						m.store.die()
						m.queue.Close()
						close(fallen)
						return errDead
					}
					return nil
				})
			})
			f := w.submit()
			<-fallen
			w.pending(f.run)
			w.coordinator("c2")
			c1.kill()
			f.well()
			w.closed(f.run)
		})
	}
}

// leaseless lets everybody drive a run who wants to.
type leaseless struct {
	coordinator.ServiceQueue
}

func (q leaseless) Acquire(ctx context.Context, name, holder string) (*queue.Lease, error) {
	return q.ServiceQueue.Acquire(ctx, name+"-"+holder, holder)
}

// TestTwoCoordinatorsWithoutLease has two coordinators drive the same run.
func TestTwoCoordinatorsWithoutLease(t *testing.T) {
	t.Parallel()
	for _, audit := range []float64{0, 1} {
		for _, noReuse := range []bool{false, true} {
			if testing.Short() && (audit > 0 || noReuse) {
				continue
			}
			w := newWorld(t)
			g := newGate()
			var driving atomic.Int64
			both := func(s *coordinator.Service, m *member) {
				s.Queue = leaseless{m.queue}
				var once atomic.Bool
				m.store.set(func(op, key string) error {
					if op == "put" && strings.HasSuffix(key, "/task.json") && once.CompareAndSwap(false, true) {
						driving.Add(1)
					}
					return nil
				})
			}
			w.coordinator("c1", both)
			w.coordinator("c2", both)
			w.worker("w1", g.hold)
			w.worker("w2", g.hold)
			f := w.submit(func(s *coordinator.Submission) { s.Audit, s.NoReuse = audit, noReuse })
			until(t, "both drive", func() bool { return driving.Load() == 2 })
			close(g.open)
			f.well()
			w.closed(f.run)
		}
	}
}

// deaf hears nothing of its workers.
type deaf struct{ coordinator.ServiceQueue }

func (deaf) Notices(context.Context) (<-chan *task.Notice, error) { return nil, nil }

// lonesome hears nothing of coordinators.
type lonesome struct{ *queue.Queue }

func (lonesome) Events(context.Context, string) (<-chan []byte, error) { return nil, nil }
func (lonesome) Hint(context.Context, string, string) error            { return errors.New("lost") }

// TestLostNews loses every hint: of workers to coordinators, of coordinators to
// watchers, of clients to coordinators.
func TestLostNews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.client.Queue = lonesome{w.queue}
	w.coordinator("c1", func(s *coordinator.Service, _ *member) { s.Queue = deaf{s.Queue} })
	w.worker("w1")
	w.worker("w2")
	w.submit(func(s *coordinator.Submission) {
		if !testing.Short() {
			s.Audit = 1
		}
	}).well()
}

// permits lets so many operations begin as were given.
type permits struct {
	free chan struct{}
	used atomic.Int64
}

func (p *permits) hold(x *worker.Worker, _ *member) {
	x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
		select {
		case <-p.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		p.used.Add(1)
		return op.Run(ctx, spec, env)
	})
}

func (p *permits) give(n int) {
	for range n {
		p.free <- struct{}{}
	}
}

// TestNoReuseGoesOnElsewhere kills the coordinator of a run that does all tasks anew:
// the next one does not forget what was done in this run.
func TestNoReuseGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := len(w.plan.Units)
	p := &permits{free: make(chan struct{}, 100)}
	c1 := w.coordinator("c1")
	w.worker("w1", p.hold)
	p.give(n)
	w.submit().well()
	f := w.submit(func(s *coordinator.Submission) { s.NoReuse = true })
	until(t, "the results are forgotten", func() bool { return w.results() == 0 })
	p.give(n - 2)
	until(t, "some tasks are done again", func() bool { return w.results() == n-2 })
	c1.kill()
	w.coordinator("c2")
	p.give(2)
	f.well()
	if used := p.used.Load(); used != int64(2*n) {
		t.Errorf("%d operations, want %d", used, 2*n)
	}
}

// TestCollectDuringRun collects garbage of any age again and again while a run goes
// on.
func TestCollectDuringRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	collect := func() error {
		got, err := coordinator.Collect(t.Context(), w.store, coordinator.CollectOptions{})
		if got.Tasks+got.Runs+got.Sources != 0 {
			t.Errorf("a collection took what the run needs: %+v", got)
		}
		if errors.Is(err, objstore.ErrNotExist) {
			err = nil // what it looked at was just replaced
		}
		return err
	}
	var n atomic.Int64
	hook := func(m *member) {
		m.store.set(func(op, key string) error {
			if op != "put" && op != "copy" || strings.Contains(key, "/attempts/") { // whose end may come after the run's
				return nil
			}
			n.Add(1)
			if err := collect(); err != nil {
				t.Error(err)
			}
			return nil
		})
	}
	w.worker("w1", func(_ *worker.Worker, m *member) { hook(m) })
	f := w.submit()
	w.coordinator("c1", func(_ *coordinator.Service, m *member) { hook(m) })
	r := f.well()
	if r.Totals.Repaired != 0 || r.Totals.Failures != 0 {
		t.Errorf("collections cost work: %+v", r.Totals)
	}
	if n.Load() < 15 {
		t.Errorf("only %d collections", n.Load())
	}
}
