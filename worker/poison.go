package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// A task can kill its worker: by needing more memory than was planned, or by a bug
// that no recover helps against. That a message comes again says little: brokers
// restart, and workers are preempted. What counts are records of attempts that
// started and of whose end nobody knows.
const (
	aloneAfter  = 2 // deaths after which a task has its worker for itself, so that it is known whose fault the next one is
	poisonAfter = 3 // deaths in a memory class after which a task is not tried there again
	lookBack    = 64
)

// deaths are the attempts at a task that died.
type deaths struct {
	here, below int      // in the memory class of this delivery, in smaller ones
	workers     []string // on which, here
}

// poisonous reports whether the task is not to be tried in this memory class again.
// In a larger one than that in which it killed its workers one death is enough.
func (d *deaths) poisonous() bool {
	return d.here >= poisonAfter || d.below >= poisonAfter && d.here >= 1
}

// poison looks for earlier attempts at a task that died. It gives the task up, and
// says that it is over, or waits until no other task is at work here.
func (s *shift) poison(ctx context.Context, a *attempt) (over bool, err error) {
	if a.d.Attempt() <= 1 && a.m.Escalate == 0 { // most tasks, for which a listing would be too much
		return false, nil
	}
	d, err := s.deaths(ctx, a)
	if err != nil {
		return false, err
	}
	if d.poisonous() {
		cause := fmt.Errorf("%d attempts ended with their workers, in memory class %d MiB: on %s", d.here, a.cell.Memory>>20, strings.Join(d.workers, ", "))
		f := s.failure(a, task.Died, cause)
		f.Memory = a.m.Memory
		s.fail(ctx, a.d, a.m, f)
		return true, nil
	}
	if d.here+d.below >= aloneAfter {
		a.log.InfoContext(ctx, "task killed its workers, waiting to be alone with it", "deaths", d.here+d.below)
		return false, a.place.beAlone(ctx, s.beatEvery(), func() { a.progress.beat(0) })
	}
	return false, nil
}

// deaths reads the records of the attempts at a task. Another copy of the task may
// live, so that only attempts of the same copy count: a message is with one worker
// at a time.
func (s *shift) deaths(ctx context.Context, a *attempt) (*deaths, error) {
	prefix := task.AttemptPrefix(a.m.Run, a.m.ID)
	var keys []string
	for info, err := range s.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list attempts at task %s: %w", a.m.ID.Short(), err)
		}
		if keys = append(keys, info.Key); len(keys) > 2*lookBack { // named by time: the last are the latest
			keys = slices.Delete(keys, 0, lookBack)
		}
	}
	var d deaths
	for _, key := range keys[max(0, len(keys)-lookBack):] {
		id := strings.TrimSuffix(strings.TrimPrefix(key, prefix), ".json")
		if id == a.m.Repair || s.knows(id) { // one that committed has not died
			continue
		}
		b, err := objstore.ReadAll(ctx, s.store, key, task.MaxAttempt)
		if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrTooLarge) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attempt at task %s: %w", a.m.ID.Short(), err)
		}
		r, err := task.ParseAttempt(a.m.ID, b)
		if err != nil || r.State != task.AttemptStarted || r.Copy != a.m.Copy {
			continue
		}
		switch {
		case r.Memory == a.cell.Memory:
			d.here++
			d.workers = append(d.workers, shorten(r.Worker, 64))
		case r.Memory < a.cell.Memory:
			d.below++
		}
	}
	return &d, nil
}
