package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// nothing is what comes of an effect that changes nothing.
func nothing(context.Context) []Effect { return nil }

// existing reads what the store holds already: results, and audits of this run.
func (d *driver) existing(ctx context.Context) (Started, error) {
	s := Started{Results: map[task.ID]*task.Result{}, Audits: map[task.ID]Audited{}}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lanes)
	results := make([]*task.Result, len(d.Plan.Units))
	forget := d.NoReuse
	if forget && d.Resident {
		// Whoever took the run over must not forget what was done in it.
		done, err := exists(ctx, d.Store, RunKey(d.outcome.Run, forgottenName))
		if err != nil {
			return s, err
		}
		forget = !done
	}
	for i, u := range d.Plan.Units {
		g.Go(func() (err error) {
			if forget {
				if err := d.Store.Delete(gctx, task.ResultKey(u.ID)); err != nil {
					return fmt.Errorf("forget result of task %s: %w", u.ID.Short(), err)
				}
				return nil
			}
			results[i], err = d.result(gctx, u.ID)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return s, err
	}
	if forget {
		if err := d.putJSON(ctx, forgottenName, true); err != nil {
			return s, err
		}
	}
	for i, r := range results {
		if r != nil {
			s.Results[d.Plan.Units[i].ID] = r
		}
	}
	if d.Audit <= 0 {
		return s, nil
	}
	prefix := "runs/" + d.outcome.Run + "/audits/"
	for info, err := range d.Store.List(ctx, prefix) {
		if err != nil {
			return s, fmt.Errorf("list audits: %w", err)
		}
		id, err := task.ParseID(strings.TrimSuffix(strings.TrimPrefix(info.Key, prefix), ".json"))
		if err != nil {
			continue
		}
		if a, err := d.audit(ctx, id); err == nil && a != nil {
			s.Audits[id] = auditedBy(a)
		}
	}
	return s, nil
}

// result reads a result.json; one that cannot be one counts as absent.
func (d *driver) result(ctx context.Context, id task.ID) (*task.Result, error) {
	b, err := objstore.ReadAll(ctx, d.Store, task.ResultKey(id), task.MaxResult)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return nil, nil
	case errors.Is(err, objstore.ErrTooLarge):
		d.Log.Warn("result is damaged and counts as absent", "task", id.Short(), "err", err)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read result of task %s: %w", id.Short(), err)
	}
	r, err := task.ParseResult(id, b)
	if err != nil {
		d.Log.Warn("result is damaged and counts as absent", "task", id.Short(), "err", err)
		return nil, nil
	}
	slim(r)
	return r, nil
}

// slim has a result, of which a run keeps one for each task, say what all of them say
// in one place.
func slim(r *task.Result) {
	if r.Op == operation.EncodeOp {
		r.Op = operation.EncodeOp
	}
	if r.Class == operation.ClassF32 {
		r.Class = operation.ClassF32
	}
	for i := range r.Outputs {
		o := &r.Outputs[i] // whose key ends in its name
		o.Name = o.Key[len(o.Key)-len(o.Name):]
	}
}

// audit reads what came of the audit of a task; nil if it is not there.
func (d *driver) audit(ctx context.Context, id task.ID) (*task.Audit, error) {
	b, err := objstore.ReadAll(ctx, d.Store, task.AuditKey(d.outcome.Run, id), task.MaxAttempt)
	if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read audit of task %s: %w", id.Short(), err)
	}
	a, err := task.ParseAudit(id, b)
	if err != nil {
		d.Log.Warn("audit is damaged and counts as absent", "task", id.Short(), "err", err)
		return nil, nil
	}
	return a, nil
}

func auditedBy(a *task.Audit) Audited {
	return Audited{ID: a.ID, Attempt: a.Audited, First: a.First, Worker: a.Worker, Equal: a.Equal, Detail: a.Detail}
}

// notice turns a hint from the queue into an event, by looking at the store.
func (d *driver) notice(ctx context.Context, n *task.Notice) []Effect {
	i, ours := d.index[n.ID]
	if !ours {
		return nil
	}
	switch n.State {
	case task.Began:
		d.live.began(n)
	case task.Progress:
		d.live.progress(n)
		d.tell(ctx, Update{Kind: UpdateProgress, Unit: i, Task: n.ID.Short(), Worker: n.Worker, Bytes: n.Bytes})
	case task.Failed:
		if n.Failure == nil || n.Failure.ID != n.ID {
			return nil
		}
		return d.state.Step(Failed{Failure: *n.Failure})
	case task.Audited:
		d.lookAudit(ctx, n.ID)
	case task.Done:
		d.live.finished(n)
		d.look(ctx, n.ID)
	}
	return nil
}

// look reads a task's result. A queued task that has none, or still has the one
// whose bytes were lost, is published again: it is no longer in the queue.
func (d *driver) look(ctx context.Context, id task.ID) {
	if d.looking[id] {
		return
	}
	d.looking[id] = true
	d.spawn(func() func(context.Context) []Effect {
		r, err := d.result(ctx, id)
		return func(ctx context.Context) []Effect {
			delete(d.looking, id)
			return d.looked(ctx, id, r, err)
		}
	})
}

func (d *driver) looked(ctx context.Context, id task.ID, r *task.Result, err error) []Effect {
	switch {
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil && d.Resident && passing(err):
		d.Log.Warn("store does not answer", "err", err)
		return nil // the reconciler looks again
	case err != nil:
		return d.state.Step(Stopped{Err: err})
	case r == nil:
		return d.state.Step(Missing{ID: id})
	}
	effects := d.state.Step(Finished{Result: r})
	if d.state.Result(id) != r {
		return append(effects, d.state.Step(Missing{ID: id})...)
	}
	d.fresh[d.index[id]] = true
	d.paused = 0
	d.live.took(id, r)
	d.tell(ctx, Update{Kind: UpdateDone, Unit: d.index[id], Task: id.Short(), Worker: r.Worker})
	return effects
}

