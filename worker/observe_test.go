package worker

import (
	"context"
	"errors"
	"testing"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

type fakeObserver struct {
	t    *testing.T
	ends chan AttemptEnd
}

type spanKey struct{}

func (o *fakeObserver) Attempt(ctx context.Context, m *task.Message, d queue.Delivery) (context.Context, func(AttemptEnd)) {
	if ctx.Value(traceKey{}) != "trace" {
		o.t.Error("the attempt does not go on with what the message brought along")
	}
	return context.WithValue(ctx, spanKey{}, m.ID), func(e AttemptEnd) {
		if d.(*fakeDelivery).fate == "" {
			o.t.Error("the observer is told before the end")
		}
		o.ends <- e
	}
}

// TestObserver is told of attempts that begin, and of nothing else.
func TestObserver(t *testing.T) {
	t.Parallel()
	f := newFleet()
	o := &fakeObserver{t, make(chan AttemptEnd, 1)}
	var fails error
	w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
		if ctx.Value(spanKey{}) != env.Message.ID {
			t.Error("the operation does not run in what the observer made")
		}
		env.Progress(5)
		if fails != nil {
			return fails
		}
		return writes("bytes")(ctx, s, env)
	}))
	w.Observer = o
	defer start(t, w)()
	for _, c := range []struct {
		err   error
		state string
		kind  task.Kind
	}{
		{nil, task.AttemptDone, ""},
		{errors.New("cable"), task.AttemptFailed, task.Transient},
		{&operation.StoreError{Err: errors.New("away")}, task.AttemptStorage, task.Storage},
	} {
		fails = c.err
		m := f.task(t, c.state)
		f.queue.offer(m, 1).wait(t)
		e := <-o.ends
		if e.State != c.state || e.Kind != c.kind || !errors.Is(e.Err, c.err) || e.Bytes != 5 || e.Attempt == "" || e.Elapsed < 0 {
			t.Errorf("end %+v", e)
		}
		if r := f.records(t, m); len(r) != 1 || r[0].Attempt != e.Attempt {
			t.Errorf("records %+v", r)
		}
		if c.err == nil { // again: there is nothing to do
			f.queue.offer(m, 2).wait(t)
		}
	}
	if len(o.ends) != 0 {
		t.Error("the observer was told of what was no attempt")
	}
}
