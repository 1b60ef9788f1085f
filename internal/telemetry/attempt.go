package telemetry

import (
	"context"
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
}

// Worker begins to follow a worker with so much memory and so many slots.
func (t *Telemetry) Worker(name string, memory int64, slots int) (*Worker, error) {
	w := &Worker{t: t, name: name, self: by("worker", name)}
	if t.measuring {
		if err := t.metrics.observeWorker(name, memory, slots); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Attempt begins an attempt at a task that came with that delivery of its message. ctx carries the trace of the message. What it returns ends the
// attempt, with its outcome and the source bytes that it got through.
func (w *Worker) Attempt(ctx context.Context, m *task.Message, delivery int) (context.Context, func(outcome string, err error, bytes int64)) {
	ctx = LogContext(ctx, m.Run, m.ID.Short(), delivery)
	if !w.t.tracing && !w.t.measuring {
		return ctx, func(string, error, int64) {}
	}
	begin, op := time.Now(), by("op", opOf(m))
	in := w.t.metrics
	if delivery > 1 {
		in.redeliveries.Add(ctx, 1, op)
	}
	in.workerBusy.Add(ctx, 1, w.self)
	in.workerMemory.Add(ctx, m.Memory, w.self)
	measure := func(outcome string, bytes int64) {
		in.workerBusy.Add(ctx, -1, w.self)
		in.workerMemory.Add(ctx, -m.Memory, w.self)
		in.attempts.Add(ctx, 1, by("op", opOf(m), "outcome", outcome))
		if outcome == task.AttemptDone {
			in.duration.Record(ctx, time.Since(begin).Seconds(), op)
			in.workerTasks.Add(ctx, 1, w.self)
			in.workerBytes.Add(ctx, bytes, w.self)
		}
	}
	if !w.t.tracing {
		return ctx, func(outcome string, _ error, bytes int64) { measure(outcome, bytes) }
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
	return ctx, func(outcome string, err error, bytes int64) {
		measure(outcome, bytes)
		span.SetAttributes(keyOutcome.String(outcome), keyBytes.Int64(bytes))
		finish(span, err)
	}
}
