package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// within says whether a delay is least, with some chance on top.
func within(after, least time.Duration) bool { return after >= least && after <= least+least/2 }

// TestTasksForOthersAreGivenBack: nothing is held against them, however often they come.
func TestTasksForOthersAreGivenBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(m *task.Message, d *fakeDelivery)
		after  time.Duration
		says   string // in the log, once
	}{
		{"unknown operation", func(m *task.Message, _ *fakeDelivery) { m.Op = "other@1" }, later, "other@1"},
		{"newer operation", func(m *task.Message, _ *fakeDelivery) { m.Op = "test@2" }, later, "test@2"},
		{"unknown class", func(m *task.Message, _ *fakeDelivery) { m.Class = "bf16@1" }, later, "bf16@1"},
		{"newer message", func(_ *task.Message, d *fakeDelivery) { d.message, d.err = nil, fmt.Errorf("x: %w", task.ErrNewer) }, later, "newer"},
		{"too big", func(m *task.Message, _ *fakeDelivery) { m.Memory = 1<<30 + 1 }, later, "memory"},
		{"for somebody else", func(m *task.Message, _ *fakeDelivery) { m.Avoid = "alice" }, soon, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				f.queue.blind = true
				m := f.task(t, "a")
				var log text
				w := f.worker("alice", writes("bytes"))
				w.Log = slog.New(slog.NewTextHandler(&log, nil))
				stop := start(t, w)
				begin := time.Now()
				for n := range 50 {
					d := &fakeDelivery{queue: f.queue, message: m, attempt: n + 1, ended: make(chan struct{})}
					c.change(m, d)
					f.queue.add(d)
					if fate := d.wait(t); fate != "retry" || !within(d.after, c.after) {
						t.Fatalf("delivery %d was %s after %v", n+1, fate, d.after)
					}
				}
				// What it cannot do at all it does not take one after another.
				if took := time.Since(begin); c.after == later && took < 49*soon || c.after == soon && took > soon {
					t.Errorf("50 tasks were taken and given back in %v", took)
				}
				stop()
				if n := len(f.queue.notices) + len(f.keys(t, "runs/")); n != 0 {
					t.Errorf("%d notices and objects tell of it", n)
				}
				if c.says != "" && strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), c.says) {
					t.Errorf("log: %s", log.String())
				}
			})
		})
	}
}

// text is a log.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestUnknownOperationOfASpec is that of a coordinator that does not name operations.
func TestUnknownOperationOfASpec(t *testing.T) {
	t.Parallel()
	f := newFleet()
	w := f.worker("alice", nil)
	w.Operations = map[string]operation.Operation{"other@1": writes("")}
	defer start(t, w)()
	m := f.task(t, "a")
	d := f.queue.offer(m, 9)
	if fate := d.wait(t); fate != "retry" || !within(d.after, later) {
		t.Errorf("delivery was %s after %v", fate, d.after)
	}
	if left := f.keys(t, "runs/"); len(left) != 0 {
		t.Errorf("in the store: %q", left)
	}
}

// TestHostileMessages: what no coordinator sends is refused before it becomes part of
// a key or a path.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	f := newFleet()
	f.queue.blind = true
	w := f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
		t.Error("the task was begun")
		return nil
	}))
	w.Operations["second@1"] = w.Operations["test@1"]
	defer start(t, w)()
	for name, change := range map[string]func(m *task.Message, d *fakeDelivery){
		"more than the cell":  func(m *task.Message, d *fakeDelivery) { m.Memory = 100 << 20; d.cell = cell(64 << 20) },
		"less than the cell":  func(m *task.Message, d *fakeDelivery) { m.Memory = 1; d.cell = cell(512 << 20) },
		"cell of other class": func(_ *task.Message, d *fakeDelivery) { d.cell = &queue.Cell{Class: "f64@1", Memory: 64 << 20} },
		"negative":            func(m *task.Message, _ *fakeDelivery) { m.Memory = -1 },
		"repair":              func(m *task.Message, _ *fakeDelivery) { m.Repair = "../../x" },
		"audit":               func(m *task.Message, _ *fakeDelivery) { m.Copy, m.Audit = task.CopyAudit, "a/b" },
		"file above":          func(m *task.Message, _ *fakeDelivery) { m.Files = []task.File{{Name: "../x"}} },
		"absolute file":       func(m *task.Message, _ *fakeDelivery) { m.Files = []task.File{{Name: "/etc/passwd"}} },
		"file of Windows":     func(m *task.Message, _ *fakeDelivery) { m.Files = []task.File{{Name: `..\x`}} },
		"no file":             func(m *task.Message, _ *fakeDelivery) { m.Files = []task.File{{}} },
		"file below nothing":  func(m *task.Message, _ *fakeDelivery) { m.Files = []task.File{{Name: "a", Size: -1}} },
		"too many files":      func(m *task.Message, _ *fakeDelivery) { m.Files = slices.Repeat([]task.File{{Name: "a"}}, maxFiles+1) },
		"another operation":   func(m *task.Message, _ *fakeDelivery) { m.Op = "second@1" },
	} {
		m := f.task(t, name)
		d := &fakeDelivery{queue: f.queue, message: m, attempt: 1, ended: make(chan struct{})}
		change(m, d)
		f.queue.add(d)
		if fate := d.wait(t); fate != "abandon" || d.reason != string(task.Invalid) {
			t.Errorf("%s: delivery was %s for %s", name, fate, d.reason)
		}
		if failed := f.failures(t, m); len(failed) != 1 || failed[0].Kind != task.Invalid {
			t.Errorf("%s: failures %+v", name, failed)
		}
	}
	for _, run := range []string{"", "../tasks", "other/run", "*"} {
		m := f.task(t, "run")
		m.Run = run
		if fate := f.queue.offer(m, 1).wait(t); fate != "abandon" {
			t.Errorf("message of run %q was %s", m.Run, fate)
		}
	}
	if fate := f.queue.offer(nil, 1).wait(t); fate != "abandon" {
		t.Errorf("an unreadable message was %s", fate)
	}
	for _, key := range f.keys(t, "") {
		if !strings.HasPrefix(key, "tasks/") && !strings.HasPrefix(key, "runs/run/failures/") {
			t.Errorf("in the store: %s", key)
		}
	}
}

