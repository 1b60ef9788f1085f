package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shardpress/shardpress/internal/redact"
)

// Formats of a log.
const (
	LogText = "text"
	LogJSON = "json"
)

// ParseLevel reads a log level: debug, info, warn or error.
func ParseLevel(s string) (slog.Level, error) {
	var l slog.Level
	switch strings.ToLower(s) {
	case "":
		return slog.LevelInfo, nil
	case "debug", "info", "warn", "error":
		return l, l.UnmarshalText([]byte(s))
	}
	return 0, fmt.Errorf("log level %q: want debug, info, warn or error", s)
}

// NewLogger writes log records to w as text or JSON. Each carries the run, the
// task, the delivery and the span of its context, and no credentials.
func NewLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: redact.Attr}
	switch format {
	case "", LogText:
		return slog.New(WithContext(slog.NewTextHandler(w, o))), nil
	case LogJSON:
		return slog.New(WithContext(slog.NewJSONHandler(w, o))), nil
	}
	return nil, fmt.Errorf("log format %q: want %s or %s", format, LogText, LogJSON)
}

// WithContext adds what the context knows to every record for h: run, task,
// delivery, trace_id and span_id. What a record or its logger says itself stands.
func WithContext(h slog.Handler) slog.Handler { return &contextHandler{next: h} }

type contextHandler struct {
	next slog.Handler
	has  []string // keys that the logger has already
	deep bool     // inside a group, where keys are others'
}

func (h *contextHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l)
}

func (h *contextHandler) Handle(ctx context.Context, r slog.Record) error {
	s, _ := ctx.Value(subjectKey{}).(subject)
	span := trace.SpanContextFromContext(ctx)
	if s == (subject{}) && !span.IsValid() {
		return h.next.Handle(ctx, r)
	}
	seen := map[string]bool{}
	for _, k := range h.has {
		seen[k] = true
	}
	r.Attrs(func(a slog.Attr) bool {
		seen[a.Key] = true
		return true
	})
	r = r.Clone()
	add := func(a slog.Attr) {
		if !seen[a.Key] || h.deep {
			r.AddAttrs(a)
		}
	}
	if s.run != "" {
		add(slog.String("run", s.run))
	}
	if s.task != "" {
		add(slog.String("task", s.task))
	}
	if s.delivery > 0 {
		add(slog.Int("delivery", s.delivery))
	}
	if span.IsValid() {
		add(slog.String("trace_id", span.TraceID().String()))
		add(slog.String("span_id", span.SpanID().String()))
	}
	return h.next.Handle(ctx, r)
}

func (h *contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next = h.next.WithAttrs(attrs)
	c.has = append([]string(nil), h.has...)
	for _, a := range attrs {
		c.has = append(c.has, a.Key)
	}
	return &c
}

func (h *contextHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	c.deep = c.deep || name != ""
	return &c
}

type subjectKey struct{}

// subject is what the records of a context are about.
type subject struct {
	run, task string
	delivery  int
}

// LogContext has records of the context tell of a run and, where they are given, a
// task and which delivery of it.
func LogContext(ctx context.Context, run, task string, delivery int) context.Context {
	s, _ := ctx.Value(subjectKey{}).(subject)
	if run != "" {
		s.run = run
	}
	if task != "" {
		s.task = task
	}
	if delivery > 0 {
		s.delivery = delivery
	}
	return context.WithValue(ctx, subjectKey{}, s)
}
