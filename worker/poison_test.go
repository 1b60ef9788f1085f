package worker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
)

// TestDeaths plays through what may be known of earlier attempts at a task.
func TestDeaths(t *testing.T) {
	t.Parallel()
	died := func(worker string) task.AttemptRecord { return task.AttemptRecord{Worker: worker} }
	with := func(state string) task.AttemptRecord { return task.AttemptRecord{Worker: "w", State: state} }
	below := task.AttemptRecord{Worker: "w", Memory: 64 << 20}
	above := task.AttemptRecord{Worker: "w", Memory: 512 << 20}
	twin := task.AttemptRecord{Worker: "w", Copy: task.CopyTwin}
	for _, c := range []struct {
		name       string
		records    []task.AttemptRecord
		copy       string
		deliveries int
		poison     bool
	}{
		{"first time", nil, "", 1, false},
		{"often, and nobody died", nil, "", 100, false},
		{"two died", []task.AttemptRecord{died("a"), died("b")}, "", 3, false},
		{"three died", []task.AttemptRecord{died("a"), died("b"), died("c")}, "", 4, true},
		{"more died", []task.AttemptRecord{died("a"), died("b"), died("c"), died("d")}, "", 5, true},
		{"ended in order", []task.AttemptRecord{
			with(task.AttemptDrained), with(task.AttemptStorage), with(task.AttemptFailed), with(task.AttemptLate), with(task.AttemptDone), with(task.AttemptDrained), died("a"), died("b"),
		}, "", 9, false},
		{"among others", []task.AttemptRecord{with(task.AttemptDrained), died("a"), with(task.AttemptStorage), died("b"), died("c")}, "", 6, true},
		{"of a smaller class", []task.AttemptRecord{below, below, below}, "", 2, false},
		{"of a smaller class, and one here", []task.AttemptRecord{below, below, below, died("a")}, "", 2, true},
		{"not enough in a smaller class", []task.AttemptRecord{below, below, died("a"), died("b")}, "", 3, false},
		{"raised, for the first time", []task.AttemptRecord{below, below, below}, "", 1, false},
		{"of a larger class", []task.AttemptRecord{above, above, above, died("a"), died("b")}, "", 3, false},
		{"of a twin", []task.AttemptRecord{twin, twin, twin, twin}, "", 3, false},
		{"of this twin", []task.AttemptRecord{twin, twin, twin}, task.CopyTwin, 4, true},
		{"of the first, not of this twin", []task.AttemptRecord{died("a"), died("b"), died("c")}, task.CopyTwin, 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet()
			m := f.task(t, "a")
			m.Memory, m.Copy = 200<<20, c.copy // class of 256 MiB
			for _, r := range c.records {
				f.died(t, m, r)
			}
			defer start(t, f.worker("alice", writes("bytes")))()
			d := f.queue.offer(m, c.deliveries)
			fate := d.wait(t)
			failed := f.failures(t, m)
			if !c.poison {
				if fate != "done" || len(failed) != 0 {
					t.Errorf("delivery was %s, failures %+v", fate, failed)
				}
				return
			}
			if fate != "abandon" || d.reason != string(task.Died) || len(failed) != 1 {
				t.Fatalf("delivery was %s for %q, failures %+v", fate, d.reason, failed)
			}
			if x := failed[0]; x.Kind != task.Died || x.Memory != m.Memory || x.Copy != c.copy || !strings.Contains(x.Message, "256 MiB") {
				t.Errorf("failure %+v", x)
			}
			if len(f.queue.news(task.Failed)) != 1 || f.result(t, m.ID) != nil {
				t.Error("nobody was told, or the task was run")
			}
		})
	}
}

// TestDeathsOfLongAgo: a task that is given back again and again does not make every
// delivery slower, and hostile records are none.
func TestDeathsOfLongAgo(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	for range 3 {
		f.died(t, m, task.AttemptRecord{Worker: "w"})
	}
	for range lookBack {
		f.died(t, m, task.AttemptRecord{Worker: "w", State: task.AttemptStorage})
	}
	for i, bad := range []string{"", "{", `{"state":"started"}`, strings.Repeat(" ", task.MaxAttempt+1)} {
		f.put(t, fmt.Sprintf("%s7ZZZZZ%d.json", task.AttemptPrefix(m.Run, m.ID), i), bad)
	}
	defer start(t, f.worker("alice", writes("bytes")))()
	if fate := f.queue.offer(m, 70).wait(t); fate != "done" {
		t.Errorf("delivery was %s", fate)
	}
}