func cell(memory int64) *queue.Cell { return &queue.Cell{Class: operation.ClassF32, Memory: memory} }

// TestHostileSpecs: a spec is what its name says, or it is not there.
func TestHostileSpecs(t *testing.T) {
	t.Parallel()
	f := newFleet()
	defer start(t, f.worker("alice", writes("bytes")))()
	for name, c := range map[string]struct {
		spec *task.Spec
		text string // in place of the spec
		kind task.Kind
		says string
	}{
		"other class": {&task.Spec{Op: "test@1", Class: "bf16@1", Params: []byte(`1`)}, "", task.Invalid, "bf16@1"},
		"damaged":     {&task.Spec{Op: "test@1", Class: operation.ClassF32, Params: []byte(`2`)}, "{}", task.Transient, "damaged"},
		"gone":        {&task.Spec{Op: "test@1", Class: operation.ClassF32, Params: []byte(`3`)}, "-", task.Transient, "does not exist"},
	} {
		id, body, err := c.spec.ID()
		if err != nil {
			t.Fatal(err)
		}
		if c.text != "-" {
			if c.text != "" {
				body = []byte(c.text)
			}
			f.put(t, task.SpecKey(id), string(body))
		}
		m := &task.Message{ID: id, Run: "run", Class: operation.ClassF32}
		d := f.queue.offer(m, 1)
		if fate := d.wait(t); fate != "abandon" || d.reason != string(c.kind) {
			t.Errorf("%s: delivery was %s for %s, want %s", name, fate, d.reason, c.kind)
		}
		if failed := f.failures(t, m); len(failed) != 1 || !strings.Contains(failed[0].Message, c.says) {
			t.Errorf("%s: failures %+v do not say %q", name, failed, c.says)
		}
	}
}

// TestOutputNames: an operation's outputs stay below their attempt.
func TestOutputNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", "a/b", "../result.json", "/x"} {
		f := newFleet()
		m := f.task(t, "a")
		stop := start(t, f.worker("alice", opFunc(func(ctx context.Context, _ *task.Spec, env *operation.Env) error {
			return env.Put(ctx, name, strings.NewReader("x"), 1)
		})))
		if fate := f.queue.offer(m, 1).wait(t); fate != "abandon" {
			t.Errorf("output %q: delivery was %s", name, fate)
		}
		stop()
		if left := f.keys(t, "tasks/"); len(left) != 1 {
			t.Errorf("output %q: in the store %q", name, left)
		}
	}
}

// TestOneAttemptAtATimeHere: a second copy of a task that this worker is at, or the
// same message again, is given back.
func TestOneAttemptAtATimeHere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "a")
		begun, gate := make(chan struct{}), make(chan struct{})
		w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
			close(begun)
			<-gate
			return writes("bytes")(ctx, s, env)
		}))
		w.Slots = 2
		defer start(t, w)()
		first := f.queue.offer(m, 1)
		<-begun
		twin := *m
		twin.Copy = task.CopyTwin
		for _, d := range []*fakeDelivery{f.queue.offer(m, 2), f.queue.offer(&twin, 1)} {
			if fate := d.wait(t); fate != "retry" || !within(d.after, soon) {
				t.Errorf("delivery was %s after %v", fate, d.after)
			}
		}
		close(gate)
		if fate := first.wait(t); fate != "done" {
			t.Errorf("first delivery was %s", fate)
		}
		synctest.Wait()
		for _, late := range []*task.Message{m, &twin} {
			if fate := f.queue.offer(late, 3).wait(t); fate != "done" {
				t.Errorf("delivery of a finished task was %s", fate)
			}
			synctest.Wait()
		}
		if s := f.states(t, m); s != task.AttemptDone {
			t.Errorf("attempts %s", s)
		}
	})
}

// TestTwin has two workers at a task: the second result is late, and says so.
func TestTwin(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	begun, gate := make(chan struct{}), make(chan struct{})
	stopA := start(t, f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
		close(begun)
		<-gate
		return writes("bytes")(ctx, s, env)
	})))
	defer stopA()
	first := f.queue.offer(m, 1)
	<-begun
	twin := *m
	twin.Copy, twin.Avoid = task.CopyTwin, "alice"
	stopB := start(t, f.worker("bob", writes("bytes")))
	defer stopB()
	if fate := f.queue.offer(&twin, 1).wait(t); fate != "done" {
		t.Errorf("twin was %s", fate)
	}
	close(gate)
	if fate := first.wait(t); fate != "done" {
		t.Errorf("straggler was %s", fate)
	}
	stopA()
	stopB()
	if r := f.result(t, m.ID); r == nil || r.Worker != "bob" {
		t.Errorf("result %+v", r)
	}
	if s := f.states(t, m); s != "late done" {
		t.Errorf("attempts %s", s)
	}
	if keys := f.keys(t, task.Prefix(m.ID)); len(keys) != 3 {
		t.Errorf("in the store: %q", keys)
	}
}
