package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// The real queue is all that a worker wants.
var (
	_ Queue    = (*queue.Queue)(nil)
	_ Registry = (*queue.Queue)(nil)
)

func TestTaskIsCommittedOnce(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	var runs atomic.Int64
	stop := start(t, f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
		runs.Add(1)
		return writes("bytes")(ctx, s, env)
	})))
	defer stop()
	for range 3 {
		if fate := f.queue.offer(m, 1).wait(t); fate != "done" {
			t.Fatalf("delivery was %s", fate)
		}
	}
	if runs.Load() != 1 {
		t.Errorf("the operation ran %d times", runs.Load())
	}
	stop()
	r := f.result(t, m.ID)
	if r == nil || r.Worker != "alice" || len(r.Outputs) != 1 || r.Outputs[0].Size != 5 {
		t.Fatalf("%+v", r)
	}
	if n := len(f.queue.news(task.Done)); n != 3 {
		t.Errorf("%d notices, want one for each delivery", n)
	}
}

// TestTwoAttemptsAtOnce holds two workers in the middle of one task: the second
// commit finds the first and leaves nothing.
func TestTwoAttemptsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	both := make(chan struct{}, 2)
	gate := make(chan struct{})
	op := opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
		both <- struct{}{}
		<-gate
		return writes("bytes")(ctx, s, env)
	})
	stopA, stopB := start(t, f.worker("alice", op)), start(t, f.worker("bob", op))
	defer stopA()
	defer stopB()
	d, e := f.queue.offer(m, 1), f.queue.offer(m, 2)
	<-both
	<-both
	close(gate)
	if a, b := d.wait(t), e.wait(t); a != "done" || b != "done" {
		t.Errorf("deliveries were %s and %s", a, b)
	}
	stopA()
	stopB()
	r := f.result(t, m.ID)
	if keys := f.keys(t, task.Prefix(m.ID)); len(keys) != 3 { // spec, result, one output
		t.Errorf("result of %s, store: %q", r.Worker, keys)
	}
}

func TestOtherBytesNameBothWorkers(t *testing.T) {
	t.Parallel()
	for _, repair := range []bool{false, true} {
		f := newFleet()
		m := f.task(t, "a")
		both := make(chan struct{}, 2)
		gate := make(chan struct{})
		stopA := start(t, f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			both <- struct{}{}
			return writes("bytes")(ctx, s, env)
		})))
		if fate := f.queue.offer(m, 1).wait(t); fate != "done" {
			t.Fatalf("delivery was %s", fate)
		}
		stopA()
		first := f.result(t, m.ID)
		again := *m
		if repair {
			again.Repair = first.Attempt
		} else { // bob had begun before alice was done
			if err := f.store.Delete(t.Context(), task.ResultKey(m.ID)); err != nil {
				t.Fatal(err)
			}
		}
		stopB := start(t, f.worker("bob", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			both <- struct{}{}
			<-gate
			return writes("bytez")(ctx, s, env)
		})))
		d := f.queue.offer(&again, 1)
		<-both
		<-both
		text, err := first.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.store.Put(t.Context(), task.ResultKey(m.ID), strings.NewReader(string(text)), -1, objstore.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		close(gate)
		if fate := d.wait(t); fate != "abandon" || d.reason != string(task.Nondeterministic) {
			t.Errorf("delivery was %s for %q", fate, d.reason)
		}
		stopB()
		news := f.queue.news(task.Failed)
		if len(news) != 1 {
			t.Fatalf("%d notices", len(news))
		}
		for _, name := range []string{"alice", "bob", first.Attempt, news[0].Failure.Attempt, "test@1"} {
			if !strings.Contains(news[0].Failure.Message, name) {
				t.Errorf("failure does not name %s: %s", name, news[0].Failure.Message)
			}
		}
		if r := f.result(t, m.ID); r.Attempt != first.Attempt {
			t.Errorf("repair %v: the result is now that of %s", repair, r.Worker)
		}
		if _, err := f.store.Stat(t.Context(), first.Outputs[0].Key); err != nil {
			t.Errorf("bytes of the result that stands: %v", err)
		}
	}
}

