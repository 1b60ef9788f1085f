package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/internal/redact"
	"github.com/shardpress/shardpress/internal/task"
)

// tail keeps the last lines that are written to it, task.MaxLog bytes of them.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

// Write takes p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > task.MaxLog {
		p, t.cut = p[len(p)-task.MaxLog:], true
	}
	if len(t.buf)+len(p) > 2*task.MaxLog { // moved once for every MaxLog bytes
		keep := task.MaxLog - len(p)
		t.buf = t.buf[:copy(t.buf, t.buf[len(t.buf)-keep:])]
		t.cut = true
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// text returns what was kept, in whole lines where there are lines.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	if len(b) > task.MaxLog {
		b, t.cut = b[len(b)-task.MaxLog:], true
	}
	if t.cut {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return strings.ToValidUTF8(string(b), "�")
}

// capture returns a logger that also keeps what it logs, in more detail, for the
// record of an attempt.
func capture(log *slog.Logger) (*slog.Logger, *tail) {
	t := &tail{}
	return slog.New(tee{log.Handler(), slog.NewTextHandler(t, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: redact.Attr})}), t
}

// tee hands records to two handlers.
type tee struct{ first, second slog.Handler }

// Enabled implements slog.Handler.
func (t tee) Enabled(ctx context.Context, l slog.Level) bool {
	return t.first.Enabled(ctx, l) || t.second.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (t tee) Handle(ctx context.Context, r slog.Record) error {
	var errs []error
	for _, h := range []slog.Handler{t.first, t.second} {
		if h.Enabled(ctx, r.Level) {
			errs = append(errs, h.Handle(ctx, r.Clone()))
		}
	}
	return errors.Join(errs...)
}

// WithAttrs implements slog.Handler.
func (t tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tee{t.first.WithAttrs(attrs), t.second.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (t tee) WithGroup(name string) slog.Handler {
	return tee{t.first.WithGroup(name), t.second.WithGroup(name)}
}
