package coordinator

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/shardpress/shardpress/internal/task"
)

// Limits that keep one bad task from running for ever.
const (
	maxFailures    = 3  // attempts at a task that may fail before the run does
	maxRepairs     = 3  // times that a task's lost bytes are made again
	maxEscalations = 1  // memory classes that a task may kill workers of, before it is poison
	maxDeaths      = 4  // reports of deaths, if they all come from one class: there may be none above
	maxVoid        = 16 // times that a task may complain of input bytes which nobody misses
)

// storagePause is how many attempts in a row may end at the store's fault before
// the run waits for the store.
const storagePause = 32

// trouble is what went wrong with a task.
type trouble struct {
	seen     []string       // attempts that gave no result
	failures []task.Failure // those that count
	died     int            // memory classes in which it killed its workers
	deaths   int            // reports of that
	void     int            // complaints of inputs that are not lost
	repairs  int
	stale    []*task.Result // not to be believed
	// err is why it failed for good, by itself; cause is who did, itself or a task
	// that it needs; dropped counts those that failed with it.
	err     error
	cause   *unit
	dropped int
}

// forgot reports whether the attempt's result was found stale.
func (t *trouble) forgot(attempt string) bool {
	return t != nil && slices.ContainsFunc(t.stale, func(r *task.Result) bool { return r.Attempt == attempt })
}

// doubts reports whether those bytes were found stale.
func (t *trouble) doubts(sum string) bool {
	return t != nil && slices.ContainsFunc(t.stale, func(r *task.Result) bool { return holds(r, sum) })
}

func (s *State) troubled(u *unit) *trouble {
	if u.trouble == nil {
		u.trouble = &trouble{}
	}
	return u.trouble
}

// failure takes note of an attempt without a result.
func (s *State) failure(f task.Failure) {
	u := s.index[f.ID]
	if u == nil {
		return
	}
	t := s.troubled(u)
	if slices.Contains(t.seen, f.Attempt) {
		return
	}
	if f.Copy == task.CopyAudit {
		if s.audits[u] != nil {
			t.seen = append(t.seen, f.Attempt)
			s.emit(Noted{Failure: f})
			s.skip(u) // says nothing of the task, which has a result
		}
		return
	}
	if !u.phase.running() {
		return // an attempt of a task that another attempt has finished
	}
	t.seen = append(t.seen, f.Attempt)
	var producer *unit // whose bytes have to be made again
	pause, look, final := false, false, false
	switch f.Kind {
	case task.Full:
		pause = true // a task that waits for room is none that failed
	case task.Storage:
		s.storage++
		pause = s.storage >= storagePause
	case task.Lost:
		var known bool
		if producer, known = missed(u, f.Producer); !known {
			// The worker is behind, or it is this coordinator that is: another may have had
			// the input made again. It must not keep the run from ending in any case.
			if t.void++; t.void > maxVoid {
				t.failures = append(t.failures, f)
				final = true
			}
			look = f.Producer != nil && s.index[f.Producer.ID] != nil
		}
	case task.Died:
		// Several copies of a task may die in one memory class, and a coordinator may
		// have raised the task to the next before it died itself.
		switch {
		case f.Memory == 0 || u.Memory == 0:
			t.died++
		case f.Memory > u.Memory:
			t.died = maxEscalations + 1
		default:
			t.died = max(t.died, 1)
		}
		t.deaths++
		if final = t.died > maxEscalations || t.deaths > maxDeaths; final {
			t.failures = append(t.failures, f)
		}
	default:
		t.failures = append(t.failures, f)
		final = f.Kind.Permanent() || len(t.failures) >= maxFailures
		if f.Kind == task.Nondeterministic && len(t.stale) > 0 && len(t.failures) < maxFailures {
			final = false // it compared with the result that has been dropped since
		}
	}
	s.emit(Noted{Failure: f, Final: final})
	if final {
		s.giveUp(u, &TaskError{Failure: f, Attempts: len(t.failures)})
		return
	}
	if look {
		s.emit(Look{ID: f.Producer.ID})
	}
	if pause && !s.paused {
		s.pause(f.Message)
		s.emit(Pause{Failure: f})
	}
	if producer != nil {
		s.remake(producer, f.Message)
	}
	if f.Kind == task.Storage || f.Kind == task.Full {
		return // the worker has given the message back to the queue
	}
	if f.Copy == task.CopyTwin {
		s.dropTwin(u)
		return // the first message is still out
	}
	if u.twin == twinSpent { // a failure begins another series of attempts
		u.twin = twinNone
	}
	s.park(u)
}