// lookAudit reads what came of an audit.
func (d *driver) lookAudit(ctx context.Context, id task.ID) {
	d.spawn(func() func(context.Context) []Effect {
		a, err := d.audit(ctx, id)
		return func(ctx context.Context) []Effect {
			switch {
			case err != nil:
				return nil // the reconciler looks again
			case a == nil:
				return d.state.Step(Missing{ID: id, Copy: task.CopyAudit})
			}
			u := Update{Kind: UpdateAudited, Unit: d.index[id], Task: id.Short(), Worker: a.Worker}
			if !a.Equal {
				u.Message = a.Detail
			}
			d.tell(ctx, u)
			d.outcome.Audited++
			d.observe.Audited(ctx, map[bool]string{true: "equal", false: "unequal"}[a.Equal])
			return d.state.Step(auditedBy(a))
		}
	})
}

// reconcile makes good what was lost on the way: it compares what should be
// outstanding with the queue and the store. A task leaves the queue only after its
// commit, or after its failure was stored, so asking the queue first misses none.
func (d *driver) reconcile(ctx context.Context) {
	wanted := d.state.Outstanding()
	repin := time.Since(d.pinned) >= pinEvery
	if repin {
		d.pinned = time.Now()
	}
	sweep := len(wanted) > 0 && time.Since(d.swept) >= sweepEvery
	if sweep {
		d.swept = time.Now()
	}
	d.spawn(func() func(context.Context) []Effect {
		if repin {
			if err := d.pin(ctx); err != nil && ctx.Err() == nil {
				d.Log.Warn("run not pinned", "err", err)
			}
		}
		if cancelled, err := d.cancelled(ctx); err == nil && cancelled {
			return d.step(Stopped{Err: ErrCancelled})
		}
		if sweep { // first, for what is stranded would pass for outstanding
			if _, err := d.Queue.DropStranded(ctx); err != nil && ctx.Err() == nil {
				d.Log.Warn("queue not searched for stranded tasks", "err", err)
			}
		}
		absent, err := d.absent(ctx, wanted)
		if err != nil {
			if ctx.Err() == nil {
				d.Log.Warn("queue does not answer", "err", err)
			}
			return nothing
		}
		var failures []task.Failure
		for _, p := range absent {
			if p.Copy != "" {
				continue
			}
			found, err := d.failures(ctx, p.ID)
			if err != nil && ctx.Err() == nil {
				d.Log.Warn("store does not answer", "err", err)
			}
			failures = append(failures, found...)
		}
		return func(ctx context.Context) []Effect { return d.trace(ctx, absent, failures) }
	})
}

// cancelled asks the store whether somebody wants the run to end.
func (d *driver) cancelled(ctx context.Context) (bool, error) {
	if !d.Resident {
		return false, nil
	}
	return exists(ctx, d.Store, RunKey(d.outcome.Run, cancelName))
}

// outstanding lists the tasks of which the queue has that copy.
func (d *driver) outstanding(ctx context.Context, which string) (map[task.ID]bool, error) {
	if which == "" {
		return d.Queue.Outstanding(ctx)
	}
	return d.Queue.OutstandingCopies(ctx, which)
}

// absent gives the copies that the queue does not have.
func (d *driver) absent(ctx context.Context, wanted []Publish) ([]Publish, error) {
	queued := map[string]map[task.ID]bool{}
	for _, p := range wanted {
		if queued[p.Copy] != nil {
			continue
		}
		var err error
		if queued[p.Copy], err = d.outstanding(ctx, p.Copy); err != nil {
			return nil, err
		}
	}
	var absent []Publish
	for _, p := range wanted {
		if !queued[p.Copy][p.ID] {
			absent = append(absent, p)
		}
	}
	return absent, nil
}

// trace looks for what became of copies that the queue does not have. The news of
// most failures has come already, and the state knows them.
func (d *driver) trace(ctx context.Context, absent []Publish, failures []task.Failure) []Effect {
	var effects []Effect
	known := map[task.ID]bool{}
	for _, f := range failures {
		if more := d.state.Step(Failed{Failure: f}); len(more) > 0 {
			known[f.ID] = true
			effects = append(effects, more...)
		}
	}
	for _, p := range absent {
		switch {
		case p.Copy == task.CopyAudit:
			d.lookAudit(ctx, p.ID)
		case p.Copy != "":
			effects = append(effects, d.state.Step(Missing{ID: p.ID, Copy: p.Copy})...)
		case !known[p.ID]:
			d.look(ctx, p.ID)
		}
	}
	return effects
}

// failures reads those attempts at a task in this run that failed.
func (d *driver) failures(ctx context.Context, id task.ID) ([]task.Failure, error) {
	var all []task.Failure
	for info, err := range d.Store.List(ctx, task.FailurePrefix(d.outcome.Run, id)) {
		if err != nil {
			return all, fmt.Errorf("list failures of task %s: %w", id.Short(), err)
		}
		b, err := objstore.ReadAll(ctx, d.Store, info.Key, task.MaxFailure)
		if err != nil && !errors.Is(err, objstore.ErrTooLarge) {
			return all, fmt.Errorf("read failure of task %s: %w", id.Short(), err)
		}
		var f *task.Failure
		if err == nil {
			f, err = task.ParseFailure(id, b)
		}
		if err != nil {
			d.Log.Warn("failure is damaged and counts as absent", "task", id.Short(), "err", err)
			continue
		}
		all = append(all, *f)
	}
	return all, nil
}
