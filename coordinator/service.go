package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// lookEvery is how often a service looks for runs by itself, since the hints that
// tell of them may be lost, and renews its leases.
const lookEvery = 3 * time.Second

// remotePlaces is how many files are placed at once in a store that is not this
// machine's: the store copies them by itself.
const remotePlaces = 8

// Sources opens the checkpoint that a submission names.
type Sources interface {
	Open(ctx context.Context, location string) (*shard.Checkpoint, error)
}

// ServiceQueue is what a service needs of the queue beside what its runs need.
type ServiceQueue interface {
	Queue
	Board
	Hints(ctx context.Context, kinds ...string) (<-chan queue.Hint, error)
	Acquire(ctx context.Context, name, holder string) (*queue.Lease, error)
}

// Service carries out the runs that are submitted to a store. Any number of
// services may serve one store: what they do is idempotent, and leases keep them
// from doing it twice.
type Service struct {
	Name    string
	Store   objstore.Bucket
	Queue   ServiceQueue
	Sources Sources
	Salt    string
	// MaxRuns bounds the runs that are driven at a time; 0 does not.
	MaxRuns int
	// LookEvery is how often the service looks for runs by itself and renews its
	// leases, which must live for longer; 3 seconds if zero. AuditWait is how long
	// audits wait for a second worker; 15 seconds if zero.
	LookEvery, AuditWait time.Duration
	Log                  *slog.Logger
	// Observe gives who is told of a run, for traces and metrics; nil: nobody.
	Observe func(run string) Observer

	mu      sync.Mutex
	driving map[string]context.CancelCauseFunc
	running sync.WaitGroup
}

// Serve finds runs and drives them until ctx ends. Runs that are under way then
// stay open, for another service or the next start of this one.
func (s *Service) Serve(ctx context.Context) error {
	s.driving = map[string]context.CancelCauseFunc{}
	defer s.running.Wait()
	hints, err := s.Queue.Hints(ctx)
	if err != nil {
		return err
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case h, ok := <-hints:
			switch {
			case !ok:
				hints = nil
			case h.Kind == queue.HintCancel:
				s.cancel(h.Run)
			default:
				s.look(ctx)
			}
		case <-look.C:
			s.look(ctx)
			look.Reset(s.every())
		}
	}
}

func (s *Service) every() time.Duration { return cmp.Or(s.LookEvery, lookEvery) }

// look starts driving the open runs that nobody drives.
func (s *Service) look(ctx context.Context) {
	runs, err := OpenRuns(ctx, s.Store)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Warn("store does not answer", "err", err)
		}
		return
	}
	for _, run := range runs {
		s.mu.Lock()
		_, ours := s.driving[run]
		full := s.MaxRuns > 0 && len(s.driving) >= s.MaxRuns
		s.mu.Unlock()
		if ours || full {
			continue
		}
		lease, err := s.Queue.Acquire(ctx, run, s.Name)
		if errors.Is(err, queue.ErrLeased) {
			s.Log.Debug("run is another coordinator's", "run", run)
			continue
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("run not leased", "run", run, "err", err)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.start(ctx, run, lease)
	}
}

// cancel wakes the driver of a run that somebody wants to end.
func (s *Service) cancel(run string) {
	s.mu.Lock()
	stop := s.driving[run]
	s.mu.Unlock()
	if stop != nil {
		stop(ErrCancelled)
	}
}

func (s *Service) start(ctx context.Context, run string, lease *queue.Lease) {
	work, stop := context.WithCancelCause(ctx)
	s.mu.Lock()
	s.driving[run] = stop
	s.mu.Unlock()
	s.Log.Info("run taken", "run", run)
	s.running.Go(func() {
		defer func() {
			stop(nil)
			if err := lease.Release(context.WithoutCancel(ctx)); err != nil {
				s.Log.Debug("lease not released", "run", run, "err", err)
			}
			s.mu.Lock()
			delete(s.driving, run)
			s.mu.Unlock()
		}()
		go s.keep(work, run, lease, stop)
		if err := s.drive(work, run); err != nil {
			s.Log.Error("run not driven", "run", run, "err", err)
			// Not at once again: what is wrong with it will not pass in no time.
			pause(work, s.every())
		}
	})
}

// errHandedOver ends the driving of a run that another service has taken over.
var errHandedOver = errors.New("another coordinator has the run")

