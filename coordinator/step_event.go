package coordinator

import "github.com/shardpress/shardpress/internal/task"

// Event is something that happened. Events may come late, twice and in any order.
type Event interface{ event() }

// The events.
type (
	// Started opens the run with what the store held already.
	Started struct {
		Results map[task.ID]*task.Result
		// Present has the results whose bytes are in the store; nil stands for all. Of a
		// result whose bytes are not, the task is run again when they are wanted.
		Present map[task.ID]bool
		// Audits are those of the run that are in, by task.
		Audits map[task.ID]Audited
	}
	// Finished tells of a result that was read from the store.
	Finished struct{ Result *task.Result }
	// Failed tells of an attempt without a result, whose message is off the queue; of
	// one that failed by the store it is back in it.
	Failed struct{ Failure task.Failure }
	// Missing tells that an outstanding copy of a task is neither in the queue nor
	// done.
	Missing struct {
		ID   task.ID
		Copy string
	}
	// Slow tells that the worker is long at a task, longer than tasks like it take.
	Slow struct {
		ID     task.ID
		Worker string
	}
	// Audited tells what came of the audit of an attempt: equal bytes or others, or
	// Skipped because nobody else could do it.
	Audited struct {
		ID      task.ID
		Attempt string // the one that was audited
		First   string // the worker that made it
		Worker  string // the one that did it again
		Equal   bool
		Skipped bool
		Detail  string
	}
	// Grown answers Decide: the nodes of the stage that the attempt's document leads
	// to, and what the store holds of them. They may be known already.
	Grown struct {
		ID      task.ID
		Attempt string
		Nodes   []Node
		Results map[task.ID]*task.Result
		Present map[task.ID]bool // as in Started
		Audits  map[task.ID]Audited
	}
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
	// Resized changes how many messages of the run may be outstanding. Those that
	// are stay.
	Resized struct{ Window int }
	// Paused tells to publish nothing: with a full store or one that does not answer,
	// work is only lost. What is outstanding goes on.
	Paused struct{ Reason string }
	// Resumed ends a pause.
	Resumed struct{}
	// Stopped ends the run from outside: a cancelled context or run, a full disk.
	Stopped struct{ Err error }
)

func (Started) event()   {}
func (Finished) event()  {}
func (Failed) event()    {}
func (Missing) event()   {}
func (Slow) event()      {}
func (Audited) event()   {}
func (Grown) event()     {}
func (Placed) event()    {}
func (Broken) event()    {}
func (Assembled) event() {}
func (Resized) event()   {}
func (Paused) event()    {}
func (Resumed) event()   {}
func (Stopped) event()   {}

// Effect is something to be done. All effects are idempotent.
type Effect interface{ effect() }

// The effects.
type (
	// Publish offers the task to workers.
	Publish struct {
		ID task.ID
		// Repair names an attempt whose bytes are not there any more, for which the task
		// is run although it has a result.
		Repair string
		// Copy is task.CopyTwin or task.CopyAudit for a second message beside the first.
		Copy string
		// Audit is the attempt that an audit is to be compared with.
		Audit string
		// Avoid is the worker that should not take this copy.
		Avoid string
		// Escalate is how many memory classes above its own the task is offered to.
		Escalate int
	}
	// Withdraw takes a copy of a task off the queue, where no other run waits for it:
	// nobody wants what would come of it.
	Withdraw struct {
		ID   task.ID
		Copy string
	}
	// Noted tells of a failure that is seen for the first time. Final ones fail
	// their task for good.
	Noted struct {
		Failure task.Failure
		Final   bool
	}
	// Pause tells that the state has paused the run because of the failure: the
	// store is full, or does not answer. Resumed goes on, Stopped gives up.
	Pause struct{ Failure task.Failure }
	// Look asks what result the task has in the store now. Finished answers, or
	// nothing if there is none.
	Look struct{ ID task.ID }
	// Forget removes the result of the attempt, if it is still the one that stands:
	// it was made of other bytes of Input than those that stand.
	Forget struct {
		ID      task.ID
		Attempt string
		Input   task.ID
	}
	// Expire removes the output bytes of the attempt, where no other run wants them.
	// The result stays.
	Expire struct {
		ID      task.ID
		Attempt string
	}
	// Decide asks for the stage of the plan that the result's document leads to.
	Decide struct{ Result *task.Result }
	// Place puts the output of a result into the checkpoint.
	Place struct{ Result *task.Result }
	// Assemble writes what the checkpoint needs besides the outputs, last its manifest.
	Assemble struct{}
	// Finish ends the run, well if Err is nil.
	Finish struct{ Err error }
)

func (Publish) effect()  {}
func (Withdraw) effect() {}
func (Noted) effect()    {}
func (Pause) effect()    {}
func (Look) effect()     {}
func (Forget) effect()   {}
func (Expire) effect()   {}
func (Decide) effect()   {}
func (Place) effect()    {}
func (Assemble) effect() {}
func (Finish) effect()   {}
