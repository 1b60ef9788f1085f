package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

func newLogger(w io.Writer) *slog.Logger { return slog.New(&warnings{lock: &sync.Mutex{}, w: w}) }

// warnings prints records of a log as one plain line each, for people: they stand
// between the lines of a run.
type warnings struct {
	lock   *sync.Mutex // of w, shared by all handlers made of one
	w      io.Writer
	prefix string // of groups
	attrs  string // given already
}

// Enabled implements slog.Handler.
func (h *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h *warnings) Handle(_ context.Context, r slog.Record) error {
	kind := "warning"
	if r.Level >= slog.LevelError {
		kind = "error"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s%s", kind, plain(r.Message), h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.prefix, a)
		return true
	})
	b.WriteByte('\n')
	h.lock.Lock()
	defer h.lock.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

// WithAttrs implements slog.Handler.
func (h *warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		appendAttr(&b, h.prefix, a)
	}
	c := *h
	c.attrs += b.String()
	return &c
}

// WithGroup implements slog.Handler.
func (h *warnings) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

// appendAttr writes an attribute behind a comma; errors and groups need no name.
func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, m := range v.Group() {
			appendAttr(b, prefix, m)
		}
	case a.Key == "err":
		fmt.Fprintf(b, ": %s", plain(v.String()))
	default:
		fmt.Fprintf(b, ", %s%s %s", prefix, a.Key, plain(v.String()))
	}
}

// plain is a text without what could move the cursor or begin a line.
func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