// TestRepairReplacesTheResult runs a task again whose bytes were lost, and then
// sees late deliveries of the old message and of the same repair.
func TestRepairReplacesTheResult(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	stop := start(t, f.worker("alice", writes("bytes")))
	defer stop()
	f.queue.offer(m, 1).wait(t)
	first := f.result(t, m.ID)
	if err := f.store.Delete(t.Context(), first.Outputs[0].Key); err != nil {
		t.Fatal(err)
	}
	again := *m
	again.Repair = first.Attempt
	f.queue.offer(&again, 1).wait(t)
	second := f.result(t, m.ID)
	if second.Attempt == first.Attempt {
		t.Fatal("the task was not run again")
	}
	for _, late := range []*task.Message{&again, m} {
		f.queue.offer(late, 2).wait(t)
		if r := f.result(t, m.ID); r.Attempt != second.Attempt {
			t.Error("a late delivery replaced the result")
		}
	}
	if _, err := f.store.Stat(t.Context(), second.Outputs[0].Key); err != nil {
		t.Error(err)
	}
}

func TestUnreadableResultCountsAsAbsent(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"damaged": "{", "empty": "", "without end": strings.Repeat(" ", task.MaxResult+1)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet()
			m := f.task(t, "a")
			if _, err := f.store.Put(t.Context(), task.ResultKey(m.ID), strings.NewReader(text), int64(len(text)), objstore.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			defer start(t, f.worker("alice", writes("bytes")))()
			if fate := f.queue.offer(m, 1).wait(t); fate != "done" || f.result(t, m.ID) == nil {
				t.Errorf("delivery was %s", fate)
			}
		})
	}
}

// TestCommitThatSaysItFailed: the store's word on a commit is not the last.
func TestCommitThatSaysItFailed(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		f := newFleet()
		m := f.task(t, "a")
		b := broken(f.store, 1, ends("result.json"))
		b.after = after
		w := f.worker("alice", writes("bytes"))
		w.Store = b
		stop := start(t, w)
		fate := f.queue.offer(m, 1).wait(t)
		stop()
		r := f.result(t, m.ID)
		if want := map[bool]string{false: "retry", true: "done"}[after]; fate != want || (r != nil) != after {
			t.Errorf("stored %v: delivery was %s, result %v", after, fate, r)
		}
		outputs := len(f.keys(t, task.Prefix(m.ID))) - 1
		if want := map[bool]int{false: 0, true: 2}[after]; outputs != want {
			t.Errorf("stored %v: %d objects beside the spec, want %d", after, outputs, want)
		}
		if want := map[bool]string{false: task.AttemptStorage, true: task.AttemptDone}[after]; f.states(t, m) != want {
			t.Errorf("stored %v: attempts %s, want %s", after, f.states(t, m), want)
		}
	}
}

