package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// TestTail compares what is kept of texts of many sizes with their ends.
func TestTail(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 7, 100, task.MaxLog - 1, task.MaxLog, task.MaxLog + 1, 3 * task.MaxLog} {
		for _, total := range []int{0, 1, task.MaxLog - 1, task.MaxLog, task.MaxLog + 1, 2*task.MaxLog + 3, 5*task.MaxLog + 11} {
			var kept tail
			var all []byte
			for n := 0; len(all) < total; n++ {
				piece := bytes.Repeat([]byte{byte('a' + n%26)}, min(size, total-len(all)))
				all = append(all, piece...)
				if k, err := kept.Write(piece); k != len(piece) || err != nil {
					t.Fatalf("%d, %v", k, err)
				}
				if cap(kept.buf) > 4*task.MaxLog {
					t.Fatalf("it keeps %d bytes", cap(kept.buf))
				}
			}
			if got, want := kept.text(), string(all[max(0, len(all)-task.MaxLog):]); got != want {
				t.Errorf("pieces of %d, %d in all: %d bytes are kept, want %d", size, total, len(got), len(want))
			}
		}
	}
	var lines tail
	for n := range 20_000 {
		fmt.Fprintf(&lines, "line %d\n", n)
	}
	got := lines.text()
	if !strings.HasPrefix(got, "line ") || !strings.HasSuffix(got, "line 19999\n") || len(got) > task.MaxLog || len(got) < task.MaxLog-20 {
		t.Errorf("%d bytes are kept: %.20q", len(got), got)
	}
	var odd tail
	if _, err := odd.Write([]byte("a\xff" + strings.Repeat("é", task.MaxLog))); err != nil {
		t.Fatal(err)
	}
	if !utf8.ValidString(odd.text()) {
		t.Error("what is kept is no text")
	}
}

// TestCapture logs at two levels to two places.
func TestCapture(t *testing.T) {
	t.Parallel()
	var out text
	log, kept := capture(slog.New(slog.NewTextHandler(&out, nil)).With("worker", "w"))
	log = log.WithGroup("g").With("attempt", "x")
	log.Debug("detail")
	log.Warn("trouble", "n", 1)
	if s := out.String(); strings.Contains(s, "detail") || !strings.Contains(s, "worker=w g.attempt=x g.n=1") {
		t.Errorf("logged: %s", s)
	}
	if s := kept.text(); !strings.Contains(s, "detail") || !strings.Contains(s, "trouble g.attempt=x g.n=1") {
		t.Errorf("kept: %s", s)
	}
}

// TestLargestRecord is one whose log, detail and names are as bad as they can be.
func TestLargestRecord(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	_, kept := capture(slog.New(slog.DiscardHandler))
	if _, err := kept.Write(bytes.Repeat([]byte{1}, task.MaxLog)); err != nil {
		t.Fatal(err)
	}
	r := &task.AttemptRecord{ID: m.ID, Attempt: "01A", Log: kept.text(), Detail: strings.Repeat("\x01", maxText)}
	b, err := r.Encode()
	if err != nil || len(b) > task.MaxAttempt {
		t.Errorf("record of %d bytes, %v", len(b), err)
	}
	if back, err := task.ParseAttempt(m.ID, b); err != nil || back.Log != r.Log {
		t.Errorf("%v", err)
	}
}

// TestCredentialsStayOutOfTheStore: what an error says that should not have said it is
// neither stored nor told.
func TestCredentialsStayOutOfTheStore(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	for _, c := range []error{
		errors.New("get https://user:" + secret + "@host/x: refused"),
		&operation.StoreError{Err: errors.New("get http://host/x?X-Amz-Signature=" + secret + ": 403")},
	} {
		f := newFleet()
		m := f.task(t, "a")
		stop := start(t, f.worker("alice", opFunc(func(context.Context, *task.Spec, *operation.Env) error { return c })))
		f.queue.offer(m, 1).wait(t)
		stop()
		var all []string
		for _, key := range f.keys(t, "runs/") {
			b, err := objstore.ReadAll(t.Context(), f.store, key, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		}
		for _, n := range f.queue.notices {
			b, err := n.Encode()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		}
		if text := strings.Join(all, "\n"); strings.Contains(text, secret) || !strings.Contains(text, "host/x") {
			t.Errorf("stored and told: %s", text)
		}
	}
}
