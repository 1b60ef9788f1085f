package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
	"github.com/shardpress/shardpress/worker"
)

const (
	story    = "../../testdata/models/story"
	preset   = "w4a16-rtn"
	patience = 60 * time.Second // for what takes a second
	pollGap  = 5 * time.Millisecond
)

// world is a broker, a store with the story model in it, and whoever joins.
type world struct {
	t      *testing.T
	dir    string // of the broker
	broker *queue.Broker
	addr   string // of the broker
	store  objstore.Bucket
	member func() objstore.Bucket // how members reach the store
	queue  *queue.Queue           // of the client
	client *fleet.Client
	source string
	recipe *recipe.Recipe
	plan   *coordinator.Plan
}

// quick are times for tests: who is silent for a second is dead.
func quick(addr, name string) queue.Options {
	return queue.Options{URL: "nats://" + addr, Name: name, AckWait: time.Second, RegistryTTL: 2 * time.Second, LeaseTTL: 2 * time.Second}
}

// newWorld begins with a directory as its store.
func newWorld(t *testing.T) *world {
	t.Helper()
	d, err := objstore.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, d, func() objstore.Bucket { return d })
}

// newWorldOn uploads the model to store, which members reach by what member gives.
func newWorldOn(t *testing.T, store objstore.Bucket, member func() objstore.Bucket) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), store: store, member: member}
	w.startBroker("127.0.0.1:0")
	t.Cleanup(func() { w.broker.Close() })
	w.queue = w.dial("client", w.addr)
	w.client = &fleet.Client{Store: store, Queue: w.queue, Log: quiet()}
	ck, err := shard.Open(t.Context(), story, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	id, err := shard.Upload(t.Context(), ck, store, func(_, _ int64) {})
	if err != nil {
		t.Fatal(err)
	}
	w.source = source.Uploaded(id)
	if w.recipe, err = recipe.Preset(preset); err != nil {
		t.Fatal(err)
	}
	up, err := (&source.Opener{Store: store, NoHub: true}).Open(t.Context(), w.source)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if w.plan, err = coordinator.NewPlan(up.Manifest, w.recipe, coordinator.PlanOptions{Config: up.Config, Salt: "test"}); err != nil {
		t.Fatal(err)
	}
	return w
}

