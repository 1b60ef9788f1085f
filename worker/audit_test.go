package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// auditOf is the message of an audit of the result that stands.
func auditOf(m *task.Message, r *task.Result) *task.Message {
	a := *m
	a.Copy, a.Audit, a.Avoid = task.CopyAudit, r.Attempt, r.Worker
	return &a
}

// twoOutputs writes, one of them as operations do that write by themselves.
func twoOutputs(first, second string) opFunc {
	return func(ctx context.Context, _ *task.Spec, env *operation.Env) error {
		err := env.Put(ctx, "o", objstore.FromWriter(func(w io.Writer) error {
			_, err := io.WriteString(w, first)
			return err
		}), int64(len(first)))
		if err != nil {
			return err
		}
		return env.Put(ctx, "p", strings.NewReader(second), -1)
	}
}

// TestAudit runs tasks a second time on machines that make the same bytes, others, or
// none, and looks at what is left.
func TestAudit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		op     opFunc
		fate   string
		equal  bool
		detail string
		kind   task.Kind // of a failure instead
	}{
		{"same", twoOutputs("bytes", "more"), "done", true, "", ""},
		{"one bit", twoOutputs("bytez", "more"), "done", false, "o has SHA-256", ""},
		{"second output", twoOutputs("bytes", "mora"), "done", false, "p has SHA-256", ""},
		{"longer", twoOutputs("bytes", "more."), "done", false, "p has 5 bytes", ""},
		{"fewer outputs", writes("bytes"), "done", false, "1 outputs", ""},
		{"invalid here", func(context.Context, *task.Spec, *operation.Env) error { return compress.ErrInvalid }, "done", false, "failed where", ""},
		{"panics here", func(context.Context, *task.Spec, *operation.Env) error { panic("x") }, "done", false, "panicked", ""},
		{"source changed", func(context.Context, *task.Spec, *operation.Env) error { return shard.ErrSourceChanged }, "abandon", false, "", task.Changed},
		{"cable", func(context.Context, *task.Spec, *operation.Env) error { return errors.New("cable") }, "abandon", false, "", task.Transient},
		{"lost input", func(context.Context, *task.Spec, *operation.Env) error { return &operation.LostInput{Err: io.EOF} }, "abandon", false, "", task.Lost},
		{"store", func(context.Context, *task.Spec, *operation.Env) error { return &operation.StoreError{Err: io.EOF} }, "retry", false, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet()
			m := f.task(t, "a")
			stop := start(t, f.worker("alice", twoOutputs("bytes", "more")))
			f.queue.offer(m, 1).wait(t)
			stop()
			first := f.result(t, m.ID)
			before := fmt.Sprint(f.keys(t, "tasks/"))
			stop = start(t, f.worker("bob", c.op))
			defer stop()
			d := f.queue.offer(auditOf(m, first), 1)
			if fate := d.wait(t); fate != c.fate {
				t.Errorf("audit was %s", fate)
			}
			stop()
			if after := fmt.Sprint(f.keys(t, "tasks/")); after != before {
				t.Errorf("the audit left %s where %s was", after, before)
			}
			if r := f.result(t, m.ID); r.Attempt != first.Attempt {
				t.Error("the audit replaced the result")
			}
			news := f.queue.news(task.Audited)
			b, err := objstore.ReadAll(t.Context(), f.store, task.AuditKey("run", m.ID), 1<<20)
			if c.fate != "done" {
				if err == nil || len(news) != 0 {
					t.Errorf("an audit that found nothing reports %s", b)
				}
				failed := f.failures(t, m)
				if (c.kind != "") != (len(failed) == 1) || len(failed) == 1 && (failed[0].Kind != c.kind || failed[0].Copy != task.CopyAudit) {
					t.Errorf("failures %+v", failed)
				}
				if n := len(f.queue.news(task.Failed)); n != len(failed) {
					t.Errorf("%d failures told, %d stored", n, len(failed))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := task.ParseAudit(m.ID, b)
			if err != nil {
				t.Fatal(err)
			}
			if a.Equal != c.equal || !strings.Contains(a.Detail, c.detail) || a.Audited != first.Attempt || a.First != "alice" || a.Worker != "bob" {
				t.Errorf("audit %+v", a)
			}
			if len(news) != 1 || news[0].Audit == nil || *news[0].Audit != *a || news[0].Worker != "bob" {
				t.Errorf("notices %+v", news)
			}
			if s := f.states(t, m); s != "done done" {
				t.Errorf("attempts %s", s)
			}
		})
	}
}

