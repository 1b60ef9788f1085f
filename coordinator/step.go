package coordinator

import (
	"fmt"

	"github.com/hashicorp/go-multierror"

	"github.com/shardpress/shardpress/internal/task"
)

// The life of a task within a run. Only Step moves a task along.
//
//	waiting ──Publish──> queued ──Finished──> placing ──Placed──> placed
//	   │                   │ ▲                   │                   │
//	   └──Finished─────────┼─┴── Failed (again) ─┘                   │
//	      (found in store) └──────── Broken: publish a repair ───────┘
type phase uint8

const (
	waiting phase = iota // not published yet
	queued               // published; a worker has it or will
	placing              // its result is known, its output is on its way to the checkpoint
	placed
)

// Limits that keep one bad task from running for ever.
const (
	maxFailures = 3 // attempts at a task that may fail before the run does
	maxRepairs  = 3 // times that a task's lost bytes are made again
)

type unitState struct {
	phase    phase
	failures []task.Failure
	repairs  int
	// expect is a result whose bytes were lost. Whoever makes them again must arrive
	// at the same bytes.
	expect *task.Result
	result *task.Result
}

// State is the scheduling state of a run. It is a value of decisions only: it
// reads no clock, no store and no queue, so that every schedule can be replayed.
type State struct {
	order  []task.ID
	units  map[task.ID]*unitState
	window int
	next   int // tasks before it in order were all published or found done: none waits again
	queued int
	placed int
	ended  bool
}

// NewState starts a run over the tasks in their order. At most window of them are
// outstanding at a time.
func NewState(ids []task.ID, window int) *State {
	s := &State{order: ids, units: make(map[task.ID]*unitState, len(ids)), window: max(window, 1)}
	for _, id := range ids {
		s.units[id] = &unitState{}
	}
	return s
}

// Event is something that happened. Events may come late, twice and in any order.
type Event interface{ event() }

// The events.
type (
	// Started opens the run with the results that the store held already.
	Started struct{ Results map[task.ID]*task.Result }
	// Finished tells of a result that was read from the store.
	Finished struct{ Result *task.Result }
	// Failed tells of an attempt without a result.
	Failed struct{ Failure task.Failure }
	// Missing tells that a queued task is neither in the queue nor done.
	Missing struct{ ID task.ID }
	// Placed tells that the task's output stands in the checkpoint.
	Placed struct {
		ID      task.ID
		Attempt string
	}
	// Broken tells that output bytes of the attempt were found lost or damaged.
	Broken struct {
		ID      task.ID
		Attempt string
		Reason  string
	}
	// Assembled tells that the checkpoint is complete.
	Assembled struct{}
	// Stopped ends the run from outside: a cancelled context, a full disk.
	Stopped struct{ Err error }
)

func (Started) event()   {}
func (Finished) event()  {}
func (Failed) event()    {}
func (Missing) event()   {}
func (Placed) event()    {}
func (Broken) event()    {}
func (Assembled) event() {}
func (Stopped) event()   {}

// Effect is something to be done. All effects are idempotent.
type Effect interface{ effect() }

// The effects.
type (
	// Publish offers the task to workers. Repair names an attempt whose bytes were
	// lost, for which the task is run although it has a result.
	Publish struct {
		ID     task.ID
		Repair string
	}
	// Place puts the output of a result into the checkpoint.
	Place struct{ Result *task.Result }
	// Assemble writes what the checkpoint needs besides the outputs, last its manifest.
	Assemble struct{}
	// Finish ends the run, well if Err is nil.
	Finish struct{ Err error }
)

func (Publish) effect()  {}
func (Place) effect()    {}
func (Assemble) effect() {}
func (Finish) effect()   {}

// Step takes note of an event and says what to do now.
func (s *State) Step(e Event) []Effect {
	if s.ended {
		return nil
	}
	switch e := e.(type) {
	case Started:
		var effects []Effect
		for _, id := range s.order { // in order of the plan, not of the map
			if r := e.Results[id]; r != nil {
				effects = append(effects, s.finished(r)...)
			}
		}
		return append(effects, s.refill()...)
	case Finished:
		return append(s.finished(e.Result), s.refill()...)
	case Failed:
		return s.failed(e.Failure)
	case Missing:
		if u := s.units[e.ID]; u != nil && u.phase == queued {
			return []Effect{s.publish(e.ID, u)}
		}
	case Placed:
		u := s.units[e.ID]
		if u == nil || u.phase != placing || u.result.Attempt != e.Attempt {
			return nil
		}
		u.phase = placed
		s.placed++
		if s.placed == len(s.order) {
			return []Effect{Assemble{}}
		}
	case Broken:
		return s.broken(e)
	case Assembled:
		if s.placed == len(s.order) {
			return s.end(nil)
		}
	case Stopped:
		return s.end(e.Err)
	}
	return nil
}