// keep renews a run's lease. A lease only saves work: one that cannot be renewed
// because the broker is away stops nothing, one that another has taken does.
func (s *Service) keep(ctx context.Context, run string, lease *queue.Lease, stop context.CancelCauseFunc) {
	for pause(ctx, s.every()) {
		err := lease.Renew(ctx)
		if errors.Is(err, queue.ErrLeased) {
			s.Log.Info("run handed over", "run", run)
			stop(errHandedOver)
			return
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("lease not renewed", "run", run, "err", err)
		}
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// drive brings a run to its end, unless ctx ends before: then the run stays open.
func (s *Service) drive(ctx context.Context, run string) error {
	over, err := exists(ctx, s.Store, RunKey(run, stateName))
	if err != nil {
		return err
	}
	if over {
		s.Log.Info("run was over", "run", run)
		return closeRun(ctx, s.Store, run)
	}
	sub, err := ReadSubmission(ctx, s.Store, run)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		// The list's entry outlived the run, which gc has removed.
		s.Log.Info("run is not there any more", "run", run)
		return closeRun(ctx, s.Store, run)
	case err != nil && (errors.Is(err, objstore.ErrTooLarge) || invalid(err)):
		return s.refuse(ctx, &Submission{Run: run}, err)
	case err != nil:
		return err
	}
	r, err := recipe.ParseCanonical("run "+run, sub.Recipe)
	if err != nil {
		return s.refuse(ctx, sub, err)
	}
	board := &board{queue: s.Queue, name: s.Name, run: run, sub: sub}
	board.phase(ctx, PhasePlanning)
	ck, err := s.Sources.Open(ctx, sub.Source)
	if err != nil {
		return s.unopened(ctx, sub, err)
	}
	defer ck.Close() //nolint:errcheck // opened for reading
	plan, err := NewPlan(ck.Manifest, r, PlanOptions{Config: ck.Config, Salt: s.Salt})
	if err != nil {
		return s.unopened(ctx, sub, err)
	}
	out := objstore.Prefix(s.Store, sub.Out)
	if err := s.clear(ctx, out, sub, plan); err != nil {
		return s.unopened(ctx, sub, err)
	}
	e := &Run{
		ID: run, Plan: plan, Store: s.Store, Queue: s.Queue, Output: NewOutput(out, ck), Location: source.Of(ck),
		Request: sub.Request, NoReuse: sub.NoReuse, Log: s.Log.With("run", run), Resident: true,
		KeepGoing: sub.KeepGoing, Audit: sub.Audit, Weight: sub.weight(), MaxWorkers: sub.MaxWorkers, AuditWait: s.AuditWait,
		board: board, Observe: s.Observe,
	}
	e.Output.slots = make(chan struct{}, remotePlaces)
	if err := e.Output.Begin(ctx, plan); err != nil {
		return err
	}
	_, err = e.Execute(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrCancelled) {
		s.Log.Info("run given up", "run", run, "reason", context.Cause(ctx))
		return nil // the run stays open, and is somebody else's from now on
	}
	if errors.Is(err, errLeft) {
		return err
	}
	// The run's failure is in its record, and none of the service.
	return closeRun(context.WithoutCancel(ctx), s.Store, run)
}

// clear refuses to make a result where something else stands.
func (s *Service) clear(ctx context.Context, out objstore.Bucket, sub *Submission, plan *Plan) error {
	if sub.Out == ResultPrefix(sub.Run) {
		return nil // nobody else's place
	}
	state, why, err := Inspect(ctx, out, s.Store, plan)
	if err != nil {
		return err
	}
	if state == Foreign || state == Other {
		return fmt.Errorf("output %s: %w: it is not empty: %s: name another place with --out", sub.Out, task.ErrInvalid, why)
	}
	return nil
}

// unopened ends a run whose source or recipe can never work. What may pass, such
// as a store that is away, leaves it open.
func (s *Service) unopened(ctx context.Context, sub *Submission, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrCancelled) {
		return nil
	}
	if cancelled, cerr := exists(context.WithoutCancel(ctx), s.Store, RunKey(sub.Run, cancelName)); cerr == nil && cancelled {
		return s.refuse(ctx, sub, ErrCancelled)
	}
	if invalid(err) {
		return s.refuse(ctx, sub, err)
	}
	return err
}

// refuse ends a run that has not begun.
func (s *Service) refuse(ctx context.Context, sub *Submission, cause error) error {
	ctx = context.WithoutCancel(ctx)
	asked := func(key string) string { v, _ := sub.Request[key].(string); return v }
	r := NewRecord(sub.Run, asked("model"), asked("out"), sub.Recipe)
	r.State, r.Error, r.Invalid = StateFailed, cause.Error(), invalid(cause)
	if errors.Is(cause, ErrCancelled) {
		r.State = StateCancelled
	}
	s.Log.Warn("run refused", "run", sub.Run, "err", cause)
	if err := putJSON(ctx, s.Store, RunKey(sub.Run, stateName), r); err != nil {
		return err
	}
	(&board{queue: s.Queue, name: s.Name, run: sub.Run, sub: sub}).announce(ctx, Update{Kind: UpdateFinished, Run: sub.Run, Message: cause.Error()})
	return closeRun(ctx, s.Store, sub.Run)
}
