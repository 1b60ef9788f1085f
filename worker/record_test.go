package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// TestRecordOfAnAttempt looks at the record while the operation runs, and after it.
func TestRecordOfAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "a")
		m.Memory, m.Copy = 100<<20, task.CopyTwin
		w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			all := f.records(t, m)
			if len(all) != 1 {
				t.Fatalf("%d records while the operation runs", len(all))
			}
			r := all[0]
			if r.State != task.AttemptStarted || r.Worker != "alice" || r.Memory != 128<<20 || r.Copy != task.CopyTwin || !r.Ended.IsZero() || !r.Started.Equal(time.Now()) {
				t.Errorf("record while the operation runs: %+v", r)
			}
			time.Sleep(time.Minute) //nolint:forbidigo // by the bubble's clock
			return writes("bytes")(ctx, s, env)
		}))
		var log text
		w.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
		puts := &counter{Bucket: f.store}
		w.Store = puts
		stop := start(t, w)
		f.queue.offer(m, 1).wait(t)
		stop()
		all := f.records(t, m)
		if len(all) != 1 {
			t.Fatalf("%d records", len(all))
		}
		r := all[0]
		if r.State != task.AttemptDone || r.Ended.Sub(r.Started) != time.Minute || r.Attempt != f.result(t, m.ID).Attempt {
			t.Errorf("record: %+v", r)
		}
		for _, says := range []string{"attempt begins", "test@1", "sha256", "attempt ends", "run=run", r.Attempt} {
			if !strings.Contains(r.Log, says) {
				t.Errorf("the record's log does not say %q: %s", says, r.Log)
			}
		}
		if log.String() != "" {
			t.Errorf("the worker's own log has another level: %s", log.String())
		}
		if n := puts.n["runs"]; n != 2 {
			t.Errorf("%d small puts beside the output and the result, want 2", n)
		}
		if n := len(f.queue.news(task.Began)); n != 1 {
			t.Errorf("%d notices of a beginning", n)
		}
	})
}

// counter counts puts by the first element of their keys.
type counter struct {
	objstore.Bucket
	n map[string]int
}

func (c *counter) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if c.n == nil {
		c.n = map[string]int{}
	}
	first, _, _ := strings.Cut(key, "/")
	c.n[first]++
	return c.Bucket.Put(ctx, key, r, size, o)
}

// TestNothingRunsWithoutARecord: an attempt that nobody could know of is not begun.
func TestNothingRunsWithoutARecord(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			m := f.task(t, "a")
			w := f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
				t.Error("the operation was run")
				return nil
			}))
			b := broken(f.store, 1, has("/attempts/"))
			b.after = after
			w.Store = b
			stop := start(t, w)
			if fate := f.queue.offer(m, 1).wait(t); fate != "retry" {
				t.Errorf("stored %v: delivery was %s", after, fate)
			}
			stop()
			if s := f.states(t, m); s != task.AttemptStorage {
				t.Errorf("stored %v: attempts %q", after, s)
			}
		})
	}
}

// TestRecordIsWrittenWhenTheStoreIsBack: what ended in order does not look like a
// death for longer than the store is away.
func TestRecordIsWrittenWhenTheStoreIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "a")
		b := broken(f.store, 0, has("")) // everything, from when the operation has begun
		w := f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
			b.times.Store(1 << 30)
			return &operation.StoreError{Err: errors.New("away")}
		}))
		w.Store = b
		stop := start(t, w)
		for n := 1; n <= 5; n++ {
			if fate := f.queue.offer(m, n).wait(t); fate != "retry" {
				t.Fatalf("delivery %d was %s", n, fate)
			}
			synctest.Wait()
		}
		if s := f.states(t, m); s != task.AttemptStarted {
			t.Errorf("attempts %q while the store is away", s)
		}
		b.times.Store(0)
		time.Sleep(settleEvery) //nolint:forbidigo // by the bubble's clock
		synctest.Wait()
		if s := f.states(t, m); strings.Contains(s, task.AttemptStarted) {
			t.Errorf("attempts %q when the store is back", s)
		}
		stop()
	})
}

// TestUnsettledIsNoDeath: a worker knows better than the store what became of its own
// attempts.
func TestUnsettledIsNoDeath(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "a")
		b := broken(f.store, 0, has("/attempts/"))
		w := f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
			b.times.Store(1)
			return &operation.StoreError{Err: errors.New("slow")}
		}))
		w.Store, w.MaxRest = b, time.Nanosecond
		stop := start(t, w)
		for n := 1; n <= 2*poisonAfter; n++ {
			if fate := f.queue.offer(m, n).wait(t); fate != "retry" {
				t.Fatalf("delivery %d was %s", n, fate)
			}
		}
		if s := f.states(t, m); strings.Count(s, task.AttemptStarted) != 2*poisonAfter {
			t.Fatalf("attempts %q: this tests nothing", s)
		}
		stop()
		if s := f.states(t, m); strings.Contains(s, task.AttemptStarted) {
			t.Errorf("attempts %q at the end", s)
		}
	})
}

// TestLastRecords: a worker that ends writes what is open.
func TestLastRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "a")
		b := broken(f.store, 0, has("/attempts/"))
		w := f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
			b.times.Store(1)
			return errors.New("wrong")
		}))
		w.Store = b
		stop := start(t, w)
		f.queue.offer(m, 1).wait(t)
		synctest.Wait()
		if s := f.states(t, m); s != task.AttemptStarted {
			t.Errorf("attempts %q", s)
		}
		stop()
		if s := f.states(t, m); s != task.AttemptFailed {
			t.Errorf("attempts %q at the end", s)
		}
	})
}

// TestLateResult: a worker that was cut off for long comes back with its result. Its
// attempt counted as dead meanwhile; now its record says what became of it.
func TestLateResult(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} { // it is still the first
		f := newFleet()
		m := f.task(t, "a")
		begun, gate := make(chan struct{}), make(chan struct{})
		stopA := start(t, f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			close(begun)
			<-gate
			return writes("bytes")(ctx, s, env)
		})))
		cutOff := f.queue.offer(m, 1)
		<-begun
		again, gate2 := make(chan struct{}), make(chan struct{})
		stopB := start(t, f.worker("bob", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			close(again)
			<-gate2
			return writes("bytes")(ctx, s, env)
		})))
		redelivered := f.queue.offer(m, 2)
		<-again
		order := []func(){
			func() { close(gate); cutOff.wait(t); stopA() },
			func() { close(gate2); redelivered.wait(t); stopB() },
		}
		want, winner := "done late", "alice"
		if !first {
			order[0], order[1] = order[1], order[0]
			want, winner = "late done", "bob"
		}
		order[0]()
		order[1]()
		if s, r := f.states(t, m), f.result(t, m.ID); s != want || r.Worker != winner {
			t.Errorf("attempts %q, result of %s; want %q of %s", s, r.Worker, want, winner)
		}
		if keys := f.keys(t, task.Prefix(m.ID)); len(keys) != 3 {
			t.Errorf("in the store: %q", keys)
		}
	}
}
