package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// attempt is one delivery of a task that this worker is at.
type attempt struct {
	id       string
	d        queue.Delivery
	m        *task.Message
	cell     queue.Cell
	place    *place
	since    time.Time
	progress pulse
	log      *slog.Logger
	tail     *tail
	// begun says that a record of it may be in the store.
	begun bool
	// stuck is closed when an operation ends that did not do so in time; nil if there
	// is none.
	stuck <-chan struct{}
}

// errStuck ends a worker that has no room left for tasks beside operations that do
// not stop.
var errStuck = errors.New("operations that do not stop hold its memory")

// handle brings a delivery to its end: acknowledged, abandoned or given back.
func (s *shift) handle(ctx context.Context, d queue.Delivery, m *task.Message, p *place) error {
	a := s.enlist(d, m, p)
	if a == nil {
		p.leave()
		s.giveBack(d, m, jitter(soon))
		return nil
	}
	beating, stop := s.heartbeat(d.Context(ctx), a)
	s.work(beating, a)
	stop()
	s.dismiss(a)
	if a.stuck == nil {
		p.leave()
		return nil
	}
	if left := p.strand(a.stuck); left < queue.SmallestMemory {
		return fmt.Errorf("worker %s: %w: %d bytes are left", s.Name, errStuck, left)
	}
	return nil
}

// enlist notes that this worker is at a task. It returns nil if it is already: a
// second copy, or the same message again because the broker has not heard of us.
func (s *shift) enlist(d queue.Delivery, m *task.Message, p *place) *attempt {
	a := &attempt{id: ulid.Make().String(), d: d, m: m, cell: d.Cell(), place: p, since: time.Now()}
	log, tail := capture(s.Log)
	a.log, a.tail = log.With("run", m.Run, "task", m.ID.Short(), "attempt", a.id), tail
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[m.ID] != nil {
		return nil
	}
	s.at[m.ID] = a
	s.change()
	return a
}

func (s *shift) dismiss(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, a.m.ID)
	s.change()
}

// work does the task, or finds that there is nothing to do, and settles its delivery.
func (s *shift) work(ctx context.Context, a *attempt) {
	first, err := s.committed(ctx, a.m.ID)
	switch {
	case err != nil:
		s.settle(ctx, a, err)
		return
	case a.m.Copy == task.CopyAudit && first == nil:
		s.voidAudit(ctx, a, errors.New("the task has no result"))
		return
	case a.m.Copy != task.CopyAudit && first != nil && first.Attempt != a.m.Repair:
		s.acknowledge(ctx, a)
		return
	}
	a.progress.beat(0)
	if over, err := s.poison(ctx, a); over || err != nil {
		if err != nil {
			s.settle(ctx, a, err)
		}
		return
	}
	spec, err := s.spec(ctx, a.m.ID)
	if err == nil {
		err = s.checkSpec(a.m, spec)
	}
	if err != nil {
		s.settle(ctx, a, err)
		return
	}
	op := s.Operations[spec.Op]
	if op == nil {
		s.once(fmt.Sprintf("operation %s is not known here", spec.Op), a.m)
		s.giveBack(a.d, a.m, jitter(later))
		return
	}
	if err := s.begin(ctx, a); err != nil {
		s.settle(ctx, a, err)
		return
	}
	s.notify(&task.Notice{ID: a.m.ID, State: task.Began})
	a.log.InfoContext(ctx, "attempt begins", "op", spec.Op, "class", spec.Class, "copy", a.m.Copy, "delivery", a.d.Attempt(), "memory", a.m.Memory, "kernel", s.Kernel)
	observed, observe := s.observe(ctx, a)
	var end AttemptEnd
	if a.m.Copy == task.CopyAudit {
		end = s.audit(observed, a, op, spec, first)
	} else {
		end = s.attempt(observed, a, op, spec)
	}
	end.Attempt, end.Bytes, end.Elapsed = a.id, a.progress.bytes.Load(), time.Since(a.since)
	observe(end)
}

// attempt runs the operation, commits its result and settles the delivery.
func (s *shift) attempt(ctx context.Context, a *attempt, op operation.Operation, spec *task.Spec) AttemptEnd {
	out := &outputs{store: s.store, id: a.m.ID, attempt: a.id}
	consumed, err := s.operate(ctx, a, op, spec, out.put)
	written := out.close()
	if err != nil {
		return s.settle(ctx, a, err)
	}
	for _, o := range written {
		a.log.DebugContext(ctx, "output", "name", o.Name, "bytes", o.Size, "sha256", o.SHA256)
	}
	// What is complete is committed, also by a worker that stops meanwhile.
	calm, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	late, err := s.commit(calm, a.m, &task.Result{
		ID: a.m.ID, Op: spec.Op, Class: spec.Class, Attempt: a.id, Worker: s.Name,
		Outputs: written, Consumed: consumed, Elapsed: time.Since(a.since),
	})
	if err != nil {
		return s.settle(ctx, a, err)
	}
	if late {
		s.discard(calm, a)
	}
	return s.committedIt(ctx, a, late)
}

