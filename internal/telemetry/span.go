package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/redact"
	"github.com/shardpress/shardpress/internal/task"
)

// Attributes of spans that OpenTelemetry has no convention for.
const (
	keyRun      = attribute.Key("run.id")
	keyTask     = attribute.Key("task.id")
	keyOp       = attribute.Key("task.op")
	keyMemory   = attribute.Key("task.memory")
	keyCopy     = attribute.Key("task.copy")
	keyRepair   = attribute.Key("task.repair")
	keyWorker   = attribute.Key("worker.name")
	keyAttempt  = attribute.Key("attempt.id")
	keyReason   = attribute.Key("publish.reason")
	keyKind     = attribute.Key("failure.kind")
	keyOutcome  = attribute.Key("outcome")
	keyBytes    = attribute.Key("bytes")
	keyDelivery = attribute.Key("messaging.nats.delivery_count")
	keyStream   = attribute.Key("messaging.nats.stream")
)

// messaging is what the conventions for messaging want to know of a message; NATS
// has no registered name there yet. The destination names a cell and not the subject,
// which is another one for each task.
func messaging(m *task.Message, what string) []attribute.KeyValue {
	kvs := []attribute.KeyValue{
		semconv.MessagingSystemKey.String("nats"),
		semconv.MessagingOperationName(what),
		semconv.MessagingOperationTypeKey.String(what),
		semconv.MessagingDestinationName("task." + cellOf(m)),
		semconv.MessagingMessageID(m.ID.String()),
		keyStream.String("TASKS"),
		keyRun.String(m.Run),
		keyTask.String(m.ID.String()),
		keyOp.String(m.Op),
		keyMemory.Int64(m.Memory),
	}
	if m.Copy != "" {
		kvs = append(kvs, keyCopy.String(m.Copy))
	}
	if m.Repair != "" {
		kvs = append(kvs, keyRepair.String(m.Repair))
	}
	return kvs
}

// cellOf names the cell of the queue that a message belongs to: its numeric class,
// its rank and its memory class in MiB.
func cellOf(m *task.Message) string {
	rank, class := "b", int64(64<<20)
	if m.Chain {
		rank = "c"
	}
	for class < m.Memory && class < 1<<62 {
		class *= 2
	}
	return fmt.Sprintf("%s.%s.m%d", m.Class, rank, class>>20)
}

// attributes turns the log's attributes into a span's.
func attributes(attrs []slog.Attr) []attribute.KeyValue {
	kvs := make([]attribute.KeyValue, 0, len(attrs))
	for _, a := range attrs {
		a = redact.Attr(nil, a)
		k := attribute.Key(a.Key)
		switch v := a.Value.Resolve(); v.Kind() {
		case slog.KindBool:
			kvs = append(kvs, k.Bool(v.Bool()))
		case slog.KindInt64:
			kvs = append(kvs, k.Int64(v.Int64()))
		case slog.KindFloat64:
			kvs = append(kvs, k.Float64(v.Float64()))
		case slog.KindDuration:
			kvs = append(kvs, k.Float64(v.Duration().Seconds()))
		default:
			kvs = append(kvs, k.String(shorten(redact.Text(v.String()))))
		}
	}
	return kvs
}

// maxText bounds what a span tells of an error, in bytes.
const maxText = 2 << 10

// shorten cuts a text in its middle.
func shorten(s string) string {
	if len(s) <= maxText {
		return s
	}
	const gap = " [...] "
	half := (maxText - len(gap)) / 2
	return strings.ToValidUTF8(s[:half], "") + gap + strings.ToValidUTF8(s[len(s)-half:], "")
}

// finish ends a span. The error is told without credentials, which the SDK's own
// recording of errors would pass on. To be stopped is no error.
func finish(span trace.Span, err error, at ...trace.SpanEndOption) {
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled):
		span.SetAttributes(keyOutcome.String("stopped"))
	default:
		text := shorten(redact.Text(err.Error()))
		span.AddEvent(semconv.ExceptionEventName, trace.WithAttributes(
			semconv.ExceptionType(fmt.Sprintf("%T", err)),
			semconv.ExceptionMessage(text),
		))
		span.SetStatus(codes.Error, text)
	}
	span.End(at...)
}

// point records a span of no duration, which is sent at once and not when what it
// tells of is over.
func point(ctx context.Context, t trace.Tracer, name string, o ...trace.SpanStartOption) {
	now := time.Now()
	_, span := t.Start(ctx, name, append(o, trace.WithTimestamp(now))...)
	span.End(trace.WithTimestamp(now))
}
