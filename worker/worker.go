// Package worker pulls tasks from the queue, does them and commits their results
// to the store.
//
//	pull ──> admit by memory ──> result there? ──yes──> acknowledge
//	                                  │no
//	                      run the operation, outputs under the attempt
//	                                  │
//	                      put result.json if absent: the commit
//	                                  │
//	                             acknowledge
//
// A worker may die anywhere. Before the commit it has done nothing that anybody
// can see; after it the task is done, whatever the queue thinks.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
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

// maxDeliveries is how often a task may be offered in the same message before its
// workers' deaths are laid at its door.
const maxDeliveries = 4

// silence is how long an operation may make no progress before its task is let
// go to another worker.
const silence = 5 * time.Minute

// Worker does tasks of one numeric class.
type Worker struct {
	Name       string
	Queue      Queue
	Store      objstore.Bucket
	Sources    operation.Sources
	Operations map[string]operation.Operation
	Class      string
	Slots      int   // tasks at once
	Memory     int64 // bytes that tasks at once may need together
	Kernel     compress.Kernel
	Log        *slog.Logger
}

// Run works until ctx ends, which is no error, or the queue or the store is lost.
func (w *Worker) Run(ctx context.Context) error {
	if w.Memory < queue.SmallestMemory {
		return fmt.Errorf("start worker %s: memory of %d bytes is below the smallest memory class of %d", w.Name, w.Memory, queue.SmallestMemory)
	}
	b := &budget{free: w.Memory, changed: make(chan struct{}, 1)}
	pull := make(chan struct{}, 1) // one slot asks the queue at a time, so that what it is told fits still fits
	g, ctx := errgroup.WithContext(ctx)
	for range max(w.Slots, 1) {
		g.Go(func() error {
			for {
				err := w.one(ctx, b, pull)
				if ctx.Err() != nil {
					return nil //nolint:nilerr // stopping is no error
				}
				if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// one pulls a task and does it.
func (w *Worker) one(ctx context.Context, b *budget, pull chan struct{}) error {
	select {
	case pull <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := b.wait(ctx, queue.SmallestMemory); err != nil {
		<-pull
		return err
	}
	d, err := w.Queue.Next(ctx, func() []queue.Cell { return queue.Ladder(w.Class, b.available()) })
	if err != nil {
		<-pull
		return err
	}
	m, err := d.Message()
	if err != nil {
		<-pull
		w.Log.Error("message cannot be read, dropped", "err", err)
		if err := d.Abandon("unreadable message"); err != nil {
			w.Log.Warn("message not abandoned", "err", err)
		}
		return nil
	}
	// The cell bounds what the task needs; the message says how much of it.
	b.take(m.Memory)
	<-pull
	defer b.give(m.Memory)
	return w.handle(ctx, d, m)
}

// handle brings a delivery to its end: acknowledged, abandoned or given back.
func (w *Worker) handle(ctx context.Context, d queue.Delivery, m *task.Message) error {
	log := w.Log.With("task", m.ID.Short(), "attempt", d.Attempt())
	if r, err := w.committed(ctx, m.ID); err != nil {
		w.warn(ctx, "store does not answer", m.ID, err)
		w.giveBack(d, m, 5*time.Second)
		return nil
	} else if r != nil && r.Attempt != m.Repair {
		return w.done(ctx, d, m)
	}
	if d.Attempt() > maxDeliveries {
		return w.fail(ctx, d, m, ulid.Make().String(), task.Internal,
			fmt.Errorf("workers died of it or fell silent %d times", d.Attempt()-1))
	}
	attempt := ulid.Make().String()
	err := w.attempt(ctx, d, m, attempt)
	if err == nil {
		return w.done(ctx, d, m)
	}
	var unsure *commitError
	if errors.As(err, &unsure) {
		stands, known := w.settled(context.WithoutCancel(ctx), m.ID, attempt)
		if stands {
			return w.done(context.WithoutCancel(ctx), d, m)
		}
		if known {
			w.discard(context.WithoutCancel(ctx), m.ID, attempt)
		} // else a result may name these bytes: better garbage than a hole
	} else {
		w.discard(context.WithoutCancel(ctx), m.ID, attempt)
	}
	if ctx.Err() != nil { // drained: the task is free at once
		w.giveBack(d, m, 0)
		return nil //nolint:nilerr // another worker will do it
	}
	log.Info("attempt failed", "err", err) // the run tells of it, from the failure
	return w.fail(ctx, d, m, attempt, kindOf(err), err)
}

// attempt runs the operation under a heartbeat and commits its result.
func (w *Worker) attempt(ctx context.Context, d queue.Delivery, m *task.Message, attempt string) error {
	begin := time.Now()
	spec, err := w.spec(ctx, m.ID)
	if err != nil {
		return err
	}
	op := w.Operations[spec.Op]
	if op == nil || spec.Class != w.Class {
		return fmt.Errorf("operation %s in class %s: %w: this worker does not have it", spec.Op, spec.Class, task.ErrInvalid)
	}
	var progress pulse
	stop := w.heartbeat(ctx, d, m, &progress)
	defer stop()
	out := &outputs{store: w.Store, id: m.ID, attempt: attempt}
	consumed, err := op.Run(ctx, spec, &operation.Env{
		Message:  m,
		Sources:  w.Sources,
		Store:    w.Store,
		Kernel:   w.Kernel,
		Progress: progress.beat,
		Put:      out.put,
	})
	if err != nil {
		return err
	}
	return w.commit(ctx, m, &task.Result{
		ID: m.ID, Op: spec.Op, Class: spec.Class, Attempt: attempt, Worker: w.Name,
		Outputs: out.written, Consumed: consumed, Elapsed: time.Since(begin),
	})
}

// pulse is what an operation says of itself.
type pulse struct {
	bytes atomic.Int64 // of source worked through
	beats atomic.Int64 // signs of life, with bytes or without
}

func (p *pulse) beat(bytes int64) {
	p.bytes.Add(bytes)
	p.beats.Add(1)
}

// heartbeat keeps the delivery for as long as the operation makes progress, and
// tells watchers how far it is.
func (w *Worker) heartbeat(ctx context.Context, d queue.Delivery, m *task.Message, progress *pulse) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		extend := time.NewTicker(queue.HeartbeatEvery)
		defer extend.Stop()
		tell := time.NewTicker(200 * time.Millisecond)
		defer tell.Stop()
		last, since := int64(-1), time.Now()
		told := int64(0)
		for {
			select {
			case <-ctx.Done():
				return
			case <-extend.C:
				if now := progress.beats.Load(); now != last {
					last, since = now, time.Now()
				}
				// A hung operation must not hold its task for ever.
				if time.Since(since) < silence {
					if err := d.Extend(); err != nil {
						w.Log.Warn("heartbeat failed", "task", m.ID.Short(), "err", err)
					}
				}
			case <-tell.C:
				if n := progress.bytes.Load(); n != told {
					told = n
					w.notify(&task.Notice{ID: m.ID, State: task.Progress, Worker: w.Name, Bytes: n})
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (w *Worker) done(ctx context.Context, d queue.Delivery, m *task.Message) error {
	if err := d.Done(ctx); err != nil {
		// The task is committed: whoever is offered it again will see that.
		w.warn(ctx, "acknowledgement failed", m.ID, err)
	}
	w.notify(&task.Notice{ID: m.ID, State: task.Done, Worker: w.Name})
	return nil
}

// notify sends a hint, whose loss the coordinator's reconciler makes good.
func (w *Worker) notify(n *task.Notice) {
	if err := w.Queue.Notify(n); err != nil {
		w.Log.Warn("notice not sent", "task", n.ID.Short(), "err", err)
	}
}

// errNondeterministic marks a result that differs from one that exists.
var errNondeterministic = errors.New("the same task gave other bytes")

func kindOf(err error) task.Kind {
	if errors.Is(err, errNondeterministic) {
		return task.Nondeterministic
	}
	return operation.Classify(err)
}
