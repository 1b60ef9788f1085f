package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

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
	blind   bool // offers what does not fit
}

func newQueue() *fakeQueue { return &fakeQueue{changed: make(chan struct{})} }

func (q *fakeQueue) offer(m *task.Message, attempt int) *fakeDelivery {
	d := &fakeDelivery{queue: q, message: m, attempt: attempt, ended: make(chan struct{})}
	q.add(d)
	return d
}

func (q *fakeQueue) add(d *fakeDelivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, d)
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *fakeQueue) Next(ctx context.Context, cells func() []queue.Cell) (queue.Delivery, error) {
	for {
		q.mu.Lock()
		changed := q.changed
		for i, d := range q.waiting {
			if q.blind || slices.Contains(cells(), d.Cell()) {
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
	err     error       // why it cannot be read
	cell    *queue.Cell // if it is not the message's

	mu      sync.Mutex
	fate    string // "done", "retry", "abandon"
	reason  string
	after   time.Duration
	extends int
	ended   chan struct{}
}

func (d *fakeDelivery) Message() (*task.Message, error) {
	if d.message == nil {
		return nil, cmp.Or(d.err, errors.New("no message"))
	}
	return d.message, nil
}

func (d *fakeDelivery) Cell() queue.Cell {
	if d.cell != nil {
		return *d.cell
	}
	m := d.message
	if m == nil {
		m = &task.Message{Class: operation.ClassF32}
	}
	c, err := queue.CellOf(m)
	if err != nil {
		panic(err)
	}
	return c
}

// traceKey is what a test's message brings along.
type traceKey struct{}

func (d *fakeDelivery) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, traceKey{}, "trace")
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
		Name: name, Queue: f.queue, Store: f.store, Operations: map[string]operation.Operation{"test@1": op}, Classes: []string{operation.ClassF32},
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

// records are the records of attempts at a task, by time.
func (f *fleet) records(t *testing.T, m *task.Message) []*task.AttemptRecord {
	t.Helper()
	var all []*task.AttemptRecord
	for _, key := range f.keys(t, task.AttemptPrefix(m.Run, m.ID)) {
		b, err := objstore.ReadAll(t.Context(), f.store, key, task.MaxAttempt)
		if err != nil {
			t.Fatal(err)
		}
		r, err := task.ParseAttempt(m.ID, b)
		if err != nil {
			t.Fatal(err)
		}
		if task.AttemptKey(m.Run, m.ID, r.Attempt) != key {
			t.Errorf("record of attempt %s at key %s", r.Attempt, key)
		}
		all = append(all, r)
	}
	return all
}

// states are those of a task's attempts, by time.
func (f *fleet) states(t *testing.T, m *task.Message) string {
	t.Helper()
	var all []string
	for _, r := range f.records(t, m) {
		all = append(all, r.State)
	}
	return strings.Join(all, " ")
}

// died leaves the record of an attempt whose worker died.
func (f *fleet) died(t *testing.T, m *task.Message, r task.AttemptRecord) {
	t.Helper()
	r.ID, r.Attempt = m.ID, ulid.Make().String()
	if r.State == "" {
		r.State = task.AttemptStarted
	}
	if r.Memory == 0 {
		cell, err := queue.CellOf(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Memory = cell.Memory
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, task.AttemptKey(m.Run, m.ID, r.Attempt), string(b))
}

func (f *fleet) put(t *testing.T, key, text string) {
	t.Helper()
	if _, err := f.store.Put(t.Context(), key, strings.NewReader(text), int64(len(text)), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// failures are those stored of a task.
func (f *fleet) failures(t *testing.T, m *task.Message) []*task.Failure {
	t.Helper()
	var all []*task.Failure
	for _, key := range f.keys(t, task.FailurePrefix(m.Run, m.ID)) {
		b, err := objstore.ReadAll(t.Context(), f.store, key, task.MaxFailure)
		if err != nil {
			t.Fatal(err)
		}
		x, err := task.ParseFailure(m.ID, b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	return all
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

// faulty fails calls, before or after they are done.
type faulty struct {
	objstore.Bucket
	put    func(key string) bool
	get    func(key string) bool
	list   func(prefix string) bool
	remove func(key string) bool
	after  bool
	err    error
	times  atomic.Int64 // how often it still does
}

func broken(b objstore.Bucket, times int64, put func(key string) bool) *faulty {
	f := &faulty{Bucket: b, put: put, err: errors.New("timeout")}
	f.times.Store(times)
	return f
}

func ends(suffix string) func(string) bool {
	return func(key string) bool { return strings.HasSuffix(key, suffix) }
}

func has(part string) func(string) bool {
	return func(key string) bool { return strings.Contains(key, part) }
}

func (b *faulty) hit(which func(string) bool, key string) bool {
	return which != nil && which(key) && b.times.Add(-1) >= 0
}

func (b *faulty) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if !b.hit(b.put, key) {
		return b.Bucket.Put(ctx, key, r, size, o)
	}
	if b.after {
		if _, err := b.Bucket.Put(ctx, key, r, size, o); err != nil {
			return objstore.Info{}, err
		}
	}
	return objstore.Info{}, b.err
}

func (b *faulty) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if b.hit(b.get, key) {
		return nil, b.err
	}
	return b.Bucket.Get(ctx, key, off, n)
}

func (b *faulty) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	if b.hit(b.list, prefix) {
		return func(yield func(objstore.Info, error) bool) { yield(objstore.Info{}, b.err) }
	}
	return b.Bucket.List(ctx, prefix)
}

func (b *faulty) Delete(ctx context.Context, key string) error {
	if b.hit(b.remove, key) {
		return b.err
	}
	return b.Bucket.Delete(ctx, key)
}