func quiet() *slog.Logger {
	if os.Getenv("FLEET_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// startBroker starts the broker, anew or again.
func (w *world) startBroker(listen string) {
	w.t.Helper()
	b, err := queue.StartBroker(queue.BrokerOptions{Dir: w.dir, Listen: listen})
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(b.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	w.broker, w.addr = b, u.Host
}

// dial connects to the broker, or to what stands before it.
func (w *world) dial(name, addr string) *queue.Queue {
	w.t.Helper()
	o := quick(addr, name)
	o.Log = quiet().With("member", name)
	q, err := queue.Dial(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(q.Close)
	if err := q.Setup(w.t.Context(), operation.ClassF32); err != nil {
		w.t.Fatal(err)
	}
	return q
}

// member is a coordinator or a worker.
type member struct {
	store *tap
	queue *queue.Queue
	stop  context.CancelFunc
	ended chan struct{}
}

func (w *world) join(name, addr string) *member {
	w.t.Helper()
	return &member{store: &tap{Bucket: w.member()}, queue: w.dial(name, addr), ended: make(chan struct{})}
}

// begin runs the member until it is told to end, at the latest with the test.
func (m *member) begin(t *testing.T, run func(ctx context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	m.stop = stop
	go func() {
		defer close(m.ended)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("member ended: %v", err)
		}
	}()
	t.Cleanup(m.end)
}

// end stops the member in order.
func (m *member) end() {
	m.stop()
	<-m.ended
}

// kill stops it without a word: nothing that it does from now on is seen by anybody.
func (m *member) kill() {
	m.store.die()
	m.queue.Close()
	m.end()
}

func (w *world) coordinator(name string, change ...func(*coordinator.Service, *member)) *member {
	w.t.Helper()
	m := w.join(name, w.addr)
	s := &coordinator.Service{
		Name: name, Store: m.store, Queue: m.queue, Sources: &source.Opener{Store: m.store, NoHub: true}, Salt: "test",
		LookEvery: 300 * time.Millisecond, Log: quiet().With("coordinator", name),
	}
	for _, f := range change {
		f(s, m)
	}
	m.begin(w.t, s.Serve)
	return m
}

func (w *world) worker(name string, change ...func(*worker.Worker, *member)) *member {
	w.t.Helper()
	return w.workerAt(name, w.addr, change...)
}

func (w *world) workerAt(name, addr string, change ...func(*worker.Worker, *member)) *member {
	w.t.Helper()
	m := w.join(name, addr)
	x := &worker.Worker{
		Name: name, Host: name, Version: "test", Queue: m.queue, Registry: m.queue, Store: m.store, Sources: &source.Opener{Store: m.store, NoHub: true},
		Operations: operation.All(), Classes: []string{operation.ClassF32}, Slots: 1, Memory: 1 << 30,
		BeatEvery: 200 * time.Millisecond, MaxRest: 200 * time.Millisecond, Log: quiet().With("worker", name),
	}
	for _, f := range change {
		f(x, m)
	}
	m.begin(w.t, x.Run)
	return m
}

// following is a run that is watched and mirrored.
type following struct {
	w      *world
	run    string
	out    string // directory of the mirror
	ended  chan struct{}
	record *coordinator.Record
	err    error

	mu      sync.Mutex
	updates []coordinator.Update
	more    chan struct{}
}

// submission is what submit submits.
func (w *world) submission() *coordinator.Submission {
	w.t.Helper()
	text, err := w.recipe.Canonical()
	if err != nil {
		w.t.Fatal(err)
	}
	run := coordinator.NewRun()
	return &coordinator.Submission{
		Run: run, Recipe: text, Source: w.source, Out: coordinator.ResultPrefix(run),
		Request: map[string]any{"model": "story", "out": "somewhere", "recipe": preset},
	}
}

func (w *world) submit(change ...func(*coordinator.Submission)) *following {
	w.t.Helper()
	s := w.submission()
	for _, f := range change {
		f(s)
	}
	if err := w.client.Submit(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	return w.follow(s)
}

// follow watches a run and fetches its result.
func (w *world) follow(s *coordinator.Submission) *following {
	f := &following{w: w, run: s.Run, out: filepath.Join(w.t.TempDir(), "out"), ended: make(chan struct{}), more: make(chan struct{})}
	place, err := local.OpenPlace(w.t.Context(), f.out, false, w.store, w.plan)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	mirror := w.client.Mirror(ctx, w.plan, s.Out, place.Bucket)
	go func() {
		defer close(f.ended)
		defer place.Close()
		f.record, f.err = w.client.Watch(ctx, s.Run, fleet.Viewer{Planned: func(*coordinator.Outline) {}, Update: f.note, Placed: mirror.Want})
		if f.err == nil {
			f.err = fleet.Ended(f.record)
		}
		if f.err != nil {
			mirror.Stop()
			return
		}
		if f.err = mirror.Finish(ctx); f.err == nil {
			f.err = place.Finish(ctx)
		}
	}()
	w.t.Cleanup(func() { stop(); <-f.ended })
	return f
}

func (f *following) note(u coordinator.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.updates = append(f.updates, u)
	close(f.more)
	f.more = make(chan struct{})
}

// await waits for an update of that kind.
func (f *following) await(kind string) coordinator.Update {
	f.w.t.Helper()
	ctx, stop := context.WithTimeout(f.w.t.Context(), patience)
	defer stop()
	for seen := 0; ; {
		f.mu.Lock()
		updates, more := f.updates, f.more
		f.mu.Unlock()
		for ; seen < len(updates); seen++ {
			if updates[seen].Kind == kind {
				return updates[seen]
			}
		}
		select {
		case <-more:
		case <-f.ended:
			f.w.t.Fatalf("run %s ended (%v) without %q; it said %+v", f.run, f.err, kind, updates)
		case <-ctx.Done():
			f.w.t.Fatalf("run %s did not say %q in time; it said %+v", f.run, kind, updates)
		}
	}
}

// end waits for the run's end.
func (f *following) end() (*coordinator.Record, error) {
	f.w.t.Helper()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-f.ended:
	case <-t.C:
		f.w.t.Fatalf("run %s does not end; it said %+v", f.run, f.updates)
	}
	return f.record, f.err
}

// well wants the run to end well, with the bytes that one process makes.
func (f *following) well() *coordinator.Record {
	f.w.t.Helper()
	r, err := f.end()
	if err != nil {
		f.w.t.Fatalf("run %s: %v", f.run, err)
	}
	want, err := calm()
	if err != nil {
		f.w.t.Fatal(err)
	}
	if err := same(f.out, want); err != nil {
		f.w.t.Errorf("run %s: %v", f.run, err)
	}
	return r
}

// calm is what one process makes of the model, undisturbed.
var calm = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp("", "calm")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r, err := recipe.Preset(preset)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "out")
	j := &local.Job{Model: story, Recipe: r, Out: out, Workers: 1, Memory: 1 << 30, Salt: "other", Log: slog.New(slog.DiscardHandler)}
	if _, err := local.Run(context.Background(), j); err != nil {
		return nil, err
	}
	return files(out)
})

// files reads every file below a directory.
func files(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		all[name] = string(b)
		return err
	})
	return all, err
}

