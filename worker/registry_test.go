package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
)

// fakeRegistry keeps what it is told.
type fakeRegistry struct {
	mu   sync.Mutex
	told []task.WorkerInfo
	at   []time.Time
	gone []string
	err  error
}

func (r *fakeRegistry) Register(_ context.Context, w *task.WorkerInfo) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told, r.at = append(r.told, *w), append(r.at, time.Now())
	return r.err
}

func (r *fakeRegistry) Unregister(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = append(r.gone, name)
	return r.err
}

func (r *fakeRegistry) last() task.WorkerInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told[len(r.told)-1]
}

func (r *fakeRegistry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.told)
}

// TestRegistry follows a worker's entry from its start to its end, with a registry
// that answers and with one that does not.
func TestRegistry(t *testing.T) {
	t.Parallel()
	for _, broken := range []error{nil, errors.New("no answer")} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			m := f.task(t, "a")
			w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
				env.Progress(7)
				time.Sleep(time.Minute) //nolint:forbidigo // by the bubble's clock
				env.Progress(3)
				return writes("bytes")(ctx, s, env)
			}))
			r := &fakeRegistry{err: broken}
			w.Registry, w.Version, w.Host, w.Kernel, w.Slots, w.Grace = r, "v1", "host", "scalar", 2, time.Hour
			begin := time.Now()
			stop := start(t, w)
			synctest.Wait()
			if i := r.last(); i.Name != "alice" || i.Version != "v1" || i.Host != "host" || i.Kernel != "scalar" || i.Slots != 2 || i.Memory != 1<<30 ||
				strings.Join(i.Ops, " ") != "test@1" || strings.Join(i.Classes, " ") != operation.ClassF32 || i.Draining || !i.Started.Equal(begin) || len(i.Tasks) != 0 {
				t.Errorf("entry %+v", i)
			}
			time.Sleep(10 * time.Second) //nolint:forbidigo // by the bubble's clock
			d := f.queue.offer(m, 1)
			time.Sleep(2 * time.Second) //nolint:forbidigo // by the bubble's clock
			if i := r.last(); len(i.Tasks) != 1 || i.Tasks[0].ID != m.ID || i.Tasks[0].Run != "run" || i.Tasks[0].Bytes != 7 || i.Tasks[0].Attempt == "" {
				t.Errorf("entry %+v of a worker at a task", i)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); stop() }()
			time.Sleep(2 * time.Second) //nolint:forbidigo // by the bubble's clock
			if i := r.last(); !i.Draining || len(i.Tasks) != 1 {
				t.Errorf("entry %+v of a worker that ends", i)
			}
			if fate := d.wait(t); fate != "done" {
				t.Errorf("delivery was %s", fate)
			}
			<-ended
			if len(r.gone) != 1 || r.gone[0] != "alice" {
				t.Errorf("taken off: %q", r.gone)
			}
			for i := 1; i < len(r.at); i++ {
				if gap := r.at[i].Sub(r.at[i-1]); gap > registerEvery+registerLeast || gap < registerLeast {
					t.Errorf("entry written after %v", gap)
				}
			}
			i := r.last()
			b, err := i.Encode()
			if err != nil || len(b) == 0 {
				t.Error(err)
			}
		})
	}
}

// TestManyShortTasks does not write the registry more often than people can read.
func TestManyShortTasks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // by the bubble's clock
			env.Progress(5)
			return writes("bytes")(ctx, s, env)
		}))
		r := &fakeRegistry{}
		w.Registry = r
		begin := time.Now()
		stop := start(t, w)
		for i := range 300 {
			f.queue.offer(f.task(t, string(rune('a'+i))), 1).wait(t)
		}
		seconds := int(time.Since(begin)/time.Second) + 1
		if n := r.count(); n > seconds+1 || n < seconds-1 {
			t.Errorf("%d entries in %d seconds", n, seconds)
		}
		time.Sleep(registerEvery) //nolint:forbidigo // by the bubble's clock
		if i := r.last(); i.Done != 300 || i.Bytes != 1500 {
			t.Errorf("entry %+v", i)
		}
		stop()
	})
}

// TestClassesThatFail: a machine that makes other bytes serves nobody in that class.
func TestClassesThatFail(t *testing.T) {
	t.Parallel()
	broken := errors.New("planted")
	fails := func(classes ...string) func(context.Context, string) error {
		return func(_ context.Context, class string) error {
			for _, c := range classes {
				if c == class {
					return broken
				}
			}
			return nil
		}
	}
	f := newFleet()
	w := f.worker("alice", writes("bytes"))
	w.Classes = []string{"bf16@1", operation.ClassF32}
	w.SelfTest = fails("bf16@1")
	r := &fakeRegistry{}
	w.Registry = r
	stop := start(t, w)
	if fate := f.queue.offer(f.task(t, "a"), 1).wait(t); fate != "done" {
		t.Errorf("delivery was %s", fate)
	}
	other := f.task(t, "b")
	other.Class = "bf16@1"
	left := f.queue.offer(other, 1)
	stop()
	if left.fate != "" {
		t.Errorf("a task of the class that failed was %s", left.fate)
	}
	if c := r.last().Classes; len(c) != 1 || c[0] != operation.ClassF32 {
		t.Errorf("the registry says %q", c)
	}
	w = f.worker("bob", writes("bytes"))
	w.SelfTest = fails(operation.ClassF32)
	if err := w.Run(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "no numeric class") {
		t.Errorf("a worker that can serve nothing: %v", err)
	}
}

// TestRealSelfTest starts a worker as a fleet does.
func TestRealSelfTest(t *testing.T) {
	t.Parallel()
	f := newFleet()
	w := f.worker("alice", writes("bytes"))
	w.SelfTest = func(ctx context.Context, class string) error { return operation.SelfTest(ctx, class, w.Kernel) }
	defer start(t, w)()
	if fate := f.queue.offer(f.task(t, "a"), 1).wait(t); fate != "done" {
		t.Errorf("delivery was %s", fate)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a.b", "a/b", "*", strings.Repeat("x", 65)} {
		if err := newFleet().worker(name, writes("")).Run(t.Context()); !errors.Is(err, task.ErrInvalid) {
			t.Errorf("worker %q: %v", name, err)
		}
	}
}
