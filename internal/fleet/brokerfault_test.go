package fleet_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
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

// published counts how often each task is offered.
type published struct {
	coordinator.ServiceQueue

	mu sync.Mutex
	n  map[task.ID]int
}

func (q *published) Publish(ctx context.Context, m *task.Message) error {
	err := q.ServiceQueue.Publish(ctx, m)
	if err == nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.n[m.ID]++
	}
	return err
}

func (q *published) times(id task.ID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n[id]
}

// TestMessagesLost removes every task that the broker holds, under a coordinator that
// has its lease and its connection: it finds them missing, and offers them again.
func TestMessagesLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	q := &published{n: map[task.ID]int{}}
	w.coordinator("c1", func(s *coordinator.Service, m *member) { q.ServiceQueue = m.queue; s.Queue = q })
	f := w.submit()
	for _, u := range w.plan.Units {
		until(t, "the task is offered", func() bool { return q.times(u.ID) == 1 })
	}
	for _, u := range w.plan.Units {
		m := &task.Message{ID: u.ID, Class: operation.ClassF32, Memory: u.Layout.Memory + source.Memory(w.source)}
		if err := w.queue.Withdraw(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		until(t, "the task is offered again", func() bool { return q.times(u.ID) == 2 })
	}
	w.worker("w1")
	f.well()
}

// failing is a queue of whose questions some fail.
type failing struct {
	coordinator.ServiceQueue
	fail func(question string) error
}

func (q failing) Publish(ctx context.Context, m *task.Message) error {
	if err := q.fail("publish"); err != nil {
		return err
	}
	return q.ServiceQueue.Publish(ctx, m)
}

func (q failing) Outstanding(ctx context.Context) (map[task.ID]bool, error) {
	if err := q.fail("outstanding"); err != nil {
		return nil, err
	}
	return q.ServiceQueue.Outstanding(ctx)
}

func (q failing) Notices(ctx context.Context) (<-chan *task.Notice, error) {
	if err := q.fail("notices"); err != nil {
		return nil, err
	}
	return q.ServiceQueue.Notices(ctx)
}

func (q failing) Acquire(ctx context.Context, name, holder string) (*queue.Lease, error) {
	if err := q.fail("acquire"); err != nil {
		return nil, err
	}
	return q.ServiceQueue.Acquire(ctx, name, holder)
}

// TestBrokerFailsTheCoordinator has one question after another unanswered for so long
// that the coordinator's queue gives up asking: no run ends by that.
func TestBrokerFailsTheCoordinator(t *testing.T) {
	t.Parallel()
	const times = 3
	questions := []string{"outstanding", "publish", "notices", "acquire"}
	if testing.Short() {
		questions = questions[:1]
	}
	for _, question := range questions {
		t.Run(question, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			g := newGate()
			var asked atomic.Int64
			w.coordinator("c1", func(s *coordinator.Service, m *member) {
				s.Queue = failing{m.queue, func(this string) error {
					if this == question && asked.Add(1) <= times {
						return fmt.Errorf("ask broker: %w", errInjected)
					}
					return nil
				}}
			})
			w.worker("w1", g.hold)
			f := w.submit()
			until(t, "the question is asked again", func() bool { return asked.Load() > times })
			close(g.open)
			f.well()
		})
	}
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

// TestWorkerKilledAnywhere kills a worker before each of the things that it does with
// the store for its first task, and when that is committed and not yet acknowledged.
func TestWorkerKilledAnywhere(t *testing.T) {
	t.Parallel()
	commit := func(key string) bool { return strings.HasSuffix(key, "/result.json") }
	// What it does in a quiet run, up to the commit.
	var mu sync.Mutex
	last, committed := 0, make(chan struct{})
	quiet := newWorld(t)
	quiet.worker("w1", func(_ *worker.Worker, m *member) {
		over := false
		m.store.set(func(op, key string) error {
			mu.Lock()
			defer mu.Unlock()
			if !over {
				last++
			}
			if op == "put" && commit(key) && !over {
				over = true
				close(committed)
			}
			return nil
		})
	})
	quiet.coordinator("c1")
	quiet.submit().well()
	<-committed
	if last < 5 {
		t.Fatalf("only %d operations: this tests nothing", last)
	}
	// kill has a worker fall by one of two hooks, and another one take its place.
	kill := func(t *testing.T, before func() bool, after func(key string) bool) {
		t.Helper()
		w := newWorld(t)
		w.coordinator("c1")
		fallen := make(chan struct{})
		var once sync.Once
		m := w.worker("w1", func(_ *worker.Worker, m *member) {
			fall := func() {
				once.Do(func() {
					m.store.die()
					m.stop() // else its end would be an error
					m.queue.Close()
					close(fallen)
				})
			}
			m.store.set(func(string, string) error {
				if before() {
					fall()
					return errDead
				}
				return nil
			})
			m.store.after(func(key string) {
				if after(key) {
					fall()
				}
			})
		})
		f := w.submit()
		<-fallen
		m.kill()
		w.worker("w2")
		if r := f.well(); r.Totals.Failures != 0 {
			t.Errorf("totals %+v: a death is no failure", r.Totals)
		}
		all, err := fleet.Attempts(t.Context(), w.store, f.run)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if a.State == task.AttemptLate {
				t.Errorf("task %s was done again after its commit", a.ID.Short())
			}
		}
	}
	step := 1
	if testing.Short() {
		step = last - 1
	}
	for n := 1; n <= last; n += step {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			var did atomic.Int64
			kill(t, func() bool { return did.Add(1) == int64(n) }, func(string) bool { return false })
		})
	}
	t.Run("committed", func(t *testing.T) {
		t.Parallel()
		kill(t, func() bool { return false }, commit)
	})
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