// unwind is how long an operation that was told to stop may take to do so.
const unwind = 15 * time.Second

// operate runs the operation. One that neither ends nor stops is left behind.
func (s *shift) operate(ctx context.Context, a *attempt, op operation.Operation, spec *task.Spec, put putFunc) ([]task.Consumed, error) {
	type end struct {
		consumed []task.Consumed
		err      error
	}
	ended := make(chan end, 1)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var e end
		defer func() {
			if p := recover(); p != nil {
				e.err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
			}
			ended <- e
		}()
		e.consumed, e.err = op.Run(ctx, spec, &operation.Env{
			Message:  a.m,
			Sources:  s.Sources,
			Store:    s.store,
			Kernel:   s.Kernel,
			Progress: a.progress.beat,
			Put:      put,
		})
	}()
	select {
	case e := <-ended:
		return e.consumed, e.err
	case <-ctx.Done():
	}
	t := time.NewTimer(unwind)
	defer t.Stop()
	select {
	case e := <-ended:
		return e.consumed, e.err
	case <-t.C:
		a.stuck = gone
		a.log.ErrorContext(ctx, "operation does not stop, its memory stays taken", "op", spec.Op, "memory", a.m.Memory)
		return nil, context.Cause(ctx)
	}
}

// last returns a context for what must be done although ctx may have ended.
func last(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

// settle ends the delivery of an attempt without a result.
func (s *shift) settle(ctx context.Context, a *attempt, err error) AttemptEnd {
	calm, cancel := last(ctx)
	defer cancel()
	var unsure *commitError
	if errors.As(err, &unsure) {
		stands, known := s.settled(calm, a.m.ID, a.id)
		if stands {
			return s.committedIt(ctx, a, false)
		}
		if known {
			s.discard(calm, a)
		} // else a result may name these bytes: better garbage than a hole
	} else if a.begun {
		s.discard(calm, a)
	}
	kind := kindOf(err)
	switch {
	case kind == task.Nondeterministic: // must be told even by a worker that stops
	case errors.Is(context.Cause(ctx), errSilent):
		kind, err = task.Transient, fmt.Errorf("%w for %v", errSilent, s.silence())
	case ctx.Err() != nil:
		a.log.InfoContext(ctx, "attempt is given back, the worker stops")
		s.end(calm, a, task.AttemptDrained, err)
		s.giveBack(a.d, a.m, 0)
		return AttemptEnd{State: task.AttemptDrained, Err: err}
	case storage(kind):
		after := s.rest()
		a.log.WarnContext(ctx, "attempt failed by the store, the task is given back", "after", after, "err", err)
		s.end(calm, a, task.AttemptStorage, err)
		s.giveBack(a.d, a.m, after)
		if a.m.Copy != task.CopyAudit { // nobody waits for an audit, and the task has its result
			s.notify(&task.Notice{ID: a.m.ID, State: task.Failed, Failure: s.failure(a, kind, err)})
		}
		return AttemptEnd{State: task.AttemptStorage, Kind: kind, Err: err}
	}
	a.log.InfoContext(ctx, "attempt failed", "kind", kind, "err", err) // the run tells of it, from the failure
	s.end(calm, a, task.AttemptFailed, err)
	s.fail(calm, a.d, a.m, s.failure(a, kind, err))
	return AttemptEnd{State: task.AttemptFailed, Kind: kind, Err: err}
}

// committedIt ends the delivery of an attempt with a result.
func (s *shift) committedIt(ctx context.Context, a *attempt, late bool) AttemptEnd {
	calm, cancel := last(ctx)
	defer cancel()
	state := task.AttemptDone
	if late {
		state = task.AttemptLate
	}
	a.log.InfoContext(ctx, "attempt ends", "state", state, "bytes", a.progress.bytes.Load(), "elapsed", time.Since(a.since))
	s.acknowledge(calm, a)
	s.end(calm, a, state, nil)
	s.rested()
	s.done.Add(1)
	s.bytes.Add(a.progress.bytes.Load())
	return AttemptEnd{State: state}
}

// acknowledge takes a task off the queue that has a result.
func (s *shift) acknowledge(ctx context.Context, a *attempt) {
	if err := a.d.Done(ctx); err != nil {
		// The task is committed: whoever is offered it again will see that.
		s.warn(ctx, "acknowledgement failed", a.m.ID, err)
	}
	s.notify(&task.Notice{ID: a.m.ID, State: task.Done})
}

// discard removes what an attempt wrote. What it leaves is garbage for gc.
func (s *shift) discard(ctx context.Context, a *attempt) {
	for info, err := range s.store.List(ctx, task.OutputKey(a.m.ID, a.id, "")+"/") {
		if err == nil {
			err = s.store.Delete(ctx, info.Key)
		}
		if err != nil {
			if !errors.Is(err, objstore.ErrNotExist) {
				s.warn(ctx, "attempt not cleaned up", a.m.ID, err)
			}
			return
		}
	}
}