// same says how a directory differs from what it should be.
func same(dir string, want map[string]string) error {
	got, err := files(dir)
	if err != nil {
		return err
	}
	var errs []error
	for name, b := range want {
		switch have, ok := got[name]; {
		case !ok:
			errs = append(errs, fmt.Errorf("%s is missing", name))
		case have != b:
			errs = append(errs, fmt.Errorf("bytes of %s differ", name))
		}
		delete(got, name)
	}
	for name := range got {
		errs = append(errs, fmt.Errorf("%s should not be there", name))
	}
	return errors.Join(errs...)
}

// until polls what can be seen until it is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(pollGap)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// around runs the operations with something of the test's before or after.
func around(f func(ctx context.Context, spec *task.Spec, env *operation.Env, run operation.Operation) ([]task.Consumed, error)) map[string]operation.Operation {
	all := operation.All()
	for name, op := range all {
		all[name] = wrapped{op, f}
	}
	return all
}

type wrapped struct {
	op operation.Operation
	f  func(ctx context.Context, spec *task.Spec, env *operation.Env, run operation.Operation) ([]task.Consumed, error)
}

func (w wrapped) Run(ctx context.Context, spec *task.Spec, env *operation.Env) ([]task.Consumed, error) {
	return w.f(ctx, spec, env, w.op)
}

// gate holds operations up until it is opened.
type gate struct {
	begun chan task.ID // of each operation that has come to it
	open  chan struct{}
}

func newGate() *gate { return &gate{begun: make(chan task.ID, 1000), open: make(chan struct{})} }

// hold is for a worker. It shows progress as an honest operation does.
func (g *gate) hold(x *worker.Worker, _ *member) {
	x.Operations = around(func(ctx context.Context, spec *task.Spec, env *operation.Env, op operation.Operation) ([]task.Consumed, error) {
		g.begun <- env.Message.ID
		beat := time.NewTicker(pollGap)
		defer beat.Stop()
		for {
			select {
			case <-g.open:
				return op.Run(ctx, spec, env)
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-beat.C:
				env.Progress(0)
			}
		}
	})
}

// held waits until an operation is held up.
func (g *gate) held(t *testing.T) task.ID {
	t.Helper()
	select {
	case id := <-g.begun:
		return id
	case <-time.After(patience):
		t.Fatal("no operation has begun in time")
	}
	return task.ID{}
}
