package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		log  func(l *slog.Logger)
		want string
	}{
		{"attributes", func(l *slog.Logger) { l.Warn("queue does not answer", "task", "ab12", "tries", 3) }, "warning: queue does not answer, task ab12, tries 3\n"},
		{"an error", func(l *slog.Logger) { l.Warn("run not pinned", "err", errors.New("store is full")) }, "warning: run not pinned: store is full\n"},
		{"of an error's level", func(l *slog.Logger) { l.Error("message dropped") }, "error: message dropped\n"},
		{"given before", func(l *slog.Logger) { l.With("task", "ab12").WithGroup("g").Warn("late", "n", 1) }, "warning: late, task ab12, g.n 1\n"},
		{"a group", func(l *slog.Logger) { l.Warn("late", slog.Group("g", "n", 1)) }, "warning: late, g.n 1\n"},
		{"more than a line", func(l *slog.Logger) { l.Warn("late", "why", "a\nb\x1b[2J") }, "warning: late, why \"a\\nb\\x1b[2J\"\n"},
		{"below", func(l *slog.Logger) { l.Info("fine"); l.Debug("fine") }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			tt.log(newLogger(&b))
			if b.String() != tt.want {
				t.Errorf("%q, want %q", b.String(), tt.want)
			}
		})
	}
}
