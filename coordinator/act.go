package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// act carries out effects. done is true after the last one.
func (d *driver) act(ctx context.Context, effects []Effect) (finish error, done bool) {
	for _, e := range effects {
		if f, ok := e.(Finish); ok { // what is withdrawn before it is withdrawn when nothing is on its way any more
			for _, e := range effects {
				if n, ok := e.(Noted); ok {
					d.noted(ctx, n)
				}
			}
			return f.Err, true
		}
	}
	for _, e := range effects {
		switch e := e.(type) {
		case Publish:
			if e.Copy == task.CopyTwin {
				d.tell(ctx, Update{Kind: UpdateTwin, Unit: d.index[e.ID], Task: e.ID.Short(), Worker: e.Avoid})
			}
			reason := d.reason(e)
			d.spawn(func() func(context.Context) []Effect { return d.publish(ctx, e, reason) })
		case Withdraw:
			d.spawn(func() func(context.Context) []Effect {
				d.take(ctx, e)
				return func(context.Context) []Effect { return nil }
			})
		case Noted:
			d.noted(ctx, e)
		case Pause:
			d.wait(ctx, e.Failure)
		case Look:
			d.look(ctx, e.ID)
		case Forget:
			d.forget(ctx, e) // in the order of the effects: readers before what they read
		case Expire, Decide:
			return fmt.Errorf("plan: %w: no task of it expires or decides", errPlan), true
		case Place:
			d.live.gone(e.Result.ID, "")
			fresh := d.fresh[d.index[e.Result.ID]]
			d.apart(func() func(context.Context) []Effect { return d.note(d.place(ctx, e.Result, fresh)) })
		case Assemble:
			d.tell(ctx, Update{Kind: UpdateAssemble})
			d.live.phase = PhaseAssembling
			results := d.state.Results()
			d.apart(func() func(context.Context) []Effect { return d.note(d.assemble(ctx, results)) })
		}
	}
	return nil, false
}

// noted tells watchers of a failure.
func (d *driver) noted(ctx context.Context, n Noted) {
	f := n.Failure
	d.outcome.Failures++
	d.live.gone(f.ID, f.Worker)
	if !n.Final {
		d.observe.Retried(ctx, f.Kind)
	}
	d.tell(ctx, Update{
		Kind: UpdateFailed, Unit: d.index[f.ID], Task: f.ID.Short(), Worker: f.Worker, Message: f.Message,
		Final: n.Final && !d.KeepGoing || f.Kind == task.Full && !d.Resident,
	})
}

// note tells watchers of an event and passes it to the state.
func (d *driver) note(e Event) func(context.Context) []Effect {
	return func(ctx context.Context) []Effect {
		switch e := e.(type) {
		case Placed:
			d.tell(ctx, Update{Kind: UpdatePlaced, Unit: d.index[e.ID], Task: e.ID.Short()})
		case Broken:
			d.outcome.Repaired++
			d.observe.Repaired(ctx)
			d.tell(ctx, Update{Kind: UpdateRepair, Unit: d.index[e.ID], Task: e.ID.Short(), Message: e.Reason})
			d.Log.Warn("stored bytes were lost, making them again", "task", e.ID.Short(), "reason", e.Reason)
		}
		return d.state.Step(e)
	}
}

// message is what a copy of a task is offered as.
func (d *driver) message(p Publish) (*task.Message, error) {
	u := &d.Plan.Units[d.index[p.ID]]
	m := &task.Message{
		ID: u.ID, Run: d.outcome.Run, Op: operation.EncodeOp, Class: operation.ClassF32, Memory: d.memory(u),
		Location: d.Location, Files: u.Files, Repair: p.Repair, Copy: p.Copy, Audit: p.Audit, Avoid: p.Avoid, Escalate: p.Escalate,
	}
	if p.Escalate > 0 {
		cell, err := queue.CellOf(m)
		if err != nil {
			return nil, err
		}
		if larger, err := queue.MemoryClass(cell.Memory << p.Escalate); err == nil { // there may be none
			m.Memory = larger
		}
	}
	return m, nil
}

