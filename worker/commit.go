package worker

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// maxObject bounds specs and results when they are read back, in bytes.
const maxObject = 64 << 20

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
	b, err := read(ctx, w.Store, task.SpecKey(id))
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
	b, err := read(ctx, w.Store, task.ResultKey(id))
	if errors.Is(err, objstore.ErrNotExist) {
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

// commit makes the attempt's outputs the task's result. If another attempt was
// first its result stands, and ours must be equal to it.
func (w *Worker) commit(ctx context.Context, m *task.Message, r *task.Result) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	key := task.ResultKey(r.ID)
	put := func(o objstore.PutOptions) error {
		_, err := w.Store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), o)
		return err
	}
	err = put(objstore.PutOptions{IfAbsent: true})
	if err == nil || !errors.Is(err, objstore.ErrExist) {
		return err
	}
	first, err := w.committed(ctx, r.ID)
	if err != nil {
		return err
	}
	if first == nil { // unreadable
		return put(objstore.PutOptions{})
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
			w.Log.Warn("attempt not cleaned up", "task", id.Short(), "err", err)
			return
		}
	}
}

// fail stores the failure with its run, tells of it, and takes the task off the
// queue: the coordinator decides whether it is tried again.
func (w *Worker) fail(ctx context.Context, d queue.Delivery, m *task.Message, attempt string, kind task.Kind, cause error) error {
	f := &task.Failure{ID: m.ID, Attempt: attempt, Worker: w.Name, Kind: kind, Message: cause.Error()}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode failure of task %s: %w", m.ID.Short(), err)
	}
	key := "runs/" + m.Run + "/failures/" + m.ID.String() + "-" + attempt + ".json"
	if _, err := w.Store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
		w.Log.Warn("failure not stored", "task", m.ID.Short(), "err", err)
		if kind != task.Full { // then the notice must do
			return d.Retry(5 * time.Second)
		}
	}
	if err := d.Abandon(string(kind)); err != nil {
		w.Log.Warn("task not abandoned", "task", m.ID.Short(), "err", err)
	}
	w.notify(&task.Notice{ID: m.ID, State: task.Failed, Worker: w.Name, Failure: f})
	return nil
}

func read(ctx context.Context, b objstore.Bucket, key string) ([]byte, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxObject {
		return nil, fmt.Errorf("object %s: %w: larger than %d bytes", key, errDamaged, maxObject)
	}
	return data, nil
}
