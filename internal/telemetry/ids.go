package telemetry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/task"
)

// RunTraceID is the trace of a run: the bytes of its ULID, so that whoever knows
// the run finds its trace. Another name than a ULID is hashed.
func RunTraceID(run string) trace.TraceID {
	if u, err := ulid.ParseStrict(run); err == nil && !u.IsZero() {
		return trace.TraceID(u)
	}
	return traceID(digest("run", run))
}

// TaskTraceID is the trace of a task of a run that is too large for one tree.
func TaskTraceID(run string, id task.ID) trace.TraceID {
	return traceID(digest("task", run, string(id[:])))
}

// runSpanID is the root of a run's trace.
func runSpanID(run string) trace.SpanID {
	sum := digest("root", run)
	return trace.SpanID(sum[:8])
}

func traceID(sum [sha256.Size]byte) trace.TraceID { return trace.TraceID(sum[:16]) }

// digest hashes words so that no two lists of them look alike. Its first bytes
// are not all zero, which OpenTelemetry takes for no ID.
func digest(words ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, w := range words {
		h.Write(binary.AppendUvarint(nil, uint64(len(w))))
		h.Write([]byte(w))
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	sum[0] |= 1
	return sum
}

// ids makes random IDs, but for spans that begin with those that startRoot wants.
type ids struct{}

type rootKey struct{}

// root is what a span without parent shall be called; a zero span is chosen at random.
type root struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs names a span without parent.
func (i ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	want, _ := ctx.Value(rootKey{}).(root)
	if !want.trace.IsValid() {
		binary.NativeEndian.PutUint64(want.trace[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(want.trace[8:], rand.Uint64()|1)
	}
	if !want.span.IsValid() {
		want.span = i.NewSpanID(ctx, want.trace)
	}
	return want.trace, want.span
}

// NewSpanID names a span below another one.
func (ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// startRoot starts a span without parent under the given IDs. The context that it
// returns does not hand them on.
func startRoot(ctx context.Context, t trace.Tracer, name string, want root, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	_, span := t.Start(context.WithValue(ctx, rootKey{}, want), name, append(o, trace.WithNewRoot())...)
	return trace.ContextWithSpan(ctx, span), span
}