// publish stores the spec, which the ID proves, and queues the task.
func (d *driver) publish(ctx context.Context, p Publish, reason string) func(context.Context) []Effect {
	u := &d.Plan.Units[d.index[p.ID]]
	fail := func(err error) func(context.Context) []Effect {
		if ctx.Err() != nil { // the run's end is on its way
			return func(context.Context) []Effect { return nil }
		}
		if d.Resident { // storage and broker come back; the reconciler asks again
			d.Log.Warn("task not published", "task", u.ID.Short(), "err", err)
			return func(context.Context) []Effect { return nil }
		}
		return d.step(Stopped{Err: err})
	}
	m, err := d.message(p)
	if err != nil {
		return d.step(Stopped{Err: err})
	}
	_, err = d.Store.Put(ctx, task.SpecKey(u.ID), bytes.NewReader(u.Spec), int64(len(u.Spec)), objstore.PutOptions{})
	if err != nil {
		return fail(fmt.Errorf("store task %s: %w", u.ID.Short(), err))
	}
	octx, published := d.observe.Published(ctx, m, reason)
	err = d.Queue.Publish(octx, m)
	outstanding := errors.Is(err, queue.ErrOutstanding)
	published(err == nil, ignored(err, outstanding))
	if outstanding {
		// Queued already, or its last delivery is just being removed from the queue:
		// then nobody has it, and nobody will say so.
		return func(context.Context) []Effect { d.soon(); return nil }
	}
	if err != nil {
		return fail(err)
	}
	return func(context.Context) []Effect {
		d.asked[d.index[p.ID]] = true
		d.live.published(p)
		return nil
	}
}

// ignored drops an error that is none.
func ignored(err error, ignore bool) error {
	if ignore {
		return nil
	}
	return err
}

// take takes a copy of a task off the queue. One that stays there is done in vain, or
// found to be done.
func (d *driver) take(ctx context.Context, w Withdraw) {
	m, err := d.message(Publish{ID: w.ID, Copy: w.Copy, Audit: auditOfNone(w.Copy)})
	if err == nil {
		err = d.Queue.Withdraw(ctx, m)
	}
	if err != nil && ctx.Err() == nil {
		d.Log.Debug("task not withdrawn", "task", w.ID.Short(), "err", err)
	}
}

func auditOfNone(which string) string {
	if which == task.CopyAudit {
		return "none"
	}
	return ""
}

// withdraw takes what is outstanding off the queue at the end of a run. One that did
// not end well also takes what an earlier coordinator published, of which this one
// does not know. Another run that wants a task publishes it again.
func (d *driver) withdraw(ctx context.Context, effects []Effect, ended error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, e := range effects {
		if w, ok := e.(Withdraw); ok {
			d.take(ctx, w)
		}
	}
	if ended == nil || !d.Resident {
		return
	}
	for _, which := range []string{"", task.CopyTwin, task.CopyAudit} {
		queued, err := d.outstanding(ctx, which)
		if err != nil {
			d.Log.Debug("tasks not withdrawn", "err", err)
			return
		}
		for i := range d.Plan.Units {
			if id := d.Plan.Units[i].ID; queued[id] {
				d.take(ctx, Withdraw{ID: id, Copy: which})
			}
		}
	}
}

// forget removes a result that was made of other input bytes than those that
// stand.
func (d *driver) forget(ctx context.Context, f Forget) {
	r, err := d.result(ctx, f.ID)
	if err == nil && r != nil && r.Attempt == f.Attempt {
		err = d.Store.Delete(ctx, task.ResultKey(f.ID))
	}
	if err != nil && ctx.Err() == nil {
		d.Log.Warn("stale result not removed", "task", f.ID.Short(), "err", err)
	}
}

