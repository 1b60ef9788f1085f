package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

func lines(t *testing.T, b *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(b.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

func TestLogCarriesItsContext(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log, err := NewLogger(&b, LogJSON, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ctx := trace.ContextWithSpanContext(LogContext(LogContext(t.Context(), "R", "", 0), "", "T", 3), span)
	log.InfoContext(ctx, "all")
	log.With("task", "mine").InfoContext(ctx, "own task", "run", "mine")
	log.InfoContext(t.Context(), "none")
	log.DebugContext(ctx, "below the level")
	log.InfoContext(ctx, "dial nats://u:secret@h", "err", errors.New("token=secret"), "password", "secret")
	got := lines(t, &b)
	if strings.Contains(b.String(), "secret") {
		t.Errorf("the log tells a secret: %s", b.String())
	}
	if len(got) != 4 {
		t.Fatalf("%d records, want 4", len(got))
	}
	want := map[string]any{"run": "R", "task": "T", "delivery": 3.0, "trace_id": span.TraceID().String(), "span_id": span.SpanID().String()}
	for k, v := range want {
		if got[0][k] != v {
			t.Errorf("%s is %v, want %v", k, got[0][k], v)
		}
		if got[2][k] != nil {
			t.Errorf("a record of no context tells %s %v", k, got[2][k])
		}
	}
	if got[1]["task"] != "mine" || got[1]["run"] != "mine" || got[1]["delivery"] != 3.0 {
		t.Errorf("what the record says itself does not stand: %v", got[1])
	}
}

func TestLogOfGroups(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log, err := NewLogger(&b, LogText, slog.LevelDebug)
	if err != nil {
		t.Fatal(err)
	}
	log.WithGroup("g").With("run", "x").DebugContext(LogContext(context.Background(), "R", "", 0), "m")
	if s := b.String(); !strings.Contains(s, "g.run=x") || !strings.Contains(s, "g.run=R") {
		t.Errorf("a group's key hides the run: %s", s)
	}
}

func TestLogOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{LogFormat: "xml"}, {LogLevel: "loud"}} {
		o.Getenv = func(string) string { return "" }
		if _, err := Start(t.Context(), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	for s, want := range map[string]slog.Level{"": slog.LevelInfo, "debug": slog.LevelDebug, "WARN": slog.LevelWarn, "error": slog.LevelError} {
		if l, err := ParseLevel(s); err != nil || l != want {
			t.Errorf("level %q: %v, %v", s, l, err)
		}
	}
}
