package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// TestDrain ends a worker in the middle of tasks of many lengths: those that end
// within its grace are committed, the others given back at once, nothing new is begun,
// and nothing is held against anybody.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		grace time.Duration
		takes time.Duration
		fate  string
		state string
		ends  time.Duration // the worker, after it was told
	}{
		{"no grace", 0, time.Hour, "retry", task.AttemptDrained, 0},
		{"within its grace", time.Minute, 50 * time.Second, "done", task.AttemptDone, 40 * time.Second},
		{"not within its grace", time.Minute, time.Hour, "retry", task.AttemptDrained, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				m := f.task(t, "a")
				w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
					if err := writes("half")(ctx, s, env); err != nil {
						return err
					}
					select {
					case <-time.After(c.takes):
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}))
				w.Grace, w.Slots = c.grace, 2
				stop := start(t, w)
				d := f.queue.offer(m, 1)
				time.Sleep(10 * time.Second) //nolint:forbidigo // by the bubble's clock
				begin := time.Now()
				ended := make(chan struct{})
				go func() { defer close(ended); stop() }()
				synctest.Wait()
				next := f.queue.offer(f.task(t, "b"), 1)
				<-ended
				if took := time.Since(begin); took != c.ends {
					t.Errorf("the worker ended after %v, want %v", took, c.ends)
				}
				if fate := d.wait(t); fate != c.fate || d.after != 0 {
					t.Errorf("delivery was %s after %v", fate, d.after)
				}
				if next.fate != "" {
					t.Errorf("a worker that ends was given a task, which was %s", next.fate)
				}
				if s := f.states(t, m); s != c.state {
					t.Errorf("attempts %s", s)
				}
				left := f.keys(t, task.Prefix(m.ID))
				if want := map[string]int{"retry": 1, "done": 3}[c.fate]; len(left) != want {
					t.Errorf("in the store: %q", left)
				}
				if n := len(f.queue.news(task.Failed)); n != 0 {
					t.Errorf("%d failures were told", n)
				}
				if c.grace > 0 && d.extends == 0 && c.fate == "done" {
					t.Error("the delivery was not kept in the time of grace")
				}
			})
		})
	}
}

// TestPulledWhileStopping: what the queue gives to a worker that has been told to stop
// goes back at once.
func TestPulledWhileStopping(t *testing.T) {
	t.Parallel()
	f := newFleet()
	ctx, cancel := context.WithCancel(t.Context())
	w := f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
		t.Error("the task was begun")
		return nil
	}))
	d := &fakeDelivery{queue: f.queue, message: f.task(t, "a"), attempt: 1, ended: make(chan struct{})}
	w.Queue = &lateQueue{f.queue, d, cancel}
	w.Grace = time.Hour
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	if d.fate != "retry" || d.after != 0 {
		t.Errorf("delivery was %s after %v", d.fate, d.after)
	}
	if left := f.keys(t, "runs/"); len(left) != 0 {
		t.Errorf("in the store: %q", left)
	}
}

// lateQueue gives one task, at the moment at which its worker is told to stop.
type lateQueue struct {
	*fakeQueue
	d      *fakeDelivery
	cancel func()
}

func (q *lateQueue) Next(context.Context, func() []queue.Cell) (queue.Delivery, error) {
	q.cancel()
	return q.d, nil
}

// TestEndOfAnOperationIsCommitted: a worker that is told to stop when an operation is
// over does not throw its result away.
func TestEndOfAnOperationIsCommitted(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
		if err := writes("bytes")(ctx, s, env); err != nil {
			return err
		}
		cancel()
		<-ctx.Done()
		return nil
	}))
	d := f.queue.offer(m, 1)
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	if d.fate != "done" || f.result(t, m.ID) == nil || f.states(t, m) != task.AttemptDone {
		t.Errorf("delivery was %s, attempts %s", d.fate, f.states(t, m))
	}
}