// How long a paused run waits before it tries the store again.
const (
	retryStore      = 2 * time.Second
	retryStoreAtMax = 30 * time.Second
)

// wait has a run wait until the store takes bytes again.
func (d *driver) wait(ctx context.Context, f task.Failure) {
	if !d.Resident { // nobody is there who could make room meanwhile
		d.spawn(func() func(context.Context) []Effect {
			return d.step(Stopped{Err: &TaskError{Failure: f, Attempts: 1}})
		})
		return
	}
	d.tell(ctx, Update{Kind: UpdatePaused, Message: f.Message})
	d.Log.Warn("run paused until the store works again", "reason", f.Message)
	d.live.phase, d.live.reason = PhasePaused, f.Message
	first := min(max(2*d.paused, retryStore), retryStoreAtMax)
	d.paused = first
	d.apart(func() func(context.Context) []Effect {
		// What is probed with may fit where an output does not: the pauses grow until
		// something was done in between.
		for t := first; ; t = min(2*t, retryStoreAtMax) {
			if !pause(ctx, t) {
				return func(context.Context) []Effect { return nil }
			}
			err := d.probe(ctx)
			if err == nil {
				break
			}
			d.Log.Info("store does not work yet", "err", err)
		}
		return func(ctx context.Context) []Effect {
			d.live.phase, d.live.reason = PhaseRunning, ""
			d.tell(ctx, Update{Kind: UpdateResumed})
			return d.state.Step(Resumed{})
		}
	})
}

// probeSize is what a store must take before a paused run goes on: more than the
// last free block, less than anybody would miss.
const probeSize = 1 << 20

// probe tries whether the store takes bytes.
func (d *driver) probe(ctx context.Context) error {
	key := RunKey(d.outcome.Run, "probe")
	if _, err := d.Store.Put(ctx, key, bytes.NewReader(make([]byte, probeSize)), probeSize, objstore.PutOptions{}); err != nil {
		return err
	}
	return d.Store.Delete(ctx, key)
}

func (d *driver) place(ctx context.Context, r *task.Result, fresh bool) Event {
	u := &d.Plan.Units[d.index[r.ID]]
	for {
		pctx, placed := d.observe.Placed(ctx, r.ID, u.Layout.Size())
		err := d.Output.Place(pctx, d.Store, u, r, fresh)
		placed(err)
		var lost *lostError
		switch {
		case err == nil:
			return Placed{ID: r.ID, Attempt: r.Attempt}
		case errors.As(err, &lost):
			return Broken{ID: r.ID, Attempt: r.Attempt, Reason: lost.Error()}
		case !d.again(ctx, "file not placed yet", err):
			return Stopped{Err: err}
		}
	}
}

func (d *driver) assemble(ctx context.Context, results []*task.Result) Event {
	for {
		actx, assembled := d.observe.Phase(ctx, "assemble")
		report, err := d.Output.Assemble(actx, d.Store, d.Plan, results)
		assembled(err)
		var lost *lostError
		switch {
		case err == nil:
			d.outcome.Report = report
			return Assembled{}
		case errors.As(err, &lost):
			return Broken{ID: lost.id, Attempt: lost.attempt, Reason: lost.Error()}
		case !d.again(ctx, "result not assembled yet", err):
			return Stopped{Err: err}
		}
	}
}

// again waits before a resident run tries once more what failed by the store's
// fault, and reports whether it should.
func (d *driver) again(ctx context.Context, what string, err error) bool {
	if !d.Resident || ctx.Err() != nil || !passing(err) {
		return false
	}
	d.Log.Warn(what, "err", err)
	return pause(ctx, retryStore)
}

// passing reports whether an error may be gone when the store works again.
func passing(err error) bool {
	return !invalid(err) && !errors.Is(err, objstore.ErrKey) && !errors.Is(err, objstore.ErrReadOnly) && !errors.Is(err, objstore.ErrNotExist)
}
