package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Queue is what a run needs of the queue.
type Queue interface {
	Publish(ctx context.Context, m *task.Message) error
	Withdraw(ctx context.Context, m *task.Message) error
	Outstanding(ctx context.Context) (map[task.ID]bool, error)
	OutstandingCopies(ctx context.Context, which string) (map[task.ID]bool, error)
	DropStranded(ctx context.Context) (int, error)
	Notices(ctx context.Context) (<-chan *task.Notice, error)
}

// The run compares what it waits for with queue and store from time to time: soon
// after something went wrong, then ever more seldom. The longest pause bounds how
// long lost news can delay a run.
const (
	reconcileSoon  = 50 * time.Millisecond
	reconcileEvery = 5 * time.Second
)

// sweepEvery is how often a run that waits for tasks has the queue searched for those
// that it would never offer.
const sweepEvery = 3 * time.Second

// pinEvery is how often a run that goes on renews its pin. PinExpires is the age
// from which a pin is one of a run that died.
const (
	pinEvery   = time.Minute
	PinExpires = 15 * time.Minute
)

// lanes is how many reads, writes and publications of a run are under way at once:
// over a network each takes long and costs little.
const lanes = 32

// Run carries out a plan.
type Run struct {
	// ID names the run; a new one is made up if it is empty.
	ID     string
	Plan   *Plan
	Store  objstore.Bucket
	Queue  Queue
	Output *Output
	// Location is where workers find the source.
	Location string
	// Request says what was asked for; it is stored with the run for people. The run's
	// record names its "model" and its "out".
	Request map[string]any
	// NoReuse runs every task although its result exists.
	NoReuse bool
	// Resident says that the run outlives this process: if ctx ends, other than by
	// ErrCancelled, it is left as it is for whoever drives it next, and a full store is
	// waited for.
	Resident bool
	// KeepGoing does what can still be done after a task has failed for good.
	KeepGoing bool
	// Audit is the share of tasks that are run again on another worker.
	Audit float64
	// AuditWait is how long audits wait for a second worker; 15 seconds if zero.
	AuditWait time.Duration
	// Weight is the run's share beside others; MaxWorkers, if not 0, bounds the tasks
	// that are worked on at a time.
	Weight     float64
	MaxWorkers int
	// Watch is told what happens, from one goroutine at a time. It must not block.
	Watch func(Update)
	// Observe gives who is told of a run, for traces and metrics; nil: nobody.
	Observe func(run string) Observer
	Log     *slog.Logger

	board *board // nil where nobody watches from elsewhere
}

// Outcome is what a run has to say for itself at the end.
type Outcome struct {
	Run      string
	Tasks    int
	Reused   int // found in the store
	Executed int // done in this run
	Repaired int // times that bytes which had been lost were made again, by tasks of Executed
	Failures int // attempts without a result
	Audited  int // tasks that were run again, and gave the same bytes
	Skipped  int // audits that no other worker could make
	Elapsed  time.Duration
	Record   *Record // the same and more, for programs
	Report   *Report // nil if the run failed
}

// errLeft ends the driving of a resident run that goes on elsewhere.
var errLeft = errors.New("the run stays open")

// Execute runs the plan to its end. When it is interrupted, by ctx or by death,
// executing the same plan on the same store goes on where it was.
func (r *Run) Execute(ctx context.Context) (*Outcome, error) {
	begin := time.Now()
	d := newDriver(r)
	var err error
	if d.recipe, err = r.Plan.Recipe.Canonical(); err != nil {
		return nil, err
	}
	err = d.drive(d.observe.Context(ctx))
	if errors.Is(err, errLeft) {
		d.observe.Left()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &d.outcome, err
	}
	state, message := StateDone, ""
	if err != nil {
		state, message = StateFailed, err.Error()
		switch {
		case errors.Is(err, ErrCancelled):
			state = StateCancelled
		case ctx.Err() != nil:
			state = StateInterrupted
		}
	}
	if d.Resident {
		d.own = d.attempts(context.WithoutCancel(ctx))
	}
	d.summarize(state, err, time.Since(begin))
	// Here the record of the run is for people, and its fate does not hang on it. A
	// resident run is over only with its record: nobody else would know.
	if rerr := d.record(context.WithoutCancel(ctx)); rerr != nil {
		r.Log.Warn("run not recorded", "run", d.outcome.Run, "err", rerr)
		if r.Resident {
			d.observe.Left()
			return &d.outcome, fmt.Errorf("%w: %w", errLeft, rerr)
		}
	}
	if r.Resident {
		o := &d.outcome
		r.Log.Info("run ended", "state", state, "reason", message, "tasks", o.Tasks, "executed", o.Executed, "reused", o.Reused, "failures", o.Failures, "elapsed", o.Elapsed)
	}
	d.tell(context.WithoutCancel(ctx), Update{Kind: UpdateFinished, Message: message})
	d.observe.Finished(context.WithoutCancel(ctx), state, err, slog.Int("tasks", d.outcome.Tasks), slog.Int("run", d.outcome.Executed),
		slog.Int("reused", d.outcome.Reused), slog.Int("repaired", d.outcome.Repaired), slog.Int("failures", d.outcome.Failures))
	return &d.outcome, err
}

// driver does what Step decides. One goroutine owns the state; the effects run
// beside it and come back as events.
type driver struct {
	*Run
	outcome Outcome
	recipe  json.RawMessage // canonical
	state   *State
	events  chan func(ctx context.Context) []Effect // what came of effects, to be done on the driver's goroutine
	lane    chan struct{}
	index   map[task.ID]int  // into Plan.Units
	own     map[string]bool  // attempts of this run, whoever saw them
	fresh   []bool           // by unit: finished in this run, by this process's own eyes
	looking map[task.ID]bool // results that are being read
	asked   []bool           // by unit: published by this process
	observe Observer
	busy    int   // effects under way
	live    *live // what workers are at

	paused time.Duration // how long the last pause was at least; 0 since a task was done
	check  *time.Timer   // when to reconcile
	pause  time.Duration // before the next time
	pinned time.Time     // when the pin was renewed, by this machine's clock
	swept  time.Time     // when the queue was last searched for stranded tasks
}