// TestAuditsThatCannotBe are of tasks without a result, or which kill their workers.
func TestAuditsThatCannotBe(t *testing.T) {
	t.Parallel()
	f := newFleet()
	none, deadly := f.task(t, "a"), f.task(t, "b")
	stop := start(t, f.worker("alice", writes("bytes")))
	f.queue.offer(deadly, 1).wait(t)
	stop()
	defer start(t, f.worker("bob", opFunc(func(context.Context, *task.Spec, *operation.Env) error {
		t.Error("the operation was run")
		return nil
	})))()
	d := f.queue.offer(auditOf(none, &task.Result{Attempt: "01A", Worker: "alice"}), 1)
	if fate := d.wait(t); fate != "abandon" {
		t.Errorf("an audit of nothing was %s", fate)
	}
	for range poisonAfter {
		f.died(t, deadly, task.AttemptRecord{Worker: "carl", Copy: task.CopyAudit})
	}
	d = f.queue.offer(auditOf(deadly, f.result(t, deadly.ID)), 4)
	if fate := d.wait(t); fate != "abandon" || d.reason != string(task.Died) {
		t.Errorf("a deadly audit was %s for %s", fate, d.reason)
	}
	for _, m := range []*task.Message{none, deadly} {
		if failed := f.failures(t, m); len(failed) != 1 || failed[0].Copy != task.CopyAudit {
			t.Errorf("failures %+v", failed)
		}
	}
}

// TestAuditOfANewerResult: the bytes were made again since, and must be the same.
func TestAuditOfANewerResult(t *testing.T) {
	t.Parallel()
	f := newFleet()
	m := f.task(t, "a")
	stop := start(t, f.worker("alice", writes("bytes")))
	f.queue.offer(m, 1).wait(t)
	stop()
	r := f.result(t, m.ID)
	old := *r
	old.Attempt = "01OLD"
	defer start(t, f.worker("bob", writes("bytes")))()
	if fate := f.queue.offer(auditOf(m, &old), 1).wait(t); fate != "done" {
		t.Errorf("audit was %s", fate)
	}
	b, err := objstore.ReadAll(t.Context(), f.store, task.AuditKey("run", m.ID), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := task.ParseAudit(m.ID, b); err != nil || !a.Equal || a.Audited != r.Attempt {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestAuditOfAWorkerThatEnds is given back.
func TestAuditOfAWorkerThatEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.task(t, "a")
		stop := start(t, f.worker("alice", writes("bytes")))
		f.queue.offer(m, 1).wait(t)
		stop()
		stop = start(t, f.worker("bob", opFunc(func(ctx context.Context, _ *task.Spec, env *operation.Env) error {
			return env.Put(ctx, "o", endless{ctx}, -1)
		})))
		d := f.queue.offer(auditOf(m, f.result(t, m.ID)), 1)
		synctest.Wait()
		stop()
		if fate := d.wait(t); fate != "retry" || d.after != 0 {
			t.Errorf("audit was %s after %v", fate, d.after)
		}
		if s := f.states(t, m); s != "done drained" {
			t.Errorf("attempts %s", s)
		}
	})
}

// endless gives nothing until its context ends.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) { <-e.ctx.Done(); return 0, e.ctx.Err() }
