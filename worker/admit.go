package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// After how long a task that was given back is offered again, with some chance on
// top so that a fleet does not ask in step.
const (
	soon  = 2 * time.Second  // to another worker, which may be idle
	later = 10 * time.Second // when a worker may have come that can do it
)

// jitter makes up to a half more of d.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/2+1) }

// next pulls a task and takes room for it. place is nil if none is to be done: it has
// been dealt with.
func (s *shift) next(ctx context.Context) (queue.Delivery, *task.Message, *place, error) {
	select {
	case s.pull <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, nil, ctx.Err()
	}
	defer func() { <-s.pull }()
	if err := s.room.open(ctx); err != nil {
		return nil, nil, nil, err
	}
	d, err := s.Queue.Next(ctx, s.cells)
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := d.Message()
	if err != nil {
		s.unreadable(d, err)
		return nil, nil, nil, nil
	}
	switch after, why := s.unfit(m); {
	case ctx.Err() != nil:
		s.giveBack(d, m, 0)
	case why != "":
		s.once(why, m)
		if m.Avoid != s.Name { // whoever can do the next such task shall have it first
			s.room.rest(jitter(soon))
		}
		s.giveBack(d, m, jitter(after))
	default:
		if err := check(m, d.Cell()); err != nil {
			s.refuse(ctx, d, m, err)
			return nil, nil, nil, nil
		}
		if p := s.room.enter(m.Memory); p != nil {
			return d, m, p, nil
		}
		s.giveBack(d, m, jitter(soon)) // a task has come to need the room for itself
	}
	return nil, nil, nil, nil
}

// cells are those of which a task can be done now, in the order in which they are to
// be tried: tasks that others wait for come first in all classes.
func (s *shift) cells() []queue.Cell {
	var all []queue.Cell
	for _, c := range s.classes {
		all = append(all, queue.Ladder(c, s.room.available())...)
	}
	slices.SortStableFunc(all, func(a, b queue.Cell) int { return rank(a) - rank(b) })
	return all
}

func rank(c queue.Cell) int {
	if c.Chain {
		return 0
	}
	return 1
}

// unfit says why a task is not for this worker although nothing is wrong with it, and
// after how long it may be offered again.
func (s *shift) unfit(m *task.Message) (after time.Duration, why string) {
	switch {
	case m.Avoid == s.Name:
		return soon, "this copy is for another worker"
	case !slices.Contains(s.classes, m.Class):
		return later, fmt.Sprintf("numeric class %s is not served here", m.Class)
	case m.Op != "" && s.Operations[m.Op] == nil:
		return later, fmt.Sprintf("operation %s is not known here", m.Op)
	case m.Memory > s.Memory:
		return later, "the task needs more memory than this worker has"
	}
	return 0, ""
}

// once logs why tasks are given back, the first time.
func (s *shift) once(why string, m *task.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Avoid == s.Name || s.warned[why] || len(s.warned) > 1000 { // names come from messages: they must not fill the memory
		return
	}
	s.warned[why] = true
	s.Log.Warn("tasks are left to other workers", "reason", why, "task", m.ID.Short(), "run", m.Run)
}

// unreadable deals with a message that is none. One of a newer program is for newer
// workers.
func (s *shift) unreadable(d queue.Delivery, err error) {
	if errors.Is(err, task.ErrNewer) {
		s.once("messages of a newer program: update this worker", &task.Message{})
		s.room.rest(jitter(soon))
		s.giveBack(d, &task.Message{}, jitter(later))
		return
	}
	s.Log.Error("message cannot be read, dropped", "err", err)
	if err := d.Abandon("unreadable message"); err != nil {
		s.Log.Warn("message not abandoned", "err", err)
	}
}

// maxFiles bounds the source files that a message may name.
const maxFiles = 4096

// check refuses a message that no coordinator sends. Everything in it came over the
// wire: what becomes part of a key, of a path or of a sum is looked at.
func check(m *task.Message, cell queue.Cell) error {
	want, err := queue.CellOf(m)
	if err != nil {
		return err
	}
	if want != cell {
		return fmt.Errorf("message of task %s: %w: a need of %d bytes in cell %v", m.ID.Short(), task.ErrInvalid, m.Memory, cell)
	}
	if m.Memory < 0 || !task.ValidToken(m.Run) {
		return fmt.Errorf("message of task %s: %w: a need of %d bytes for run %q", m.ID.Short(), task.ErrInvalid, m.Memory, m.Run)
	}
	for _, attempt := range []string{m.Repair, m.Audit} {
		if attempt != "" && !task.ValidToken(attempt) {
			return fmt.Errorf("message of task %s: %w: attempt %q", m.ID.Short(), task.ErrInvalid, attempt)
		}
	}
	if len(m.Files) > maxFiles {
		return fmt.Errorf("message of task %s: %w: %d source files, at most %d", m.ID.Short(), task.ErrInvalid, len(m.Files), maxFiles)
	}
	for _, f := range m.Files {
		if f.Size < 0 || !plainName(f.Name) {
			return fmt.Errorf("message of task %s: %w: source file %q of %d bytes", m.ID.Short(), task.ErrInvalid, f.Name, f.Size)
		}
	}
	return nil
}

// checkSpec holds the spec, which is proven by the task's ID, against the message,
// which is not.
func (s *shift) checkSpec(m *task.Message, spec *task.Spec) error {
	if m.Op != "" && m.Op != spec.Op || m.Class != spec.Class {
		return fmt.Errorf("message of task %s: %w: operation %q in class %s, the spec has %s in %s",
			m.ID.Short(), task.ErrInvalid, m.Op, m.Class, spec.Op, spec.Class)
	}
	return nil
}

// giveBack offers the task again after a while. If the queue does not take it back
// it comes back by itself when its time for acknowledgement is over.
func (s *shift) giveBack(d queue.Delivery, m *task.Message, after time.Duration) {
	if err := d.Retry(after); err != nil {
		s.Log.Warn("task not given back", "task", m.ID.Short(), "err", err)
	}
}