func newDriver(r *Run) *driver {
	if r.ID == "" {
		r.ID = NewRun()
	}
	d := &driver{
		Run:     r,
		outcome: Outcome{Run: r.ID, Tasks: len(r.Plan.Units)},
		events:  make(chan func(context.Context) []Effect, 64),
		lane:    make(chan struct{}, lanes),
		index:   make(map[task.ID]int, len(r.Plan.Units)),
		fresh:   make([]bool, len(r.Plan.Units)),
		looking: map[task.ID]bool{},
		asked:   make([]bool, len(r.Plan.Units)),
		observe: nobody{},
	}
	if r.Observe != nil {
		d.observe = r.Observe(d.outcome.Run)
	}
	for i, u := range r.Plan.Units {
		d.index[u.ID] = i
	}
	d.live, d.swept = newLive(d), time.Now()
	return d
}

func (d *driver) tell(ctx context.Context, u Update) {
	u.Run = d.outcome.Run
	if d.Watch != nil {
		d.Watch(u)
	}
	d.board.announce(ctx, u)
}

func (d *driver) drive(ctx context.Context) error {
	if err := d.open(ctx); err != nil {
		return d.ended(ctx, err)
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	notices, err := d.Queue.Notices(work)
	if err != nil {
		return d.ended(ctx, err)
	}
	started, err := d.existing(work)
	if err != nil {
		return d.ended(ctx, err)
	}
	d.live.meet(work)
	cancelled, err := d.cancelled(work)
	if err != nil {
		return d.ended(ctx, err)
	}
	// The seed is the run's own, so that all its coordinators audit the same tasks.
	d.state = NewState(d.nodes(), Options{Window: d.window(slots(d.live.fleet)), KeepGoing: d.KeepGoing, Audit: d.Audit, AuditSeed: d.outcome.Run})
	d.tell(ctx, Update{Kind: UpdateStarted, Tasks: len(d.Plan.Units), Reused: len(started.Results)})
	d.observe.Began(ctx, len(d.Plan.Units), len(started.Results))
	if d.Resident {
		d.Log.Info("run goes on", "tasks", len(d.Plan.Units), "done", len(started.Results))
	}

	d.pause = reconcileSoon
	d.check = time.NewTimer(d.pause)
	defer d.check.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	effects := d.state.Step(started)
	if cancelled { // and offer nothing; what another coordinator has offered is withdrawn
		effects = d.state.Step(Stopped{Err: ErrCancelled})
	}
	for {
		finish, done := d.act(work, effects)
		d.observe.Counted(d.counts)
		if done {
			cancel()
			d.drain()
			d.withdraw(ctx, effects, finish)
			return finish
		}
		effects = nil
		select {
		case <-ctx.Done():
			if d.Resident && !errors.Is(context.Cause(ctx), ErrCancelled) {
				d.drain()
				return errLeft
			}
			effects = d.state.Step(Stopped{Err: context.Cause(ctx)})
		case f := <-d.events:
			d.busy--
			effects = f(work)
		case n, ok := <-notices:
			if !ok {
				notices = nil
				continue
			}
			effects = d.notice(work, n)
		case <-d.check.C:
			d.reconcile(work)
			d.pause = min(2*d.pause, reconcileEvery)
			d.check.Reset(d.pause)
		case <-second.C:
			effects = d.second(work)
		}
	}
}

// ended is the error of a run that did not come to its first step.
func (d *driver) ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		if d.Resident && passing(err) { // of the store or the queue, which come back
			return fmt.Errorf("%w: %w", errLeft, err)
		}
		return err
	}
	if d.Resident && !errors.Is(context.Cause(ctx), ErrCancelled) {
		return errLeft
	}
	return context.Cause(ctx)
}

// drain waits for the effects under way, so that nothing touches the output after
// the run has ended.
func (d *driver) drain() {
	for d.busy > 0 {
		<-d.events
		d.busy--
	}
}

// spawn runs f beside the driver, and then what it returns on the driver's own
// goroutine.
func (d *driver) spawn(f func() func(context.Context) []Effect) {
	d.apart(func() func(context.Context) []Effect {
		d.lane <- struct{}{}
		defer func() { <-d.lane }()
		return f()
	})
}

// apart is spawn for what takes so long that it must not keep others waiting.
func (d *driver) apart(f func() func(context.Context) []Effect) {
	d.busy++
	go func() { d.events <- f() }()
}

// step is what comes of an effect that has led to an event.
func (d *driver) step(e Event) func(context.Context) []Effect {
	return func(context.Context) []Effect { return d.state.Step(e) }
}

// soon has the run reconciled shortly.
func (d *driver) soon() {
	d.pause = reconcileSoon
	d.check.Reset(d.pause)
}

// nodes are the plan's units as the scheduler sees them: weight files that depend on
// nothing but the source.
func (r *Run) nodes() []Node {
	all := make([]Node, len(r.Plan.Units))
	for i := range r.Plan.Units {
		u := &r.Plan.Units[i]
		all[i] = Node{ID: u.ID, Memory: r.memory(u), Output: true}
	}
	return all
}

// memory is the peak need of a unit: of its operation, and for reading from where the
// source is.
func (r *Run) memory(u *Unit) int64 { return u.Layout.Memory + source.Memory(r.Location) }
