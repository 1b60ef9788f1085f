package telemetry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/telemetry/otlptest"
	"github.com/shardpress/shardpress/objstore"
)

// process starts the telemetry of one process of a fleet.
func process(t *testing.T, service string, getenv func(string) string) *Telemetry {
	t.Helper()
	tel, err := Start(t.Context(), Options{Service: service, Version: "v0", Getenv: getenv, Stderr: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tel.Shutdown(context.Background()) })
	return tel
}

// travel takes the trace of a context through the headers of a message.
func travel(from context.Context) func() context.Context {
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(from, headers)
	return func() context.Context { return propagation.TraceContext{}.Extract(context.Background(), headers) }
}

func message(run string, n byte) *task.Message {
	return &task.Message{ID: task.ID{n}, Run: run, Class: "f32@1", Op: "encode@1", Memory: 100 << 20}
}

func begin(t *testing.T, tel *Telemetry, name string) *Worker {
	t.Helper()
	w, err := tel.Worker(name, 1<<30, 2)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func named(spans []otlptest.Span, name string) []otlptest.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s otlptest.Span) bool { return s.Name != name })
}

func one(t *testing.T, spans []otlptest.Span, name string) otlptest.Span {
	t.Helper()
	found := named(spans, name)
	if len(found) != 1 {
		t.Fatalf("%d spans %q, want one", len(found), name)
	}
	return found[0]
}

// TestTree plays a run in which a worker dies and a coordinator takes over from
// another, each a process of its own, and looks at what a collector has got.
func TestTree(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{otlptest.GRPC, otlptest.HTTP} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			sink := otlptest.Start(t)
			run := playRun(t, sink.Getenv(protocol))
			checkRun(t, run, sink.Spans())
			if have := sink.Metrics(); !have["shardpress.attempts"] || !have["shardpress.tasks.published"] {
				t.Errorf("metrics that came: %v", have)
			}
		})
	}
}

// playRun has one task delivered twice, to a worker that dies and to one that does
// it. The first coordinator dies too, after the publish.
func playRun(t *testing.T, getenv func(string) string) (run string) {
	t.Helper()
	ctx := t.Context()
	run = ulid.Make().String()
	first, second := process(t, "shardpress-coordinator", getenv), process(t, "shardpress-coordinator", getenv)
	dies, does := process(t, "shardpress-worker", getenv), process(t, "shardpress-worker", getenv)

	r := first.Run(run)
	_, planned := r.Phase(ctx, "plan")
	planned(nil)
	r.Began(ctx, 1, 0)
	m := message(run, 1)
	sent, published := r.Published(ctx, m, ReasonFirst)
	deliver := travel(sent)
	published(true, nil)
	first.Flush(ctx)

	begin(t, dies, "w1").Attempt(deliver(), m, 1) // and it is never heard of again
	dies.Flush(ctx)

	actx, done := begin(t, does, "w2").Attempt(deliver(), m, 2)
	if _, err := does.Bucket(objstore.NewMem()).Put(actx, "k", bytes.NewReader(make([]byte, largeObject)), largeObject, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	done(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1234})
	does.Flush(ctx)

	r = second.Run(run)
	r.Began(ctx, 1, 0)
	_, placed := r.Placed(ctx, m.ID, 77)
	placed(errors.New("put s3://key:secret@host/x: broken"))
	assembling, assembled := r.Phase(ctx, "assemble")
	_, validated := r.Phase(assembling, "validate")
	validated(nil)
	assembled(nil)
	r.Finished(ctx, "done", nil)
	second.Flush(ctx)
	return run
}

