package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Queue is what a coordinator needs of the queue.
type Queue interface {
	Publish(ctx context.Context, m *task.Message) error
	Outstanding(ctx context.Context) (map[task.ID]bool, error)
	Notices(ctx context.Context) (<-chan *task.Notice, error)
}

// The run compares what it waits for with queue and store from time to time: soon
// after something went wrong, then ever more seldom. The longest pause bounds how
// long lost news can delay a run.
const (
	reconcileSoon  = 50 * time.Millisecond
	reconcileEvery = 5 * time.Second
)

// pinEvery is how often a run that goes on renews its pin. PinExpires is the age
// from which a pin is one of a run that died.
const (
	pinEvery   = time.Minute
	PinExpires = 15 * time.Minute
)

// maxOutstanding bounds the tasks of a run that are queued or in flight, so that a
// run of 100 000 tasks neither fills the queue nor starves other runs.
const maxOutstanding = 256

// Run carries out a plan.
type Run struct {
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
	// Watch is told what happens, from one goroutine at a time. It must not block.
	Watch func(Update)
	// Observe gives who is told of a run, for traces and metrics; nil: nobody.
	Observe func(run string) Observer
	Log     *slog.Logger
}

// Update is news of a run for whoever watches it.
type Update struct {
	// Kind is one of the constants below; the other fields are those it names.
	Kind    string `json:"kind"`
	Run     string `json:"run"`
	Unit    int    `json:"unit"` // index into Plan.Units
	Task    string `json:"task,omitempty"`
	Worker  string `json:"worker,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Reused  int    `json:"reused,omitempty"`
	Tasks   int    `json:"tasks,omitempty"`
	Message string `json:"message,omitempty"`
	Final   bool   `json:"final,omitempty"` // the failure ends the run, whose error says it again
}

// Kinds of updates.
const (
	UpdateStarted  = "started"  // Tasks, of which Reused have results already
	UpdateProgress = "progress" // Unit, Worker, Bytes of source worked through so far
	UpdateDone     = "done"     // Unit, Worker
	UpdateFailed   = "failed"   // Unit, Worker, Message, Final: an attempt
	UpdateRepair   = "repair"   // Unit, Message: bytes were lost and are made again
	UpdatePlaced   = "placed"   // Unit
	UpdateAssemble = "assemble"
	UpdateFinished = "finished" // Message if it failed
)

// Outcome is what a run has to say for itself at the end.
type Outcome struct {
	Run      string
	Tasks    int
	Reused   int // found in the store
	Executed int // done in this run
	Repaired int // times that bytes which had been lost were made again, by tasks of Executed
	Failures int // attempts without a result
	Elapsed  time.Duration
	Record   *Record // the same and more, for programs
	Report   *Report // nil if the run failed
}

// Execute runs the plan to its end. When it is interrupted, by ctx or by death,
// executing the same plan on the same store goes on where it was.
func (r *Run) Execute(ctx context.Context) (*Outcome, error) {
	begin := time.Now()
	d := &driver{
		Run:     r,
		outcome: Outcome{Run: ulid.Make().String(), Tasks: len(r.Plan.Units)},
		events:  make(chan Event, 64),
		index:   map[task.ID]int{},
		fresh:   map[task.ID]bool{},
		asked:   map[task.ID]bool{},
		observe: nobody{},
	}
	if r.Observe != nil {
		d.observe = r.Observe(d.outcome.Run)
	}
	for i, u := range r.Plan.Units {
		d.index[u.ID] = i
	}
	var err error
	if d.recipe, err = r.Plan.Recipe.Canonical(); err != nil {
		return nil, err
	}
	err = d.drive(d.observe.Context(ctx))
	state, message := StateDone, ""
	if err != nil {
		state, message = StateFailed, err.Error()
		if ctx.Err() != nil {
			state = StateInterrupted
		}
	}
	d.summarize(state, err, time.Since(begin))
	d.tell(Update{Kind: UpdateFinished, Message: message})
	d.observe.Finished(context.WithoutCancel(ctx), state, err, slog.Int("tasks", d.outcome.Tasks), slog.Int("run", d.outcome.Executed),
		slog.Int("reused", d.outcome.Reused), slog.Int("repaired", d.outcome.Repaired), slog.Int("failures", d.outcome.Failures))
	// The record of the run is for people; the run's fate does not hang on it.
	if rerr := d.record(context.WithoutCancel(ctx)); rerr != nil {
		r.Log.Warn("run not recorded", "run", d.outcome.Run, "err", rerr)
	}
	return &d.outcome, err
}

// nodes are the plan's units as the scheduler sees them.
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

// driver does what Step decides. One goroutine owns the state; the slow effects
// run beside it and come back as events.
type driver struct {
	*Run
	outcome Outcome
	recipe  json.RawMessage // canonical
	state   *State
	events  chan Event
	index   map[task.ID]int  // into Plan.Units
	fresh   map[task.ID]bool // finished in this run, by this process's own eyes
	asked   map[task.ID]bool // published by this process
	busy    int              // effects under way
	observe Observer

	check  *time.Timer   // when to reconcile
	pause  time.Duration // before the next time
	pinned time.Time     // when the pin was renewed, by this machine's clock
}

func (d *driver) tell(u Update) {
	if d.Watch != nil {
		u.Run = d.outcome.Run
		d.Watch(u)
	}
}

func (d *driver) drive(ctx context.Context) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	notices, err := d.Queue.Notices(work)
	if err != nil {
		return err
	}
	results, err := d.existing(ctx)
	if err != nil {
		return err
	}
	d.tell(Update{Kind: UpdateStarted, Tasks: len(d.Plan.Units), Reused: len(results)})
	d.observe.Began(ctx, len(d.Plan.Units), len(results))
	d.state = NewState(d.nodes(), Options{Window: maxOutstanding})

	d.pause = reconcileSoon
	d.check = time.NewTimer(d.pause)
	defer d.check.Stop()
	effects := d.state.Step(Started{Results: results})
	for {
		done, err := d.act(work, effects)
		d.observe.Counted(d.counts)
		if done {
			cancel()
			d.drain()
			return err
		}
		select {
		case <-ctx.Done():
			effects = d.state.Step(Stopped{Err: context.Cause(ctx)})
		case e := <-d.events:
			d.busy--
			effects = d.note(e)
		case n, ok := <-notices:
			if !ok {
				notices = nil
				continue
			}
			effects = d.notice(work, n)
		case <-d.check.C:
			effects = d.reconcile(work)
			d.pause = min(2*d.pause, reconcileEvery)
			d.check.Reset(d.pause)
		}
	}
}

// drain waits for the effects under way, so that nothing touches the output after
// the run has ended.
func (d *driver) drain() {
	for d.busy > 0 {
		<-d.events
		d.busy--
	}
}

// act carries out effects. done is true after the last one.
func (d *driver) act(ctx context.Context, effects []Effect) (done bool, err error) {
	for _, e := range effects {
		switch e := e.(type) {
		case Publish:
			if err := d.publish(ctx, e); err != nil {
				return true, err
			}
		case Noted:
			d.outcome.Failures++
			if !e.Final {
				d.observe.Retried(ctx, e.Failure.Kind)
			}
			d.tell(Update{
				Kind: UpdateFailed, Unit: d.index[e.Failure.ID], Task: e.Failure.ID.Short(),
				Worker: e.Failure.Worker, Message: e.Failure.Message,
				Final: e.Final || e.Failure.Kind == task.Full, // a pause below
			})
		case Pause: // nobody is there who could make room meanwhile
			return d.act(ctx, d.state.Step(Stopped{Err: &TaskError{Failure: e.Failure, Attempts: 1}}))
		case Place:
			fresh := d.fresh[e.Result.ID]
			d.spawn(func() Event { return d.place(ctx, e.Result, fresh) })
		case Assemble:
			d.tell(Update{Kind: UpdateAssemble})
			results := d.state.Results()
			d.spawn(func() Event { return d.assemble(ctx, results) })
		case Finish:
			return true, e.Err
		}
	}
	return false, nil
}

func (d *driver) spawn(f func() Event) {
	d.busy++
	go func() { d.events <- f() }()
}

// note tells watchers of an event and passes it to the state.
func (d *driver) note(e Event) []Effect {
	switch e := e.(type) {
	case Placed:
		d.tell(Update{Kind: UpdatePlaced, Unit: d.index[e.ID], Task: e.ID.Short()})
	case Broken:
		d.outcome.Repaired++
		d.observe.Repaired(context.Background())
		d.tell(Update{Kind: UpdateRepair, Unit: d.index[e.ID], Task: e.ID.Short(), Message: e.Reason})
		d.Log.Warn("stored bytes were lost, making them again", "task", e.ID.Short(), "reason", e.Reason)
	}
	return d.state.Step(e)
}

// publish stores the spec, which the ID proves, and queues the task.
func (d *driver) publish(ctx context.Context, p Publish) error {
	u := &d.Plan.Units[d.index[p.ID]]
	_, err := d.Store.Put(ctx, task.SpecKey(u.ID), bytes.NewReader(u.Spec), int64(len(u.Spec)), objstore.PutOptions{})
	if err != nil {
		return fmt.Errorf("store task %s: %w", u.ID.Short(), err)
	}
	m := &task.Message{
		ID: u.ID, Run: d.outcome.Run, Op: operation.EncodeOp, Class: operation.ClassF32, Memory: d.memory(u),
		Location: d.Location, Files: u.Files, Repair: p.Repair,
	}
	ctx, published := d.observe.Published(ctx, m, d.reason(p))
	err = d.Queue.Publish(ctx, m)
	outstanding := errors.Is(err, queue.ErrOutstanding)
	if outstanding {
		published(false, nil)
	} else {
		d.asked[u.ID] = true
		published(err == nil, err)
	}
	if outstanding {
		// Queued already, or its last delivery is just being removed from the queue:
		// then nobody has it, and nobody will say so.
		d.soon()
		return nil
	}
	return err
}

// soon has the run reconciled shortly.
func (d *driver) soon() {
	d.pause = reconcileSoon
	d.check.Reset(d.pause)
}

// notice turns a hint from the queue into an event, by looking at the store.
func (d *driver) notice(ctx context.Context, n *task.Notice) []Effect {
	i, ours := d.index[n.ID]
	if !ours {
		return nil
	}
	switch n.State {
	case task.Progress:
		d.tell(Update{Kind: UpdateProgress, Unit: i, Task: n.ID.Short(), Worker: n.Worker, Bytes: n.Bytes})
		return nil
	case task.Failed:
		if n.Failure == nil || n.Failure.ID != n.ID {
			return nil
		}
		return d.state.Step(Failed{Failure: *n.Failure})
	case task.Done:
		return d.look(ctx, n.ID)
	}
	return nil
}

// look reads a task's result. A queued task that has none, or still has the one
// whose bytes were lost, is published again: it is no longer in the queue.
func (d *driver) look(ctx context.Context, id task.ID) []Effect {
	r, err := d.result(ctx, id)
	if err != nil {
		return d.state.Step(Stopped{Err: err})
	}
	if r == nil {
		return d.state.Step(Missing{ID: id})
	}
	effects := d.state.Step(Finished{Result: r})
	for _, e := range effects {
		if p, ok := e.(Place); ok && p.Result == r {
			d.fresh[id] = true
			d.tell(Update{Kind: UpdateDone, Unit: d.index[id], Task: id.Short(), Worker: r.Worker})
		}
	}
	if len(effects) == 0 {
		return d.state.Step(Missing{ID: id})
	}
	return effects
}

// reconcile makes good what was lost on the way: it compares what should be
// outstanding with the queue and the store. A task leaves the queue only after its
// commit, or after its failure was stored, so asking the queue first misses none.
func (d *driver) reconcile(ctx context.Context) []Effect {
	if time.Since(d.pinned) >= pinEvery {
		if err := d.pin(ctx); err != nil {
			d.Log.Warn("run not pinned", "err", err)
		}
	}
	outstanding, err := d.Queue.Outstanding(ctx)
	if err != nil {
		d.Log.Warn("queue does not answer", "err", err)
		return nil
	}
	var effects []Effect
	for _, id := range d.state.Queued() {
		if outstanding[id] {
			continue
		}
		found, err := d.failures(ctx, id)
		if err != nil {
			d.Log.Warn("store does not answer", "err", err)
		}
		if len(found) > 0 {
			effects = append(effects, found...)
			continue
		}
		effects = append(effects, d.look(ctx, id)...)
	}
	return effects
}

// failures reads those attempts at a task in this run that failed. The news of
// most of them has come already, and the state knows them.
func (d *driver) failures(ctx context.Context, id task.ID) ([]Effect, error) {
	for info, err := range d.Store.List(ctx, task.FailurePrefix(d.outcome.Run, id)) {
		if err != nil {
			return nil, fmt.Errorf("list failures of task %s: %w", id.Short(), err)
		}
		b, err := objstore.ReadAll(ctx, d.Store, info.Key, task.MaxFailure)
		if err != nil && !errors.Is(err, objstore.ErrTooLarge) {
			return nil, fmt.Errorf("read failure of task %s: %w", id.Short(), err)
		}
		var f *task.Failure
		if err == nil {
			f, err = task.ParseFailure(id, b)
		}
		if err != nil {
			d.Log.Warn("failure is damaged and counts as absent", "task", id.Short(), "err", err)
			continue
		}
		if effects := d.state.Step(Failed{Failure: *f}); len(effects) > 0 {
			return effects, nil
		}
	}
	return nil, nil
}

// existing reads the results that the store holds already.
func (d *driver) existing(ctx context.Context) (map[task.ID]*task.Result, error) {
	results := map[task.ID]*task.Result{}
	for _, u := range d.Plan.Units {
		if d.NoReuse {
			if err := d.Store.Delete(ctx, task.ResultKey(u.ID)); err != nil {
				return nil, fmt.Errorf("forget result of task %s: %w", u.ID.Short(), err)
			}
			continue
		}
		r, err := d.result(ctx, u.ID)
		if err != nil {
			return nil, err
		}
		if r != nil {
			results[u.ID] = r
		}
	}
	return results, nil
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
	return r, nil
}

func (d *driver) place(ctx context.Context, r *task.Result, fresh bool) Event {
	u := &d.Plan.Units[d.index[r.ID]]
	ctx, placed := d.observe.Placed(ctx, r.ID, u.Layout.Size())
	err := d.Output.Place(ctx, d.Store, u, r, fresh)
	placed(err)
	var lost *lostError
	switch {
	case err == nil:
		return Placed{ID: r.ID, Attempt: r.Attempt}
	case errors.As(err, &lost):
		return Broken{ID: r.ID, Attempt: r.Attempt, Reason: lost.Error()}
	default:
		return Stopped{Err: err}
	}
}

func (d *driver) assemble(ctx context.Context, results []*task.Result) Event {
	ctx, assembled := d.observe.Phase(ctx, "assemble")
	report, err := d.Output.Assemble(ctx, d.Store, d.Plan, results)
	assembled(err)
	var lost *lostError
	switch {
	case err == nil:
		d.outcome.Report = report
		return Assembled{}
	case errors.As(err, &lost):
		return Broken{ID: lost.id, Attempt: lost.attempt, Reason: lost.Error()}
	default:
		return Stopped{Err: err}
	}
}

// Names of a run's objects below runs/<run>/ that others read.
const (
	PinName  = "pin"
	PlanName = "plan.json"
)

// open writes what the run is about to do.
func (d *driver) open(ctx context.Context) error {
	if err := d.pin(ctx); err != nil { // first, so that the plan is never without it
		return err
	}
	for _, doc := range []struct {
		name  string
		value any
	}{
		{"spec.json", struct {
			Version int             `json:"version"`
			Request map[string]any  `json:"request"`
			Recipe  json.RawMessage `json:"recipe"` // canonical
			NoReuse bool            `json:"no_reuse"`
		}{RecordVersion, d.Request, d.recipe, d.NoReuse}},
		{PlanName, d.Plan.Outline()},
	} {
		if err := d.putJSON(ctx, doc.name, doc.value); err != nil {
			return err
		}
	}
	return nil
}

// pin keeps what the run's plan names from being collected.
func (d *driver) pin(ctx context.Context) error {
	d.pinned = time.Now()
	return d.putJSON(ctx, PinName, map[string]any{"state": "running"})
}

// record writes how the run ended, and unpins it.
func (d *driver) record(ctx context.Context) error {
	err := d.putJSON(ctx, stateName, d.outcome.Record)
	return errors.Join(err, d.Store.Delete(ctx, RunKey(d.outcome.Run, PinName)))
}

func (d *driver) putJSON(ctx context.Context, name string, v any) error {
	return putJSON(ctx, d.Store, RunKey(d.outcome.Run, name), v)
}

func putJSON(ctx context.Context, store objstore.Bucket, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	if _, err = store.Put(ctx, key, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

// maxDocument bounds a JSON document that is read back whole, in bytes.
const maxDocument = 256 << 20

func readObject(ctx context.Context, b objstore.Bucket, key string) ([]byte, error) {
	return objstore.ReadAll(ctx, b, key, maxDocument)
}
