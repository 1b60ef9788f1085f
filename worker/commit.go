package worker

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// outputs writes the output objects of one attempt.
type outputs struct {
	store   objstore.Bucket
	id      task.ID
	attempt string
	written []task.Written
}

func (o *outputs) put(ctx context.Context, name string, r io.Reader, size int64) error {
	key := task.OutputKey(o.id, o.attempt, name)
	info, err := o.store.Put(ctx, key, r, size, objstore.PutOptions{})
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	o.written = append(o.written, task.Written{
		Name: name, Key: key, Size: info.Size, SHA256: hex.EncodeToString(info.SHA256[:]), Stored: info.Version,
	})
	return nil
}

// spec fetches what the task is. The ID proves that these are the right bytes,
// whoever wrote them.
func (w *Worker) spec(ctx context.Context, id task.ID) (*task.Spec, error) {
	b, err := objstore.ReadAll(ctx, w.Store, task.SpecKey(id), task.MaxSpec)
	if errors.Is(err, objstore.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read spec of task %s: %w", id.Short(), err)
	}
	spec, err := task.ParseSpec(id, b)
	if err != nil {
		// Damaged in the store: the coordinator writes it again when it publishes.
		return nil, fmt.Errorf("%w: %s", errDamaged, err.Error())
	}
	return spec, nil
}

var errDamaged = errors.New("object is damaged")

// committed returns the result of a task, or nil if there is none. A result that
// cannot be read as one counts as absent.
func (w *Worker) committed(ctx context.Context, id task.ID) (*task.Result, error) {
	b, err := objstore.ReadAll(ctx, w.Store, task.ResultKey(id), task.MaxResult)
	if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read result of task %s: %w", id.Short(), err)
	}
	r, err := task.ParseResult(id, b)
	if err != nil {
		return nil, nil //nolint:nilerr // unreadable counts as absent
	}
	return r, nil
}

// commitError is an error after which nobody knows whether the commit came through.
type commitError struct{ err error }

func (e *commitError) Error() string { return e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// commit makes the attempt's outputs the task's result. If another attempt was
// first its result stands, and ours must be equal to it.
func (w *Worker) commit(ctx context.Context, m *task.Message, r *task.Result) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	key := task.ResultKey(r.ID)
	put := func(o objstore.PutOptions) error {
		if _, err := w.Store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), o); err != nil {
			return &commitError{err}
		}
		return nil
	}
	err = put(objstore.PutOptions{IfAbsent: true})
	if err == nil || !errors.Is(err, objstore.ErrExist) {
		return err
	}
	first, err := w.committed(ctx, r.ID)
	if err != nil {
		return &commitError{err}
	}
	if first == nil { // unreadable, or deleted meanwhile
		return put(objstore.PutOptions{})
	}
	if first.Attempt == r.Attempt { // a store's client asked twice: it is ours that stands
		return nil
	}
	if !task.SameBytes(first, r) {
		return fmt.Errorf("task %s: %w: first by worker %s (attempt %s), now by worker %s (attempt %s): one of the two machines is broken, or operation %s is not deterministic",
			r.ID.Short(), errNondeterministic, first.Worker, first.Attempt, r.Worker, r.Attempt, r.Op)
	}
	if first.Attempt == m.Repair {
		return put(objstore.PutOptions{})
	}
	w.discard(ctx, r.ID, r.Attempt)
	return nil
}

// discard removes what an attempt wrote. What it leaves is garbage for gc.
func (w *Worker) discard(ctx context.Context, id task.ID, attempt string) {
	for info, err := range w.Store.List(ctx, task.OutputKey(id, attempt, "")+"/") {
		if err == nil {
			err = w.Store.Delete(ctx, info.Key)
		}
		if err != nil {
			w.warn(ctx, "attempt not cleaned up", id, err)
			return
		}
	}
}

// settled reports whether the attempt's result stands although its commit failed,
// and whether that is known at all.
func (w *Worker) settled(ctx context.Context, id task.ID, attempt string) (stands, known bool) {
	r, err := w.committed(ctx, id)
	return err == nil && r != nil && r.Attempt == attempt, err == nil
}

// maxText bounds the text of a failure in bytes. It travels in a notice, where JSON
// may make six bytes of one.
const maxText = 8 << 10

// shorten cuts a text in its middle: it says at its beginning what failed and at
// its end why.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const gap = " [...] "
	head, tail := n/2, n-n/2-len(gap)
	return strings.ToValidUTF8(s[:head], "") + gap + strings.ToValidUTF8(s[len(s)-tail:], "")
}

// fail stores the failure with its run, takes the task off the queue, and tells of
// it: the coordinator decides whether it is tried again. It looks for stored
// failures when the notice is lost.
func (w *Worker) fail(ctx context.Context, d queue.Delivery, m *task.Message, attempt string, kind task.Kind, cause error) error {
	f := task.Failure{ID: m.ID, Attempt: attempt, Worker: w.Name, Kind: kind, Message: shorten(cause.Error(), maxText)}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode failure of task %s: %w", m.ID.Short(), err)
	}
	key := task.FailureKey(m.Run, m.ID, attempt)
	if _, err := w.Store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
		w.warn(ctx, "failure not stored", m.ID, err) // the notice must do
	}
	if err := d.Abandon(string(kind)); err != nil {
		w.warn(ctx, "task not abandoned", m.ID, err)
	}
	w.notify(&task.Notice{ID: m.ID, State: task.Failed, Worker: w.Name, Failure: &f})
	return nil
}

// warn logs what went wrong beside a task, unless the worker is being stopped: then
// it is no news that something could not be finished.
func (w *Worker) warn(ctx context.Context, what string, id task.ID, err error) {
	if ctx.Err() == nil {
		w.Log.Warn(what, "task", id.Short(), "err", err)
	}
}

// giveBack offers the task again after a while. If the queue does not take it back
// it comes back by itself when its time for acknowledgement is over.
func (w *Worker) giveBack(d queue.Delivery, m *task.Message, after time.Duration) {
	if err := d.Retry(after); err != nil {
		w.Log.Warn("task not given back", "task", m.ID.Short(), "err", err)
	}
}