func checkRun(t *testing.T, run string, spans []otlptest.Span) {
	t.Helper()
	root := one(t, spans, "run")
	if root.Parent != "" || root.Trace != RunTraceID(run).String() || root.ID != runSpanID(run).String() {
		t.Errorf("root %+v", root)
	}
	if u := ulid.MustParseStrict(run); root.Trace != fmt.Sprintf("%x", u[:]) || !root.Started.Equal(u.Timestamp()) {
		t.Error("the run's name does not tell its trace and its beginning")
	}
	for _, s := range spans {
		if s.Trace != root.Trace {
			t.Errorf("span %q is in trace %s", s.Name, s.Trace)
		}
		if strings.Contains(fmt.Sprint(s), "secret") {
			t.Errorf("span %q tells a password: %v", s.Name, s)
		}
	}
	if n := len(named(spans, "run started")); n != 2 {
		t.Errorf("%d coordinators took the run up, want 2", n)
	}
	for _, name := range []string{"plan", "send task.encode", "place", "assemble"} {
		if s := one(t, spans, name); s.Parent != root.ID {
			t.Errorf("%q is not below the run", name)
		}
	}
	if one(t, spans, "validate").Parent != one(t, spans, "assemble").ID {
		t.Error("a phase within a phase is not its child")
	}
	if s := one(t, spans, "place"); s.Error == "" || len(s.Events) != 1 {
		t.Errorf("the failed placing tells %q, %q", s.Error, s.Events)
	}
	send := one(t, spans, "send task.encode")
	if send.Kind != "PRODUCER" || send.Attributes["messaging.system"] != "nats" || send.Attributes["messaging.operation.type"] != "send" ||
		send.Attributes["messaging.destination.name"] != "task.f32@1.b.m128" {
		t.Errorf("publish: %+v", send)
	}
	claimed := named(spans, "claimed task.encode")
	if len(claimed) != 2 {
		t.Fatalf("%d claims, want 2", len(claimed))
	}
	for i, s := range claimed {
		if s.Parent != send.ID || s.Attributes["messaging.nats.delivery_count"] != fmt.Sprint(i+1) || s.Attributes["worker.name"] != fmt.Sprint("w", i+1) {
			t.Errorf("claim %d: %+v", i, s)
		}
	}
	p := one(t, spans, "process task.encode") // the other one died with its worker
	if p.Kind != "CONSUMER" || p.Parent != send.ID || !slices.Equal(p.Links, []string{send.ID}) || p.Service != "shardpress-worker" {
		t.Errorf("attempt: %+v", p)
	}
	for k, v := range map[string]string{
		"run.id": run, "task.id": (task.ID{1}).String(), "worker.name": "w2", "task.op": "encode@1", "outcome": "done", "bytes": "1234",
		"messaging.nats.delivery_count": "2", "messaging.operation.type": "process",
	} {
		if p.Attributes[k] != v {
			t.Errorf("attempt: %s is %q, want %q", k, p.Attributes[k], v)
		}
	}
	if len(p.Events) != 1 || !strings.HasPrefix(p.Events[0], "store put") {
		t.Errorf("a large write is not told of: %q", p.Events)
	}
}

// TestRedeliveriesAreSiblings has both deliveries come to an end.
func TestRedeliveriesAreSiblings(t *testing.T) {
	t.Parallel()
	sink := otlptest.Start(t)
	tel := process(t, "shardpress", sink.Getenv(otlptest.GRPC))
	run := ulid.Make().String()
	m := message(run, 1)
	sent, published := tel.Run(run).Published(t.Context(), m, ReasonFirst)
	published(true, nil)
	deliver := travel(sent)
	w := begin(t, tel, "w")
	_, end1 := w.Attempt(deliver(), m, 1)
	_, end2 := w.Attempt(deliver(), m, 2)
	end2(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1})
	end1(AttemptEnd{Attempt: "A", Outcome: task.AttemptFailed, Err: errors.New("late"), Bytes: 0})
	tel.Flush(t.Context())
	send := one(t, sink.Spans(), "send task.encode")
	ps := named(sink.Spans(), "process task.encode")
	if len(ps) != 2 || ps[0].Parent != send.ID || ps[1].Parent != send.ID || ps[0].ID == ps[1].ID {
		t.Errorf("deliveries: %+v", ps)
	}
}

