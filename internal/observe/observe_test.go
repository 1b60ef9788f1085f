package observe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/telemetry"
	"github.com/shardpress/shardpress/internal/telemetry/otlptest"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/worker"
)

const class, op = operation.ClassF32, "write@1"

// writes is an operation with one small output.
type writes struct{}

func (writes) Run(ctx context.Context, _ *task.Spec, env *operation.Env) ([]task.Consumed, error) {
	env.Progress(11)
	return nil, env.Put(ctx, "o", strings.NewReader("bytes"), 5)
}

func connect(t *testing.T, o queue.Options) *queue.Queue {
	t.Helper()
	b, err := queue.StartEmbedded(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	q, err := b.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	if err := q.Setup(t.Context(), class); err != nil {
		t.Fatal(err)
	}
	return q
}

func start(t *testing.T, getenv func(string) string, listen string) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Start(t.Context(), telemetry.Options{Service: "test", Getenv: getenv, MetricsListen: listen, Stderr: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tel.Shutdown(context.Background()) })
	return tel
}

// TestRedelivery goes through a real broker: a worker takes a task and is never heard
// of again, and another one does it.
func TestRedelivery(t *testing.T) {
	t.Parallel()
	sink := otlptest.Start(t)
	tel := start(t, sink.Getenv(otlptest.GRPC), "")
	q := connect(t, queue.Options{AckWait: 500 * time.Millisecond})
	store := objstore.NewMem()

	spec := &task.Spec{Op: op, Class: class, Params: []byte("{}")}
	id, canonical, err := spec.ID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), task.SpecKey(id), bytes.NewReader(canonical), int64(len(canonical)), objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	run := ulid.Make().String()
	m := &task.Message{ID: id, Run: run, Class: class, Op: op, Memory: 1 << 20}
	ctx, published := tel.Run(run).Published(t.Context(), m, telemetry.ReasonFirst)
	err = q.Publish(ctx, m)
	published(err == nil, err)
	if err != nil {
		t.Fatal(err)
	}

	// The worker that dies.
	d, err := q.Next(t.Context(), func() []queue.Cell { return queue.Ladder(class, 1<<30) })
	if err != nil {
		t.Fatal(err)
	}
	dies, err := tel.Worker("dies", 1<<30, 1)
	if err != nil {
		t.Fatal(err)
	}
	Worker(dies).Attempt(d.Context(t.Context()), m, d)

	does, err := tel.Worker("does", 1<<30, 1)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker.Worker{
		Name: "does", Queue: q, Registry: Registry(does, q), Store: tel.Bucket(store), Operations: map[string]operation.Operation{op: writes{}},
		Classes: []string{class}, Slots: 1, Memory: 1 << 30, Observer: Worker(does), Log: slog.New(slog.DiscardHandler),
	}
	work, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(work) }()
	spans := sink.Wait(t, func(s []otlptest.Span) bool {
		return slices.ContainsFunc(s, func(s otlptest.Span) bool { return strings.HasPrefix(s.Name, "process") })
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	by := map[string][]otlptest.Span{}
	for _, s := range spans {
		if s.Trace != telemetry.RunTraceID(run).String() {
			t.Errorf("%q is in trace %s", s.Name, s.Trace)
		}
		by[s.Name] = append(by[s.Name], s)
	}
	send, claimed, process := by["send task.write"], by["claimed task.write"], by["process task.write"]
	if len(send) != 1 || len(claimed) != 2 || len(process) != 1 {
		t.Fatalf("%d publishes, %d claims, %d attempts", len(send), len(claimed), len(process))
	}
	for i, name := range []string{"dies", "does"} {
		if c := claimed[i]; c.Parent != send[0].ID || c.Attributes["worker.name"] != name {
			t.Errorf("claim %d: %+v", i, c)
		}
	}
	p := process[0]
	if p.Parent != send[0].ID || !slices.Equal(p.Links, []string{send[0].ID}) || p.Attributes["outcome"] != task.AttemptDone ||
		p.Attributes["bytes"] != "11" || p.Attributes["messaging.nats.delivery_count"] != "2" || p.Attributes["attempt.id"] == "" {
		t.Errorf("attempt: %+v", p)
	}
}

// still is a queue that holds the same all the time.
type still struct {
	states  []queue.CellState
	workers []*task.WorkerInfo
	err     error
}

func (s still) Backlog(context.Context) ([]queue.CellState, error) { return s.states, s.err }

func (s still) Workers(context.Context) ([]*task.WorkerInfo, error) { return s.workers, s.err }

func TestBacklog(t *testing.T) {
	t.Parallel()
	small := queue.Cell{Class: class, Memory: 1 << 30}
	q := still{
		states: []queue.CellState{
			{Cell: queue.Cell{Class: class, Chain: true, Memory: 4 << 30}, Waiting: 1},
			{Cell: small, Waiting: 2, InFlight: 3, Oldest: time.Minute},
			{Cell: queue.Cell{Class: "bf16@1", Memory: 1 << 30}, Waiting: 9},
		},
		workers: []*task.WorkerInfo{
			{Name: "a", Classes: []string{class}, Memory: 8 << 30},
			{Name: "b", Classes: []string{class}, Memory: 1 << 30},
			{Name: "c", Classes: []string{class}, Memory: 8 << 30, Draining: true},
		},
	}
	cells, err := Backlog(q)(t.Context())
	want := []telemetry.Cell{
		{Class: class, Memory: "m4096", Chain: true, Waiting: 1, Workers: 1},
		{Class: class, Memory: "m1024", Waiting: 2, InFlight: 3, Oldest: time.Minute, Workers: 2},
		{Class: "bf16@1", Memory: "m1024", Waiting: 9},
	}
	if err != nil || !slices.Equal(cells, want) {
		t.Errorf("%+v, %v", cells, err)
	}
	q.err = errors.New("no broker")
	if _, err := Backlog(q)(t.Context()); !errors.Is(err, q.err) {
		t.Errorf("error of the queue: %v", err)
	}
}

// TestScrapedQueue measures a real queue.
func TestScrapedQueue(t *testing.T) {
	t.Parallel()
	tel := start(t, func(string) string { return "" }, "127.0.0.1:0")
	q := connect(t, queue.Options{})
	if err := tel.ObserveBacklog(Backlog(q)); err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(t.Context(), &task.Message{Run: "R", Class: class, Memory: 100 << 20}); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tel.MetricsAddr()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if want := `shardpress_queue_waiting{class="f32@1",memory="m128",rank="bulk"} 1`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("no %s in (%v)\n%s", want, err, b)
	}
}

// TestRegistryOfNobody is of a fleet in one process.
func TestRegistryOfNobody(t *testing.T) {
	t.Parallel()
	w, err := telemetry.Off().Worker("w", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := Registry(w, nil)
	if err := errors.Join(r.Register(t.Context(), &task.WorkerInfo{}), r.Unregister(t.Context(), "w")); err != nil {
		t.Error(err)
	}
}
