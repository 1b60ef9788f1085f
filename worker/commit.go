package worker

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/redact"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// putFunc stores one output of an operation.
type putFunc = func(ctx context.Context, name string, r io.Reader, size int64) error

// plainName reports whether name is that of one file, here and elsewhere.
func plainName(name string) bool {
	return name != "." && filepath.IsLocal(name) && !strings.ContainsAny(name, "/\\\x00")
}

// outputs writes the output objects of one attempt.
type outputs struct {
	store   objstore.Bucket
	id      task.ID
	attempt string

	mu      sync.Mutex
	written []task.Written
	closed  bool
}

// errClosed is what an operation is told that writes after its attempt has ended.
var errClosed = errors.New("the attempt has ended")

func (o *outputs) put(ctx context.Context, name string, r io.Reader, size int64) error {
	if !plainName(name) {
		return fmt.Errorf("write output %q: %w: not a plain name", name, task.ErrInvalid)
	}
	if o.ended() {
		return fmt.Errorf("write %s: %w", name, errClosed)
	}
	key := task.OutputKey(o.id, o.attempt, name)
	info, err := o.store.Put(ctx, key, r, size, objstore.PutOptions{})
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written = append(o.written, task.Written{
		Name: name, Key: key, Size: info.Size, SHA256: hex.EncodeToString(info.SHA256[:]), Stored: info.Version,
	})
	return nil
}

func (o *outputs) ended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// close returns what was written, and lets nothing more be.
func (o *outputs) close() []task.Written {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return o.written
}

// spec fetches what the task is. The ID proves that these are the right bytes,
// whoever wrote them.
func (s *shift) spec(ctx context.Context, id task.ID) (*task.Spec, error) {
	b, err := objstore.ReadAll(ctx, s.store, task.SpecKey(id), task.MaxSpec)
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
func (s *shift) committed(ctx context.Context, id task.ID) (*task.Result, error) {
	b, err := objstore.ReadAll(ctx, s.store, task.ResultKey(id), task.MaxResult)
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
// first its result stands, ours must be equal to it, and we are late.
func (s *shift) commit(ctx context.Context, m *task.Message, r *task.Result) (late bool, err error) {
	b, err := r.Encode()
	if err != nil {
		return false, err
	}
	key := task.ResultKey(r.ID)
	put := func(o objstore.PutOptions) error {
		if _, err := s.store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), o); err != nil {
			return &commitError{err}
		}
		return nil
	}
	err = put(objstore.PutOptions{IfAbsent: true})
	if err == nil || !errors.Is(err, objstore.ErrExist) {
		return false, err
	}
	first, err := s.committed(ctx, r.ID)
	if err != nil {
		return false, &commitError{err}
	}
	if first == nil { // unreadable, or deleted meanwhile
		return false, put(objstore.PutOptions{})
	}
	if first.Attempt == r.Attempt { // a store's client asked twice: it is ours that stands
		return false, nil
	}
	if !task.SameBytes(first, r) {
		return false, fmt.Errorf("task %s: %w: first by worker %s (attempt %s), now by worker %s (attempt %s): one of the two machines is broken, or operation %s is not deterministic",
			r.ID.Short(), errNondeterministic, first.Worker, first.Attempt, r.Worker, r.Attempt, r.Op)
	}
	if first.Attempt == m.Repair {
		return false, put(objstore.PutOptions{})
	}
	return true, nil
}

// settled reports whether the attempt's result stands although its commit failed,
// and whether that is known at all.
func (s *shift) settled(ctx context.Context, id task.ID, attempt string) (stands, known bool) {
	r, err := s.committed(ctx, id)
	return err == nil && r != nil && r.Attempt == attempt, err == nil
}

// maxText bounds the text of a failure in bytes. It travels in a notice, where JSON
// may make six bytes of one.
const maxText = 8 << 10

// public is the text of an error as it is stored and told.
func public(err error) string { return shorten(redact.Text(err.Error()), maxText) }

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

// failure describes why an attempt gave no result.
func (s *shift) failure(a *attempt, kind task.Kind, cause error) *task.Failure {
	f := &task.Failure{ID: a.m.ID, Attempt: a.id, Worker: s.Name, Copy: a.m.Copy, Kind: kind, Message: public(cause)}
	var lost *operation.LostInput
	if kind == task.Lost && errors.As(cause, &lost) {
		f.Producer = &task.Producer{ID: lost.ID, Attempt: lost.Attempt}
	}
	return f
}

// fail stores a failure with its run, takes the task off the queue, and tells of it:
// the coordinator decides whether it is tried again. It looks for stored failures
// when the notice is lost.
func (s *shift) fail(ctx context.Context, d queue.Delivery, m *task.Message, f *task.Failure) {
	b, err := json.Marshal(f)
	if err == nil {
		_, err = s.store.Put(ctx, task.FailureKey(m.Run, m.ID, f.Attempt), bytes.NewReader(b), int64(len(b)), objstore.PutOptions{})
	}
	if err != nil {
		s.warn(ctx, "failure not stored", m.ID, err) // the notice must do
	}
	if err := d.Abandon(string(f.Kind)); err != nil {
		s.warn(ctx, "task not abandoned", m.ID, err)
	}
	s.notify(&task.Notice{ID: m.ID, State: task.Failed, Failure: f})
}

// refuse fails a task whose message nobody should have sent, without beginning it.
func (s *shift) refuse(ctx context.Context, d queue.Delivery, m *task.Message, cause error) {
	s.Log.Error("message refused", "task", m.ID.Short(), "err", cause)
	ctx, cancel := last(ctx)
	defer cancel()
	if !task.ValidToken(m.Run) { // it must not become part of a key
		if err := d.Abandon(string(task.Invalid)); err != nil {
			s.warn(ctx, "task not abandoned", m.ID, err)
		}
		return
	}
	s.fail(ctx, d, m, &task.Failure{
		ID: m.ID, Attempt: ulid.Make().String(), Worker: s.Name, Copy: m.Copy, Kind: task.Invalid, Message: public(cause),
	})
}

// warn logs what went wrong beside a task, unless the worker is being stopped: then
// it is no news that something could not be finished.
func (s *shift) warn(ctx context.Context, what string, id task.ID, err error) {
	if ctx.Err() == nil {
		s.Log.Warn(what, "task", id.Short(), "err", err)
	}
}