// TestLargeRun has a trace for each task, linked to the run.
func TestLargeRun(t *testing.T) {
	t.Parallel()
	sink := otlptest.Start(t)
	tel := process(t, "shardpress", sink.Getenv(otlptest.HTTP))
	run := ulid.Make().String()
	r := tel.Run(run)
	r.Began(t.Context(), maxInTree+1, 0)
	m := message(run, 9)
	sent, published := r.Published(t.Context(), m, ReasonFirst)
	published(true, nil)
	_, end := begin(t, tel, "w").Attempt(travel(sent)(), m, 1)
	end(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1})
	_, placed := r.Placed(t.Context(), m.ID, 5)
	placed(nil)
	r.Finished(t.Context(), "done", nil)
	tel.Flush(t.Context())
	spans := sink.Spans()
	root, send, process := one(t, spans, "run"), one(t, spans, "send task.encode"), one(t, spans, "process task.encode")
	want := TaskTraceID(run, m.ID).String()
	if root.Trace != RunTraceID(run).String() || send.Trace != want || process.Trace != want || one(t, spans, "place").Trace != want {
		t.Errorf("traces: run %s, send %s, process %s, want %s", root.Trace, send.Trace, process.Trace, want)
	}
	if send.Parent != "" || !slices.Equal(send.Links, []string{root.ID}) || !slices.Equal(send.LinkTraces, []string{root.Trace}) || send.Attributes["run.id"] != run {
		t.Errorf("send: %+v", send)
	}
	if process.Parent != send.ID {
		t.Error("the attempt is not below its publish")
	}
}

// TestMessageWithoutTrace is from a coordinator that does not trace.
func TestMessageWithoutTrace(t *testing.T) {
	t.Parallel()
	sink := otlptest.Start(t)
	tel := process(t, "shardpress", sink.Getenv(otlptest.GRPC))
	run := ulid.Make().String()
	_, end := begin(t, tel, "w").Attempt(t.Context(), message(run, 1), 1)
	end(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1})
	tel.Flush(t.Context())
	if p := one(t, sink.Spans(), "process task.encode"); p.Parent != runSpanID(run).String() || p.Trace != RunTraceID(run).String() {
		t.Errorf("attempt: %+v", p)
	}
}

// TestSampled has every process come to the same decision on a run, from its name.
func TestSampled(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
	sink := otlptest.Start(t)
	a, b := process(t, "a", sink.Getenv(otlptest.GRPC)), process(t, "b", sink.Getenv(otlptest.GRPC))
	taken := 0
	for range 64 {
		run := ulid.MustNew(ulid.Now(), rand.Reader).String()
		first := trace.SpanContextFromContext(a.Run(run).Context(t.Context()))
		if second := trace.SpanContextFromContext(b.Run(run).Context(t.Context())); first.TraceFlags() != second.TraceFlags() {
			t.Fatalf("run %s: one process traces it and the other does not", run)
		}
		if first.IsSampled() {
			taken++
		}
		a.Run(run).Finished(t.Context(), "done", nil)
	}
	a.Flush(t.Context())
	if n := len(sink.Spans()); n != taken || n == 0 || n == 64 {
		t.Errorf("%d of 64 runs came, %d were to", n, taken)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	if a, b := RunTraceID("not a ulid"), RunTraceID("another"); a == b || !a.IsValid() || a != RunTraceID("not a ulid") {
		t.Errorf("traces of other names: %s, %s", a, b)
	}
	if !RunTraceID("00000000000000000000000000").IsValid() {
		t.Error("the zero ULID gives no trace")
	}
	if TaskTraceID("r", task.ID{1}) == TaskTraceID("r", task.ID{2}) || TaskTraceID("r", task.ID{1}) == TaskTraceID("s", task.ID{1}) {
		t.Error("traces of tasks collide")
	}
	seen := map[trace.SpanID]bool{}
	for range 100 {
		id, span := ids{}.NewIDs(t.Context())
		if !id.IsValid() || seen[span] {
			t.Fatal("random IDs are not valid and new")
		}
		seen[span] = true
	}
}
