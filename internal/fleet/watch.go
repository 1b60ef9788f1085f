// Package fleet is the client's side of a fleet: it submits runs, watches them and
// fetches their results. What it does can be stopped and done again at any time;
// the run goes on by itself.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Queue is what a client needs of the queue. All of it is hints: the store knows
// everything that counts.
type Queue interface {
	Hint(ctx context.Context, kind, run string) error
	Events(ctx context.Context, run string) (<-chan []byte, error)
	Snapshot(ctx context.Context, run string) ([]byte, error)
}

// pollEvery is how often a watcher looks at the store by itself, for hints may be
// lost.
const pollEvery = 2 * time.Second

// Client talks to a fleet by its store and its queue.
type Client struct {
	Store objstore.Bucket
	Queue Queue
	Log   *slog.Logger
}

// Submit stores a run and tells the coordinators of it.
func (c *Client) Submit(ctx context.Context, s *coordinator.Submission) error {
	if err := coordinator.Submit(ctx, c.Store, s); err != nil {
		return err
	}
	c.hint(ctx, queue.HintSubmitted, s.Run)
	return nil
}

// Cancel ends a run.
func (c *Client) Cancel(ctx context.Context, run string) error {
	if err := coordinator.Cancel(ctx, c.Store, run); err != nil {
		return err
	}
	c.hint(ctx, queue.HintCancel, run)
	return nil
}

func (c *Client) hint(ctx context.Context, kind, run string) {
	if err := c.Queue.Hint(ctx, kind, run); err != nil {
		c.Log.Debug("hint not sent", "kind", kind, "run", run, "err", err)
	}
}

// Snapshot is what the run looks like now; nil if nobody says.
func (c *Client) Snapshot(ctx context.Context, run string) (*coordinator.Snapshot, error) {
	b, err := c.Queue.Snapshot(ctx, run)
	if errors.Is(err, queue.ErrNotFound) { // no coordinator has taken it up yet
		return nil, nil
	}
	if err != nil || b == nil {
		return nil, err
	}
	var s coordinator.Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read snapshot of run %s: %w", run, err)
	}
	return &s, nil
}

// Viewer shows a run. Its methods are called from one goroutine.
type Viewer struct {
	// Planned is told the plan once.
	Planned func(*coordinator.Outline)
	// Update is told what happens, after Planned.
	Update func(coordinator.Update)
	// Placed is told of every weight file that stands in the store's result, at least
	// once; after UpdateRepair of its unit perhaps again.
	Placed func(file string)
}

// Watch follows a run to its end, and returns how it ended.
func (c *Client) Watch(ctx context.Context, run string, v Viewer) (*coordinator.Record, error) {
	sub, err := coordinator.ReadSubmission(ctx, c.Store, run)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := c.Queue.Events(ctx, run) // before the first look, so that none is missed in between
	if err != nil {
		return nil, err
	}
	w := &watcher{Client: c, run: run, viewer: v, out: sub.Out, unit: map[string]int{}, placed: map[string]bool{}}
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case b, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			var u coordinator.Update
			if json.Unmarshal(b, &u) != nil {
				continue
			}
			if u.Kind == coordinator.UpdateFinished {
				poll.Reset(0)
				continue
			}
			w.event(ctx, u)
		case <-poll.C:
			r, err := w.poll(ctx)
			if r != nil {
				return r, nil
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				c.Log.Warn("store does not answer", "err", err)
			}
			poll.Reset(pollEvery)
		}
	}
}

// watcher is a run being watched.
type watcher struct {
	*Client
	run     string
	viewer  Viewer
	out     string
	outline *coordinator.Outline
	started bool
	unit    map[string]int // by file
	placed  map[string]bool
}

// plan reads the outline when it is there.
func (w *watcher) plan(ctx context.Context) error {
	if w.outline != nil {
		return nil
	}
	o, err := coordinator.ReadOutline(ctx, w.Store, w.run)
	if err != nil || o == nil {
		return err
	}
	w.outline = o
	for i, u := range o.Units {
		w.unit[u.File] = i
	}
	w.viewer.Planned(o)
	return nil
}

func (w *watcher) event(ctx context.Context, u coordinator.Update) {
	if err := w.plan(ctx); err != nil || w.outline == nil || u.Unit < 0 || u.Unit >= len(w.outline.Units) {
		return // the next poll will tell
	}
	w.tell(u)
}

func (w *watcher) tell(u coordinator.Update) {
	if !w.started && u.Kind != coordinator.UpdateStarted {
		w.started = true
		w.viewer.Update(coordinator.Update{Kind: coordinator.UpdateStarted, Run: w.run, Tasks: len(w.outline.Units)})
	}
	file := w.outline.Units[u.Unit].File
	switch u.Kind {
	case coordinator.UpdateStarted:
		if w.started {
			return // a coordinator that took over
		}
		w.started = true
	case coordinator.UpdatePlaced:
		if w.placed[file] {
			return
		}
		w.placed[file] = true
		w.viewer.Placed(file)
	case coordinator.UpdateRepair:
		delete(w.placed, file)
	}
	w.viewer.Update(u)
}

// poll looks at the store: at what is placed, and at whether the run is over.
func (w *watcher) poll(ctx context.Context) (*coordinator.Record, error) {
	// The end first: what was placed before it is seen after it.
	r, err := coordinator.ReadRecord(ctx, w.Store, w.run)
	if err != nil {
		return nil, err
	}
	if err := w.plan(ctx); err != nil || w.outline == nil {
		return r, err
	}
	prefix := w.out + "/"
	for info, err := range w.Store.List(ctx, prefix) {
		if err != nil {
			return r, err
		}
		file := strings.TrimPrefix(info.Key, prefix)
		if i, ok := w.unit[file]; ok && !w.placed[file] {
			w.tell(coordinator.Update{Kind: coordinator.UpdatePlaced, Run: w.run, Unit: i, Task: w.outline.Units[i].Task.Short()})
		}
	}
	return r, nil
}

// Ended turns a record into the error that its run ended with.
func Ended(r *coordinator.Record) error {
	switch r.State {
	case coordinator.StateDone, coordinator.StateComplete:
		return nil
	case coordinator.StateCancelled:
		return fmt.Errorf("run %s: %w", r.Run, coordinator.ErrCancelled)
	}
	cause := errors.New(r.Error)
	if r.Invalid {
		cause = &invalidError{r.Error}
	}
	return fmt.Errorf("run %s %s: %w", r.Run, r.State, cause)
}

// invalidError is the error of a run that asked for what can never work. Its text
// came over the wire and says so already.
type invalidError struct{ text string }

func (e *invalidError) Error() string { return e.text }

// Is makes it a task.ErrInvalid.
func (e *invalidError) Is(target error) bool { return target == task.ErrInvalid }