// missed finds the input of u whose bytes a worker did not find. It is nil if they
// are being made again already; known is false if they are there, made anew, or
// none of u's inputs.
func missed(u *unit, p *task.Producer) (producer *unit, known bool) {
	if p == nil {
		return nil, false
	}
	for _, in := range u.inputs {
		if in.ID != p.ID {
			continue
		}
		if !in.there() {
			return nil, true
		}
		if p.Attempt == "" || p.Attempt == in.result.Attempt {
			return in, true
		}
	}
	return nil, false
}

// lost takes note of a message that the queue no longer has.
func (s *State) lost(e Missing) {
	u := s.index[e.ID]
	if u == nil {
		return
	}
	switch a := s.audits[u]; e.Copy {
	case "":
		s.park(u)
	case task.CopyTwin:
		s.dropTwin(u)
	case task.CopyAudit:
		if a != nil && a.out {
			s.recallAudit(u, a)
		}
	}
}

// park puts a task back that is not in the queue any more. Its inputs may have
// gone since it was published.
func (s *State) park(u *unit) {
	if u.phase == queued {
		s.set(u, waiting)
		s.offer(u)
	}
}

// giveUp fails a task for good, and the run with it unless that keeps going.
func (s *State) giveUp(u *unit, err error) {
	s.troubled(u).err = err
	s.fallen = append(s.fallen, u)
	if !s.KeepGoing {
		s.end(s.collect())
		return
	}
	s.drop(u, u)
}

// drop fails a task because of cause, and with it those that need it. A reader that
// a worker has already is left to it: perhaps it has read what it needs.
func (s *State) drop(u, cause *unit) {
	if u.phase == failed || s.ended {
		return
	}
	s.recall(u)
	s.void(u)
	if u.there() {
		s.vanish(u)
	}
	u.result, u.expect = nil, nil
	s.troubled(u).cause = cause
	if u != cause {
		cause.trouble.dropped++
	}
	s.set(u, failed)
	s.settle(u)
	for _, c := range u.readers {
		if a := s.audits[c]; a != nil && !a.out {
			s.skip(c)
		}
		if c.phase == waiting {
			s.drop(c, cause)
		} else if c.there() {
			s.use(c) // what it decided need not wait for u any more
		}
	}
}

// collect reports all tasks that failed for good, in order of the plan.
func (s *State) collect() error {
	slices.SortFunc(s.fallen, func(a, b *unit) int { return cmp.Compare(a.pos, b.pos) })
	var all *multierror.Error
	for _, u := range s.fallen {
		err := u.trouble.err
		if n := u.trouble.dropped; n > 0 {
			err = fmt.Errorf("%w; tasks left out that need task %s: %d", err, u.ID.Short(), n)
		}
		all = multierror.Append(all, err)
	}
	if all != nil && len(all.Errors) == 1 {
		return all.Errors[0]
	}
	return all.ErrorOrNil()
}

// TaskError is a failure that ended the run.
type TaskError struct {
	Failure  task.Failure
	Attempts int
}

func (e *TaskError) Error() string {
	switch f := e.Failure; {
	case f.Kind == task.Died:
		return fmt.Sprintf("%s (task %s is poison: it killed its workers in its memory class and, if there is one, in the next, last worker %s)", f.Message, f.ID.Short(), f.Worker)
	case e.Attempts > 1:
		return fmt.Sprintf("%s (task %s failed %d times, last on worker %s)", f.Message, f.ID.Short(), e.Attempts, f.Worker)
	default:
		return f.Message
	}
}

// Unwrap lets callers tell input that can never work from a run that failed.
func (e *TaskError) Unwrap() error {
	if e.Failure.Kind == task.Invalid {
		return task.ErrInvalid
	}
	return nil
}
