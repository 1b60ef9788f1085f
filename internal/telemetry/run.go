package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/task"
)

// maxInTree is how many tasks a run may have that is one tree. A task makes four
// spans if all goes well, and viewers become slow at two thousand.
const maxInTree = 500

// Run follows a run on behalf of a coordinator or a submitter. Any number of
// processes may follow the same run: their spans meet in one trace.
type Run struct {
	t     *Telemetry
	run   string
	root  trace.SpanContext // of the run's root span, whoever will tell of it
	began time.Time
	large atomic.Bool
}

// Run begins to follow a run.
func (t *Telemetry) Run(run string) *Run {
	r := &Run{t: t, run: run, began: time.Now()}
	if u, err := ulid.ParseStrict(run); err == nil { // the same for all who follow it
		r.began = u.Timestamp()
	}
	if t.tracing {
		r.root = t.rootOf(run)
	}
	// A counter that appears with its first count is no increase to Prometheus.
	in, ctx := t.metrics, context.Background()
	in.repaired.Add(ctx, 0)
	in.audits.Add(ctx, 0, by("result", AuditEqual))
	in.audits.Add(ctx, 0, by("result", AuditUnequal))
	return r
}

// rootOf is the context of the root span of a run. The span itself is left to who
// ends the run; this one only asks the sampler, whose answer is the same
// everywhere, and is dropped.
func (t *Telemetry) rootOf(run string) trace.SpanContext {
	_, span := startRoot(context.Background(), t.tracer, "run", root{RunTraceID(run), runSpanID(run)})
	return span.SpanContext().WithRemote(true)
}

// Context puts what is done with ctx into the run's trace, and the run into its log.
func (r *Run) Context(ctx context.Context) context.Context {
	ctx = LogContext(ctx, r.run, "", 0)
	if !r.t.tracing {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, r.root)
}

// Began tells that somebody takes the run up, with that many tasks of which so many
// are there already. It comes before the first Published.
func (r *Run) Began(ctx context.Context, tasks, reused int, attrs ...slog.Attr) {
	r.large.Store(tasks > maxInTree)
	r.t.metrics.reused.Add(ctx, int64(reused))
	if !r.t.tracing {
		return
	}
	attrs = append(attrs, slog.Int("tasks", tasks), slog.Int("reused", reused))
	point(r.Context(ctx), r.t.tracer, "run started", trace.WithAttributes(keyRun.String(r.run)), trace.WithAttributes(attributes(attrs)...))
}

// Phase is a part of the run: plan, assemble, validate, upload. What it returns
// ends it.
func (r *Run) Phase(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error, ...slog.Attr)) {
	ctx = LogContext(ctx, r.run, "", 0)
	if !r.t.tracing {
		return ctx, func(error, ...slog.Attr) {}
	}
	if !r.within(ctx) {
		ctx = r.Context(ctx)
	}
	ctx, span := r.t.tracer.Start(ctx, name, trace.WithAttributes(keyRun.String(r.run)), trace.WithAttributes(attributes(attrs)...))
	return ctx, func(err error, attrs ...slog.Attr) {
		span.SetAttributes(attributes(attrs)...)
		finish(span, err)
	}
}

// within reports whether the context is of this run's trace already.
func (r *Run) within(ctx context.Context) bool {
	return trace.SpanContextFromContext(ctx).TraceID() == r.root.TraceID()
}

// Why a message is published.
const (
	ReasonFirst  = "first"
	ReasonAgain  = "again" // it was lost, or has failed
	ReasonRepair = "repair"
	ReasonTwin   = "twin"
	ReasonAudit  = "audit"
)

// Published is the publish of a message. Its context, given to the queue, makes the
// attempts its children. It ends with whether the queue has taken the message, which
// it does not if it has it.
func (r *Run) Published(ctx context.Context, m *task.Message, reason string) (context.Context, func(taken bool, err error)) {
	ctx = LogContext(ctx, r.run, m.ID.Short(), 0)
	count := func(taken bool, _ error) {
		if taken {
			r.t.metrics.published.Add(ctx, 1, by("reason", reason))
		}
	}
	if !r.t.tracing {
		return ctx, count
	}
	ctx, span := r.start(ctx, m.ID, "send task."+opOf(m), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(messaging(m, "send")...), trace.WithAttributes(keyReason.String(reason)))
	return ctx, func(taken bool, err error) {
		count(taken, err)
		if !taken && err == nil {
			span.SetAttributes(keyOutcome.String("outstanding"))
		}
		finish(span, err)
	}
}

// Placed is the work of placing a task's outputs into the result.
func (r *Run) Placed(ctx context.Context, id task.ID, bytes int64) (context.Context, func(error)) {
	ctx = LogContext(ctx, r.run, id.Short(), 0)
	if !r.t.tracing {
		return ctx, func(error) {}
	}
	ctx, span := r.start(ctx, id, "place", trace.WithAttributes(keyRun.String(r.run), keyTask.String(id.String()), keyBytes.Int64(bytes)))
	return ctx, func(err error) { finish(span, err) }
}

// start starts a span of a task: in the run's trace or, in a large run, in the
// task's own.
func (r *Run) start(ctx context.Context, id task.ID, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	if r.large.Load() {
		o = append(o, trace.WithLinks(trace.Link{SpanContext: r.root}))
		return startRoot(ctx, r.t.tracer, name, root{trace: TaskTraceID(r.run, id)}, o...)
	}
	if !r.within(ctx) {
		ctx = r.Context(ctx)
	}
	return r.t.tracer.Start(ctx, name, o...)
}

// Counted asks how many of the run's tasks are in each state, and for its own, if
// anybody wants to know.
func (r *Run) Counted(counts func() (state string, tasks map[string]int64)) {
	if r.t.measuring {
		state, tasks := counts()
		r.t.metrics.setRun(r.run, state, tasks)
	}
}

// Repaired tells that a task's stored bytes are made again.
func (r *Run) Repaired(ctx context.Context) { r.t.metrics.repaired.Add(ctx, 1) }

// Retried tells that a task is tried again after a failure.
func (r *Run) Retried(ctx context.Context, kind task.Kind) {
	r.t.metrics.retried.Add(ctx, 1, by("kind", string(kind)))
}

// What came of an audit.
const (
	AuditEqual   = "equal"
	AuditUnequal = "unequal"
	AuditSkipped = "skipped" // nobody else could do the task
)

// Audited tells how the comparison of a task's bytes with another worker's went.
func (r *Run) Audited(ctx context.Context, result string) {
	r.t.metrics.audits.Add(ctx, 1, by("result", result))
}

// Left ends the following of a run that goes on elsewhere or later.
func (r *Run) Left() { r.t.metrics.endRun(r.run) }

// Finished ends the run and tells of it as a whole, from its beginning. Whoever
// wrote down how the run ended calls it.
func (r *Run) Finished(ctx context.Context, state string, err error, attrs ...slog.Attr) {
	r.Left()
	r.t.metrics.runsFinished.Add(ctx, 1, by("state", state))
	if !r.t.tracing {
		return
	}
	end := time.Now()
	if end.Before(r.began) { // clocks differ
		end = r.began
	}
	_, span := startRoot(ctx, r.t.tracer, "run", root{RunTraceID(r.run), runSpanID(r.run)}, trace.WithTimestamp(r.began),
		trace.WithAttributes(keyRun.String(r.run), keyOutcome.String(state)), trace.WithAttributes(attributes(attrs)...))
	finish(span, err, trace.WithTimestamp(end))
}