// TestRepairIsNoDeath: the worker of the result that is made again died before it
// could write how its attempt ended.
func TestRepairIsNoDeath(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	stop := start(t, f.worker("alice", writes("bytes")))
	f.queue.offer(m, 1).wait(t)
	stop()
	first := f.result(t, m.ID)
	r := f.records(t, m)[0]
	r.State = task.AttemptStarted
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, task.AttemptKey(m.Run, m.ID, r.Attempt), string(b))
	f.died(t, m, task.AttemptRecord{Worker: "w"})
	f.died(t, m, task.AttemptRecord{Worker: "w"})
	again := *m
	again.Repair = first.Attempt
	defer start(t, f.worker("bob", writes("bytes")))()
	if fate := f.queue.offer(&again, 3).wait(t); fate != "done" {
		t.Errorf("repair was %s", fate)
	}
}

// TestThirdAttemptIsAlone: other tasks end first, none is pulled meanwhile, and the
// delivery is kept while it waits.
func TestThirdAttemptIsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		var now, most atomic.Int64
		var mu sync.Mutex
		var order []task.ID   // in which tasks are begun
		var suspects sync.Map // task.ID
		suspect := func(id task.ID) bool { _, ok := suspects.Load(id); return ok }
		w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			n := now.Add(1)
			mu.Lock()
			order = append(order, env.Message.ID)
			mu.Unlock()
			most.Store(max(most.Load(), n))
			if suspect(env.Message.ID) && n != 1 {
				t.Errorf("%d tasks beside one that killed its workers", n-1)
			}
			for range 10 {
				time.Sleep(time.Minute) //nolint:forbidigo // by the bubble's clock
				if suspect(env.Message.ID) && now.Load() != 1 {
					t.Error("another task was begun beside one that killed its workers")
				}
				env.Progress(1)
			}
			now.Add(-1)
			return writes("bytes")(ctx, s, env)
		}))
		w.Slots = 4
		defer start(t, w)()
		var all []*fakeDelivery
		offer := func(name string, deaths int) *fakeDelivery {
			m := f.task(t, name)
			for range deaths {
				f.died(t, m, task.AttemptRecord{Worker: "bob"})
			}
			if deaths >= aloneAfter {
				suspects.Store(m.ID, true)
			}
			d := f.queue.offer(m, 1+deaths)
			all = append(all, d)
			return d
		}
		for i := range 3 {
			offer(fmt.Sprint("before ", i), i%2)
		}
		synctest.Wait()
		first := offer("suspect", 2)
		synctest.Wait()
		for i := range 5 {
			offer(fmt.Sprint("after ", i), 0)
			if i == 2 {
				offer("second suspect", 2)
			}
		}
		for _, d := range all {
			if fate := d.wait(t); fate != "done" {
				t.Errorf("delivery was %s", fate)
			}
		}
		if first.extends < 2*600/10-2 {
			t.Errorf("extended %d times in twenty minutes", first.extends)
		}
		if order[3] != first.message.ID {
			t.Error("tasks were begun while one waited for the others to end")
		}
		if most.Load() < 3 {
			t.Errorf("at most %d tasks at once", most.Load())
		}
	})
}

// TestRaisedTaskIsAlone: one that killed its workers in a smaller memory class is a
// suspect when it is offered for the first time.
func TestRaisedTaskIsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "raised")
		var other atomic.Bool
		w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			if env.Message.ID == m.ID && other.Load() {
				t.Error("it is not alone")
			}
			other.Store(true)
			time.Sleep(time.Minute) //nolint:forbidigo // by the bubble's clock
			other.Store(false)
			return writes("bytes")(ctx, s, env)
		}))
		w.Slots = 2
		defer start(t, w)()
		m.Memory, m.Escalate = 128<<20, 1
		for range poisonAfter {
			f.died(t, m, task.AttemptRecord{Worker: "bob", Memory: 64 << 20})
		}
		f.queue.offer(f.task(t, "other"), 1)
		synctest.Wait()
		if fate := f.queue.offer(m, 1).wait(t); fate != "done" {
			t.Errorf("delivery was %s", fate)
		}
	})
}

// TestWaitingToBeAloneEndsWithTheWorker: it counts as nothing.
func TestWaitingToBeAloneEndsWithTheWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		w := f.worker("alice", opFunc(func(ctx context.Context, _ *task.Spec, _ *operation.Env) error {
			<-ctx.Done()
			return ctx.Err()
		}))
		w.Slots = 2
		stop := start(t, w)
		long := f.queue.offer(f.task(t, "long"), 1)
		synctest.Wait()
		m := f.task(t, "suspect")
		f.died(t, m, task.AttemptRecord{Worker: "b"})
		f.died(t, m, task.AttemptRecord{Worker: "b"})
		d := f.queue.offer(m, 3)
		synctest.Wait()
		stop()
		for _, d := range []*fakeDelivery{long, d} {
			if fate := d.wait(t); fate != "retry" || d.after != 0 {
				t.Errorf("delivery was %s after %v", fate, d.after)
			}
		}
		if s := f.states(t, m); s != "started started" {
			t.Errorf("attempts %q", s)
		}
	})
}