// refill publishes waiting tasks while the window has room. A run without tasks
// is complete at once.
func (s *State) refill() []Effect {
	if len(s.order) == 0 {
		return []Effect{Assemble{}}
	}
	var effects []Effect
	for ; s.next < len(s.order) && !s.ended && s.queued < s.window; s.next++ {
		id := s.order[s.next]
		if u := s.units[id]; u.phase == waiting {
			u.phase = queued
			s.queued++
			effects = append(effects, s.publish(id, u))
		}
	}
	return effects
}

func (s *State) publish(id task.ID, u *unitState) Effect {
	p := Publish{ID: id}
	if u.expect != nil {
		p.Repair = u.expect.Attempt
	}
	return p
}

func (s *State) finished(r *task.Result) []Effect {
	u := s.units[r.ID]
	if u == nil || u.phase == placing || u.phase == placed {
		return nil
	}
	if u.expect != nil {
		if u.expect.Attempt == r.Attempt {
			return nil // the result whose bytes are lost, seen again
		}
		if !task.SameBytes(u.expect, r) {
			return s.end(fmt.Errorf("task %s gave other bytes when it was run again: first by worker %s (attempt %s), now by worker %s (attempt %s): "+
				"one of the two machines is broken, or the operation %s is not deterministic", r.ID.Short(), u.expect.Worker, u.expect.Attempt, r.Worker, r.Attempt, r.Op))
		}
	}
	if u.phase == queued {
		s.queued--
	}
	u.phase, u.result = placing, r
	return []Effect{Place{Result: r}}
}

func (s *State) failed(f task.Failure) []Effect {
	u := s.units[f.ID]
	if u == nil || u.phase != queued {
		return nil // an attempt of a task that another attempt has finished
	}
	for _, seen := range u.failures {
		if seen.Attempt == f.Attempt {
			return nil
		}
	}
	u.failures = append(u.failures, f)
	if f.Kind.Permanent() || len(u.failures) >= maxFailures {
		return s.end(s.collect())
	}
	return []Effect{s.publish(f.ID, u)}
}

// collect reports all failures that ended a task, in order of the plan.
func (s *State) collect() error {
	var all *multierror.Error
	for _, id := range s.order {
		u := s.units[id]
		if n := len(u.failures); n > 0 && u.phase == queued && (u.failures[n-1].Kind.Permanent() || n >= maxFailures) {
			all = multierror.Append(all, &TaskError{Failure: u.failures[n-1], Attempts: n})
		}
	}
	if all != nil && len(all.Errors) == 1 {
		return all.Errors[0]
	}
	return all.ErrorOrNil()
}

func (s *State) broken(b Broken) []Effect {
	u := s.units[b.ID]
	if u == nil || (u.phase != placing && u.phase != placed) || u.result.Attempt != b.Attempt {
		return nil
	}
	if u.phase == placed {
		s.placed--
	}
	u.repairs++
	if u.repairs > maxRepairs {
		return s.end(fmt.Errorf("output of task %s was lost or damaged %d times, last: %s: check the store's disk", b.ID.Short(), u.repairs, b.Reason))
	}
	u.expect, u.result = u.result, nil
	u.phase = queued
	s.queued++
	return []Effect{s.publish(b.ID, u)}
}

func (s *State) end(err error) []Effect {
	s.ended = true
	return []Effect{Finish{Err: err}}
}

// Result returns the result that the task has, nil if it has none yet or its bytes
// were lost.
func (s *State) Result(id task.ID) *task.Result {
	if u := s.units[id]; u != nil {
		return u.result
	}
	return nil
}

// Results returns the results of a run whose outputs are all placed, in order of
// the plan.
func (s *State) Results() []*task.Result {
	results := make([]*task.Result, 0, len(s.order))
	for _, id := range s.order {
		if u := s.units[id]; u.phase == placed {
			results = append(results, u.result)
		}
	}
	return results
}

// TaskError is a failure that ended the run.
type TaskError struct {
	Failure  task.Failure
	Attempts int
}

func (e *TaskError) Error() string {
	if e.Attempts > 1 {
		return fmt.Sprintf("%s (task %s failed %d times, last on worker %s)", e.Failure.Message, e.Failure.ID.Short(), e.Attempts, e.Failure.Worker)
	}
	return e.Failure.Message
}

// Unwrap lets callers tell input that can never work from a run that failed.
func (e *TaskError) Unwrap() error {
	if e.Failure.Kind == task.Invalid {
		return task.ErrInvalid
	}
	return nil
}

// Queued lists the tasks that are published and not known to be done, in order of
// the plan.
func (s *State) Queued() []task.ID {
	var ids []task.ID
	for _, id := range s.order {
		if s.units[id].phase == queued {
			ids = append(ids, id)
		}
	}
	return ids
}
