package fleet_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/worker"
)

func audited(s *coordinator.Submission) { s.Audit = 1 }

// TestAudit runs every task again on another worker.
func TestAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.coordinator("c1")
	var n atomic.Int64
	count := func(x *worker.Worker, _ *member) {
		x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
			n.Add(1)
			return op.Run(ctx, spec, env)
		})
	}
	w.worker("w1", count)
	w.worker("w2", count)
	f := w.submit(audited)
	f.well()
	if got, want := n.Load(), int64(2*len(w.plan.Units)); got != want {
		t.Errorf("%d operations, want %d", got, want)
	}
}

// TestAuditAlone has nobody who could audit: the run waits for a while and then ends
// without.
func TestAuditAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const wait = 1500 * time.Millisecond
	w.coordinator("c1", func(s *coordinator.Service, _ *member) { s.AuditWait = wait })
	w.worker("w1")
	r := w.submit(audited).well()
	if time.Duration(r.Totals.Elapsed*float64(time.Second)) < wait {
		t.Errorf("it took %v s only: nobody was waited for", r.Totals.Elapsed)
	}
}

// TestAuditFindsABadMachine has a worker whose bytes are not those of others.
func TestAuditFindsABadMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.coordinator("c1")
	w.worker("good")
	w.worker("bad", func(x *worker.Worker, _ *member) {
		x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
			put := env.Put
			env.Put = func(ctx context.Context, name string, r io.Reader, size int64) error {
				b, err := io.ReadAll(r)
				if err != nil {
					return err
				}
				b[len(b)-1] ^= 1
				return put(ctx, name, bytes.NewReader(b), size)
			}
			return op.Run(ctx, spec, env)
		})
	})
	r, err := w.submit(audited).end()
	if err == nil || r == nil || r.State != coordinator.StateFailed {
		t.Fatalf("%v, record %+v, want a failed run", err, r)
	}
	for _, name := range []string{"audit", "worker good", "worker bad"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %q is not in it", err, name)
		}
	}
}

// TestKeepGoing reports all failures, and does the rest.
func TestKeepGoing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.coordinator("c1")
	bad := map[task.ID]bool{w.plan.Units[1].ID: true, w.plan.Units[3].ID: true}
	w.worker("w1", func(x *worker.Worker, _ *member) {
		x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
			if bad[env.Message.ID] {
				return nil, fmt.Errorf("weights of %s: %w", env.Message.ID.Short(), task.ErrInvalid)
			}
			return op.Run(ctx, spec, env)
		})
	})
	r, err := w.submit(func(s *coordinator.Submission) { s.KeepGoing = true }).end()
	if err == nil || r == nil || r.State != coordinator.StateFailed {
		t.Fatalf("%v, record %+v, want a failed run", err, r)
	}
	for id := range bad {
		if !strings.Contains(r.Error, id.Short()) {
			t.Errorf("%q: %s is not in it", r.Error, id.Short())
		}
	}
	if r.Totals.Run != len(w.plan.Units)-len(bad) {
		t.Errorf("totals %+v: not all else was done", r.Totals)
	}
}

// TestMaxWorkers bounds what is worked on at a time.
func TestMaxWorkers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var at, most atomic.Int64
	w.coordinator("c1")
	w.worker("w1", func(x *worker.Worker, _ *member) {
		x.Slots = 4
		x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
			n := at.Add(1)
			defer at.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return op.Run(ctx, spec, env)
		})
	})
	w.submit(func(s *coordinator.Submission) { s.MaxWorkers, s.Priority = 1, coordinator.PriorityHigh }).well()
	if most.Load() != 1 {
		t.Errorf("%d at a time, want 1", most.Load())
	}
}
