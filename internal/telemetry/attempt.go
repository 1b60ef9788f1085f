package telemetry

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/task"
)

// Worker follows what one worker does.
type Worker struct {
	t    *Telemetry
	name string
	self metric.MeasurementOption

	mu    sync.Mutex
	ended int64 // source bytes of attempts that ended
	heard int64 // source bytes that the worker itself has counted, of those under way too
}

// Worker begins to follow a worker with so much memory and so many slots.
func (t *Telemetry) Worker(name string, memory int64, slots int) (*Worker, error) {
	w := &Worker{t: t, name: name, self: by("worker", name)}
	if t.measuring {
		if err := t.metrics.observeWorker(w, memory, slots); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Heard takes note of what the worker says of itself from time to time: how far it
// is in the tasks that it is at, which may take hours.
func (w *Worker) Heard(info *task.WorkerInfo) {
	total := info.Bytes
	for _, t := range info.Tasks {
		total += t.Bytes
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = max(w.heard, total)
}

// bytes never becomes less: what a failed attempt got through was read all the same.
func (w *Worker) bytes() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.ended, w.heard)
}

// AttemptEnd says how an attempt ended.
type AttemptEnd struct {
	Attempt string // its name
	Outcome string // task.AttemptDone, ...
	Kind    task.Kind
	Err     error
	Bytes   int64 // of source that it got through
}

// Attempt begins an attempt at a task that came with that delivery of its message.
// ctx carries the trace of the message. What it returns ends the attempt.
func (w *Worker) Attempt(ctx context.Context, m *task.Message, delivery int) (context.Context, func(AttemptEnd)) {
	ctx = LogContext(ctx, m.Run, m.ID.Short(), delivery)
	if !w.t.tracing && !w.t.measuring {
		return ctx, func(AttemptEnd) {}
	}
	measured := w.measure(ctx, m, delivery)
	if !w.t.tracing {
		return ctx, measured
	}
	sent := trace.SpanContextFromContext(ctx)
	if !sent.IsValid() { // published by a coordinator that does not trace
		sent = w.t.rootOf(m.Run)
		ctx = trace.ContextWithRemoteSpanContext(ctx, sent)
	}
	what := append(messaging(m, "process"), keyWorker.String(w.name), keyDelivery.Int(delivery))
	point(ctx, w.t.tracer, "claimed task."+opOf(m), trace.WithAttributes(what...))
	// The convention wants a link to the message, and allows it as the parent too:
	// with the parent the run is one tree.
	ctx, span := w.t.tracer.Start(ctx, "process task."+opOf(m), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(trace.Link{SpanContext: sent}), trace.WithAttributes(what...))
	return ctx, func(e AttemptEnd) {
		measured(e)
		span.SetAttributes(keyAttempt.String(e.Attempt), keyOutcome.String(e.Outcome), keyBytes.Int64(e.Bytes))
		if e.Kind != "" {
			span.SetAttributes(keyKind.String(string(e.Kind)))
		}
		finish(span, e.Err)
	}
}

// measure counts an attempt, now and at its end.
func (w *Worker) measure(ctx context.Context, m *task.Message, delivery int) func(AttemptEnd) {
	begin, op, in := time.Now(), by("op", opOf(m)), w.t.metrics
	if delivery > 1 {
		in.redeliveries.Add(ctx, 1, op)
	}
	in.workerBusy.Add(ctx, 1, w.self)
	in.workerMemory.Add(ctx, m.Memory, w.self)
	return func(e AttemptEnd) {
		in.workerBusy.Add(ctx, -1, w.self)
		in.workerMemory.Add(ctx, -m.Memory, w.self)
		in.attempts.Add(ctx, 1, by("op", opOf(m), "outcome", e.Outcome))
		if e.Outcome == task.AttemptDone {
			in.duration.Record(ctx, time.Since(begin).Seconds(), op)
			in.workerTasks.Add(ctx, 1, w.self)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended += e.Bytes
	}
}
