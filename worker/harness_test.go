package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// fakeQueue offers what a test puts into it, the first that fits, and notes what
// becomes of it.
type fakeQueue struct {
	mu      sync.Mutex
	waiting []*fakeDelivery
	changed chan struct{} // closed and replaced when something is offered
	notices []*task.Notice
}

func newQueue() *fakeQueue { return &fakeQueue{changed: make(chan struct{})} }

func (q *fakeQueue) offer(m *task.Message, attempt int) *fakeDelivery {
	d := &fakeDelivery{queue: q, message: m, attempt: attempt, ended: make(chan struct{})}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, d)
	close(q.changed)
	q.changed = make(chan struct{})
	return d
}

func (q *fakeQueue) Next(ctx context.Context, cells func() []queue.Cell) (queue.Delivery, error) {
	for {
		q.mu.Lock()
		changed := q.changed
		for i, d := range q.waiting {
			var memory int64
			if d.message != nil {
				memory = d.message.Memory
			}
			cell, err := queue.CellOf(operation.ClassF32, memory)
			if err == nil && slices.Contains(cells(), cell) {
				q.waiting = slices.Delete(q.waiting, i, i+1)
				q.mu.Unlock()
				return d, nil
			}
		}
		q.mu.Unlock()
		timer := time.NewTimer(time.Second) // cells grow when tasks end
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (q *fakeQueue) Notify(n *task.Notice) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notices = append(q.notices, n)
	return nil
}

// news are the notices of a state.
func (q *fakeQueue) news(state string) []*task.Notice {
	q.mu.Lock()
	defer q.mu.Unlock()
	var found []*task.Notice
	for _, n := range q.notices {
		if n.State == state {
			found = append(found, n)
		}
	}
	return found
}

type fakeDelivery struct {
	queue   *fakeQueue
	message *task.Message // nil: it cannot be read
	attempt int

	mu      sync.Mutex
	fate    string // "done", "retry", "abandon"
	reason  string
	after   time.Duration
	extends int
	ended   chan struct{}
}

func (d *fakeDelivery) Message() (*task.Message, error) {
	if d.message == nil {
		return nil, errors.New("no message")
	}
	return d.message, nil
}

func (d *fakeDelivery) Attempt() int { return d.attempt }

func (d *fakeDelivery) Extend() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.extends++
	return nil
}

func (d *fakeDelivery) end(fate, reason string, after time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fate != "" {
		return errors.New("delivery has come to its end before: " + d.fate)
	}
	d.fate, d.reason, d.after = fate, reason, after
	close(d.ended)
	return nil
}

func (d *fakeDelivery) Done(context.Context) error      { return d.end("done", "", 0) }
func (d *fakeDelivery) Retry(after time.Duration) error { return d.end("retry", "", after) }
func (d *fakeDelivery) Abandon(reason string) error     { return d.end("abandon", reason, 0) }

// wait returns what became of the delivery.
func (d *fakeDelivery) wait(t *testing.T) string {
	t.Helper()
	select {
	case <-d.ended:
	case <-t.Context().Done():
		t.Fatal("the delivery has come to no end")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fate
}

// opFunc is an operation of a test.
type opFunc func(ctx context.Context, spec *task.Spec, env *operation.Env) error

func (f opFunc) Run(ctx context.Context, spec *task.Spec, env *operation.Env) ([]task.Consumed, error) {
	return nil, f(ctx, spec, env)
}

// writes is an operation that makes one output.
func writes(text string) opFunc {
	return func(ctx context.Context, _ *task.Spec, env *operation.Env) error {
		return env.Put(ctx, "o", strings.NewReader(text), int64(len(text)))
	}
}

// fleet is a store, a queue, and workers that run on them until the test ends.
type fleet struct {
	store objstore.Bucket
	queue *fakeQueue
}

func newFleet() *fleet { return &fleet{store: objstore.NewMem(), queue: newQueue()} }

// task stores the spec of a task and returns its message.
func (f *fleet) task(t *testing.T, name string) *task.Message {
	t.Helper()
	spec := &task.Spec{Op: "test@1", Class: operation.ClassF32, Params: []byte(`"` + name + `"`)}
	id, text, err := spec.ID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Put(t.Context(), task.SpecKey(id), bytes.NewReader(text), int64(len(text)), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return &task.Message{ID: id, Run: "run", Class: operation.ClassF32, Memory: 1 << 20}
}

func (f *fleet) worker(name string, op operation.Operation) *Worker {
	return &Worker{
		Name: name, Queue: f.queue, Store: f.store, Operations: map[string]operation.Operation{"test@1": op}, Class: operation.ClassF32,
		Slots: 1, Memory: 1 << 30, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// start runs a worker until stop is called, which waits for it.
func start(t *testing.T, w *Worker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var once sync.Once
	return func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("worker %s: %v", w.Name, err)
			}
		})
	}
}

func (f *fleet) result(t *testing.T, id task.ID) *task.Result {
	t.Helper()
	b, err := objstore.ReadAll(t.Context(), f.store, task.ResultKey(id), task.MaxResult)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := task.ParseResult(id, b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// keys lists the store.
func (f *fleet) keys(t *testing.T, prefix string) []string {
	t.Helper()
	var all []string
	for info, err := range f.store.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Key)
	}
	return all
}
