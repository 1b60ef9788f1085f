// Package worker pulls tasks from the queue, does them and commits their results
// to the store.
//
//	pull ──> fit for it? ──> result there? ──yes──> acknowledge
//	            │no               │no
//	        give back        killed its workers? ──> alone, or give up
//	                              │
//	                         say so in a record: this attempt has started
//	                              │
//	                         run the operation, outputs under the attempt
//	                              │
//	                         put result.json if absent: the commit
//	                              │
//	                         acknowledge, and say in the record how it ended
//
// A worker may die anywhere. Before the commit it has done nothing that anybody
// can see, but for a record that says it had started; after it the task is done,
// whatever the queue thinks.
//
// What happens to an attempt is the task's fault only if the operation failed by
// itself, or if the worker died of it. A worker that is told to stop, a store that
// does not answer, an operation that this program does not have: the task is given
// back, and nothing is held against it.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Queue is what a worker needs of the queue.
type Queue interface {
	Next(ctx context.Context, cells func() []queue.Cell) (queue.Delivery, error)
	Notify(n *task.Notice) error
}

// Worker does tasks of some numeric classes.
type Worker struct {
	Name    string // part of keys and subjects, and no other worker's
	Host    string
	Version string // of the program
	Queue   Queue
	// Registry is told of this worker while it runs; nil tells nobody.
	Registry   Registry
	Store      objstore.Bucket
	Sources    operation.Sources
	Operations map[string]operation.Operation
	Classes    []string
	// SelfTest says whether this machine makes the right bytes in a class. A class
	// that fails it is not served. Nil trusts the machine.
	SelfTest func(ctx context.Context, class string) error
	Slots    int   // tasks at once
	Memory   int64 // bytes that tasks at once may need together
	Kernel   compress.Kernel
	// Grace is how long tasks at work may go on when the worker is told to stop.
	Grace time.Duration
	// BeatEvery is how often the queue hears that a task is still being worked on;
	// queue.HeartbeatEvery if zero.
	BeatEvery time.Duration
	// Silence is how long an operation may give no sign of life before its attempt is
	// given up; 5 minutes if zero.
	Silence time.Duration
	// TellEvery is how often watchers are told of an operation's progress; once a
	// second if zero.
	TellEvery time.Duration
	// MaxRest bounds for how long a task is given back, and nothing is pulled, when
	// the store fails again and again; 30 seconds if zero.
	MaxRest  time.Duration
	Observer Observer // nil: nobody
	Log      *slog.Logger
}

// Run works until ctx ends, which is no error, or the queue is lost. When ctx ends
// nothing new is begun, tasks at work go on for as long as Grace allows, and those
// that are left are given back.
func (w *Worker) Run(ctx context.Context) error {
	if w.Memory < queue.SmallestMemory {
		return fmt.Errorf("start worker %s: memory of %d bytes is below the smallest memory class of %d", w.Name, w.Memory, queue.SmallestMemory)
	}
	if !task.ValidToken(w.Name) {
		return fmt.Errorf("start worker %q: %w: a name is of letters, digits, -, _ and @, at most 64", w.Name, task.ErrInvalid)
	}
	classes, err := w.fit(ctx)
	if err != nil {
		return err
	}
	s := &shift{
		Worker:    w,
		classes:   classes,
		store:     &blamed{w.Store},
		room:      newRoom(w.Memory),
		pull:      make(chan struct{}, 1),
		at:        map[task.ID]*attempt{},
		unsettled: map[string]unsettled{},
		warned:    map[string]bool{},
		changed:   make(chan struct{}, 1),
		started:   time.Now(),
	}
	return s.run(ctx)
}

// fit tests the numeric classes and returns those that this machine may serve.
func (w *Worker) fit(ctx context.Context) ([]string, error) {
	if w.SelfTest == nil {
		return w.Classes, nil
	}
	var fit []string
	var failed []error
	for _, c := range w.Classes {
		if err := w.SelfTest(ctx, c); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			w.Log.Error("numeric class is not served", "class", c, "err", err)
			failed = append(failed, err)
			continue
		}
		fit = append(fit, c)
	}
	if len(fit) == 0 {
		return nil, fmt.Errorf("start worker %s: this machine can serve no numeric class: %w", w.Name, errors.Join(failed...))
	}
	return fit, nil
}

// shift is a worker at work, from Run's beginning to its end.
type shift struct {
	*Worker
	classes []string
	store   objstore.Bucket // Worker.Store, whose errors are marked as its own
	room    *room
	pull    chan struct{} // one slot asks the queue at a time, so that what it is told fits still fits

	mu        sync.Mutex
	at        map[task.ID]*attempt // being worked on
	unsettled map[string]unsettled // by attempt: ended, and the store does not know yet
	warned    map[string]bool
	troubles  int // of the store, in a row

	changed  chan struct{} // capacity 1: the registry's entry is old
	started  time.Time
	draining atomic.Bool
	done     atomic.Int64
	bytes    atomic.Int64
}

func (s *shift) run(ctx context.Context) error {
	unregister := s.register(ctx)
	settled := s.settleRecords(ctx)
	g, pulling := errgroup.WithContext(ctx)
	work, cancel := s.outlive(pulling)
	defer cancel()
	for range max(s.Slots, 1) {
		g.Go(func() error {
			for {
				err := s.one(pulling, work)
				if pulling.Err() != nil {
					return nil //nolint:nilerr // stopping is no error
				}
				if err != nil {
					return err
				}
			}
		})
	}
	err := g.Wait()
	settled()
	unregister()
	return err
}

// one pulls a task and does it.
func (s *shift) one(pulling, work context.Context) error {
	d, m, place, err := s.next(pulling)
	if err != nil || place == nil {
		return err
	}
	return s.handle(work, d, m, place)
}

// notify sends a hint, whose loss the coordinator's reconciler makes good.
func (s *shift) notify(n *task.Notice) {
	n.Worker = s.Name
	if err := s.Queue.Notify(n); err != nil {
		s.Log.Warn("notice not sent", "task", n.ID.Short(), "err", err)
	}
}
