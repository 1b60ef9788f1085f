package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// hashed takes the outputs of an audit: only their hashes are wanted.
type hashed struct{ written []task.Written }

func (h *hashed) put(ctx context.Context, name string, r io.Reader, size int64) error {
	sum := sha256.New()
	n, err := io.Copy(&aliveWriter{ctx, sum}, r)
	if err == nil && size >= 0 && n != size {
		err = objstore.ErrSize
	}
	if err != nil {
		return fmt.Errorf("hash %s: %w", name, err)
	}
	h.written = append(h.written, task.Written{Name: name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// aliveWriter refuses to write when its context has ended, as stores do.
type aliveWriter struct {
	ctx context.Context
	w   io.Writer
}

// Write implements io.Writer.
func (w *aliveWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// audit runs a task again that has a result and compares what comes out. It writes
// nothing of what it makes.
func (s *shift) audit(ctx context.Context, a *attempt, op operation.Operation, spec *task.Spec, first *task.Result) AttemptEnd {
	var out hashed
	_, err := s.operate(ctx, a, op, spec, out.put)
	found := &task.Audit{ID: a.m.ID, Audited: first.Attempt, First: first.Worker, Worker: s.Name}
	switch kind := kindOf(err); {
	case err == nil:
		found.Detail = difference(first.Outputs, out.written)
		found.Equal = found.Detail == ""
	case ctx.Err() != nil || storage(kind):
		return s.settle(ctx, a, err)
	case kind == task.Invalid || kind == task.Internal:
		found.Detail = "failed where the first one did not: " + public(err)
	default: // the source has gone, or an input: it says nothing of either machine
		return s.voidAudit(ctx, a, err)
	}
	if err := s.report(ctx, a, found); err != nil {
		return s.settle(ctx, a, err)
	}
	calm, cancel := last(ctx)
	defer cancel()
	a.log.InfoContext(ctx, "audit ends", "equal", found.Equal, "detail", found.Detail)
	s.end(calm, a, task.AttemptDone, nil)
	if err := a.d.Done(calm); err != nil {
		s.warn(calm, "acknowledgement failed", a.m.ID, err)
	}
	s.notify(&task.Notice{ID: a.m.ID, State: task.Audited, Audit: found})
	s.rested()
	s.done.Add(1)
	s.bytes.Add(a.progress.bytes.Load())
	return AttemptEnd{State: task.AttemptDone}
}

// report stores what an audit found.
func (s *shift) report(ctx context.Context, a *attempt, found *task.Audit) error {
	b, err := found.Encode()
	if err != nil {
		return fmt.Errorf("encode audit of task %s: %w", a.m.ID.Short(), err)
	}
	if _, err := s.store.Put(ctx, task.AuditKey(a.m.Run, a.m.ID), bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
		return fmt.Errorf("write audit of task %s: %w", a.m.ID.Short(), err)
	}
	return nil
}

// voidAudit gives up an audit that cannot be made, which says nothing of the task.
func (s *shift) voidAudit(ctx context.Context, a *attempt, cause error) AttemptEnd {
	calm, cancel := last(ctx)
	defer cancel()
	err := fmt.Errorf("audit not possible: %w", cause)
	a.log.WarnContext(ctx, "audit came to nothing", "err", err)
	s.end(calm, a, task.AttemptFailed, err)
	f := s.failure(a, kindOf(cause), err)
	s.fail(calm, a.d, a.m, f)
	return AttemptEnd{State: task.AttemptFailed, Kind: f.Kind, Err: err}
}

// difference says how outputs differ from those of a result, "" if they do not.
func difference(first, again []task.Written) string {
	if len(first) != len(again) {
		return fmt.Sprintf("%d outputs, first %d", len(again), len(first))
	}
	for i, f := range first {
		switch g := again[i]; {
		case f.Name != g.Name:
			return fmt.Sprintf("output %q, first %q", g.Name, f.Name)
		case f.Size != g.Size:
			return fmt.Sprintf("%s has %d bytes, first %d", f.Name, g.Size, f.Size)
		case f.SHA256 != g.SHA256:
			return fmt.Sprintf("%s has SHA-256 %.16s, first %.16s", f.Name, g.SHA256, f.SHA256)
		}
	}
	return ""
}