func TestFailuresAreToldAndStored(t *testing.T) {
	t.Parallel()
	long := errors.New("begins " + strings.Repeat("\x01é", 100_000) + " ends")
	for _, c := range []struct {
		err  error
		kind task.Kind
	}{
		{errors.New("cable"), task.Transient},
		{long, task.Transient},
		{fmt.Errorf("%w: group", compress.ErrInvalid), task.Invalid},
		{fmt.Errorf("read x: %w", shard.ErrSourceChanged), task.Changed},
	} {
		for _, storable := range []bool{true, false} {
			f := newFleet()
			m := f.task(t, "a")
			w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
				if err := writes("half")(ctx, s, env); err != nil {
					return err
				}
				return c.err
			}))
			if !storable {
				w.Store = broken(f.store, 1<<30, has("/failures/"))
			}
			stop := start(t, w)
			d := f.queue.offer(m, 1)
			if fate := d.wait(t); fate != "abandon" || d.reason != string(c.kind) {
				t.Errorf("%.40v: delivery was %s for %s", c.err, fate, d.reason)
			}
			stop()
			news := f.queue.news(task.Failed)
			if len(news) != 1 || news[0].Failure.Kind != c.kind || news[0].Failure.Worker != "alice" {
				t.Fatalf("%.40v: notices %+v", c.err, news)
			}
			text, err := news[0].Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := task.ParseNotice(text); err != nil {
				t.Errorf("%.40v: the notice does not get through: %v", c.err, err)
			}
			if s := c.err.Error(); !strings.HasPrefix(news[0].Failure.Message, s[:4]) || !strings.HasSuffix(news[0].Failure.Message, s[len(s)-4:]) {
				t.Errorf("message %.80q", news[0].Failure.Message)
			}
			if left := f.keys(t, task.Prefix(m.ID)); len(left) != 1 {
				t.Errorf("the attempt was not cleaned up: %q", left)
			}
			if s := f.states(t, m); s != task.AttemptFailed {
				t.Errorf("attempts %s", s)
			}
			stored := f.keys(t, task.FailurePrefix("run", m.ID))
			if !storable {
				continue
			}
			if len(stored) != 1 {
				t.Fatalf("failures stored: %q", stored)
			}
			data, err := objstore.ReadAll(t.Context(), f.store, stored[0], task.MaxFailure)
			if err != nil {
				t.Fatal(err)
			}
			var failure task.Failure
			if err := json.Unmarshal(data, &failure); err != nil || failure.Kind != c.kind || len(data) > 512<<10 {
				t.Errorf("%d bytes stored, kind %s, %v", len(data), failure.Kind, err)
			}
		}
	}
}

// TestAdmission counts the memory of tasks at once.
func TestAdmission(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		var now, peak, done atomic.Int64
		sizes := []int64{200, 10, 600, 64, 65, 1000, 300, 10, 10, 128, 500, 1}
		bytes := map[task.ID]int64{}
		w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			n := now.Add(env.Message.Memory)
			for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
			}
			time.Sleep(time.Second) //nolint:forbidigo // by the bubble's clock
			now.Add(-env.Message.Memory)
			done.Add(1)
			return writes("bytes")(ctx, s, env)
		}))
		w.Slots, w.Memory = 4, 1024*mib
		var all []*fakeDelivery
		for i, size := range sizes {
			m := f.task(t, fmt.Sprint(i))
			m.Memory = size * mib
			bytes[m.ID] = m.Memory
			all = append(all, f.queue.offer(m, 1))
		}
		defer start(t, w)()
		for _, d := range all {
			if fate := d.wait(t); fate != "done" {
				t.Errorf("delivery was %s", fate)
			}
		}
		if p := peak.Load(); p > w.Memory || p < 600*mib {
			t.Errorf("peak of %d MiB in a budget of %d", p/mib, w.Memory/mib)
		}
		if done.Load() != int64(len(sizes)) || now.Load() != 0 {
			t.Errorf("%d tasks done", done.Load())
		}
	})
}

func TestTooLittleMemory(t *testing.T) {
	t.Parallel()
	w := newFleet().worker("alice", writes(""))
	w.Memory = queue.SmallestMemory - 1
	if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("worker without memory: %v", err)
	}
}

// TestLostQueueEndsTheWorker: a worker that cannot be offered anything must say so.
func TestLostQueueEndsTheWorker(t *testing.T) {
	t.Parallel()
	w := newFleet().worker("alice", writes(""))
	w.Slots = 3
	w.Queue = lostQueue{}
	if err := w.Run(t.Context()); !errors.Is(err, errLost) {
		t.Errorf("worker without a queue: %v", err)
	}
}

type lostQueue struct{}

var errLost = errors.New("queue is lost")

func (lostQueue) Next(context.Context, func() []queue.Cell) (queue.Delivery, error) {
	return nil, errLost
}
func (lostQueue) Notify(*task.Notice) error { return errLost }
