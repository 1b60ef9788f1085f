// Package local runs a whole fleet inside one process: a coordinator, workers, an
// embedded broker and a directory as the store. Tasks travel the same road as on
// many machines.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/observe"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/telemetry"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/shard"
	"github.com/shardpress/shardpress/worker"
)

// Job says what is wanted.
type Job struct {
	Model      string // checkpoint directory or file, or hf://owner/name@revision
	Recipe     *recipe.Recipe
	Out        string // directory of the result
	Store      string // directory of the store; DefaultStore(Out) if empty
	Workers    int    // tasks at once
	Memory     int64  // bytes that tasks at once may need together
	NoReuse    bool
	HashSource bool
	Overwrite  bool
	Salt       string
	Kernel     compress.Kernel
	Hub        hub.Options // how to reach the hub of such a model
	Log        *slog.Logger
	Telemetry  *telemetry.Telemetry // nil: nobody is told
	// Planned is told the plan before anything runs.
	Planned func(*coordinator.Outline)
	Watch   func(coordinator.Update)
	// Wrap, if set, may replace the store, the output and the queue, to watch or to
	// break them.
	Wrap Wrap

	sources *source.Opener
}

// Wrap replaces parts of a fleet by decorated ones. Nil functions leave them.
type Wrap struct {
	Bucket func(objstore.Bucket) objstore.Bucket
	Queue  func(Queue) Queue
	// Step is told of every step that changes something and is no operation of a
	// bucket or of the queue.
	Step func(what string)
}

func (j *Job) step(what string) {
	if j.Wrap.Step != nil {
		j.Wrap.Step(what)
	}
}

func (j *Job) bucket(b objstore.Bucket) objstore.Bucket {
	if j.Wrap.Bucket != nil {
		return j.Wrap.Bucket(b)
	}
	return b
}

// Queue is all that a fleet in one process does with its queue.
type Queue interface {
	coordinator.Queue
	worker.Queue
}

// DefaultStore is the store of a result when none is named: beside it, and so on
// the same file system, where placing a file is making a link.
func DefaultStore(out string) string {
	if abs, err := filepath.Abs(out); err == nil { // beside ".", too
		out = abs
	}
	return filepath.Join(filepath.Dir(filepath.Clean(out)), ".shardpress")
}

// Open reads the headers of the job's checkpoint and plans.
func Open(ctx context.Context, j *Job) (*shard.Checkpoint, *coordinator.Plan, error) {
	if j.sources == nil { // whoever names the model and whoever reads it are one user
		j.sources = &source.Opener{AnyDir: true, Hub: j.Hub}
	}
	var ck *shard.Checkpoint
	var err error
	if strings.HasPrefix(j.Model, hub.Scheme) {
		ck, err = j.sources.Open(ctx, j.Model)
	} else {
		ck, err = shard.Open(ctx, j.Model, shard.OpenOptions{HashSource: j.HashSource})
	}
	if err != nil {
		return nil, nil, err
	}
	plan, err := coordinator.NewPlan(ck.Manifest, j.Recipe, coordinator.PlanOptions{Config: ck.Config, Salt: j.Salt})
	if err != nil {
		return nil, nil, errors.Join(err, ck.Close())
	}
	return ck, plan, nil
}

// Run carries out the job.
func Run(ctx context.Context, j *Job) (*coordinator.Outcome, error) {
	ck, plan, err := Open(ctx, j)
	if err != nil {
		return nil, err
	}
	defer ck.Close() //nolint:errcheck // opened for reading
	if err := fits(plan, source.Memory(source.Of(ck)), j.Memory); err != nil {
		return nil, err
	}
	if j.Store == "" {
		j.Store = DefaultStore(j.Out)
	}
	if err := preflight(ctx, j, ck.Location(), plan); err != nil {
		return nil, err
	}
	dir, err := objstore.CreateDir(j.Store)
	if err != nil {
		return nil, err
	}
	j.step("store is made")
	unlock, err := lock(j.Store)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Nobody else writes to this store: what has no name yet is from a killed process.
	if _, err := dir.Sweep(ctx, 0); err != nil {
		return nil, err
	}
	if j.Telemetry == nil {
		j.Telemetry = telemetry.Off()
	}
	store := j.Telemetry.Bucket(j.bucket(dir))
	unlockOutput, err := lockOutput(j.Out)
	if err != nil {
		return nil, err
	}
	defer unlockOutput()
	j.step("store and output are locked")
	out, complete, err := openOutput(ctx, j, store, plan)
	if err != nil {
		return nil, err
	}
	if complete {
		return nil, fmt.Errorf("%s: %w", j.Out, ErrComplete)
	}
	if j.Planned != nil {
		j.Planned(plan.Outline())
	}
	outcome, err := j.fleet(ctx, ck, plan, store, out)
	if err != nil {
		return outcome, err
	}
	// The result is complete: what made the directory a store is no part of it.
	if err := j.release(ctx); err != nil {
		return outcome, fmt.Errorf("finish %s: %w", j.Out, err)
	}
	return outcome, nil
}

// fits refuses a budget that some task can never fit into: it would wait for ever.
// Reading takes a task that many bytes beside its work.
func fits(plan *coordinator.Plan, reading, memory int64) error {
	for _, u := range plan.Units {
		class, err := queue.MemoryClass(u.Layout.Memory + reading)
		if err != nil {
			return err
		}
		if class > memory {
			return compress.Invalidf("the task of %s needs a memory class of %d MiB, --memory allows %d KiB: raise it", u.File, class>>20, memory>>10)
		}
	}
	return nil
}

const (
	tellEvery = 200 * time.Millisecond // how often a progress bar moves
	maxRest   = 100 * time.Millisecond // a disk that fails will hardly be well later, and there is no other worker
)

// fleet starts broker and workers, runs the plan and stops them.
func (j *Job) fleet(ctx context.Context, ck *shard.Checkpoint, plan *coordinator.Plan, store, out objstore.Bucket) (*coordinator.Outcome, error) {
	// This process is the only one that works from this broker, whose state is worth
	// nothing beside the store's: what a killed process held would otherwise come back
	// only after the acknowledgement time.
	dir := filepath.Join(j.Store, ".queue")
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear queue: %w", err)
	}
	j.step("queue is cleared")
	broker, err := queue.StartEmbedded(dir)
	if err != nil {
		return nil, err
	}
	defer broker.Close()
	q, err := broker.Connect()
	if err != nil {
		return nil, err
	}
	defer q.Close()
	if err := q.Setup(ctx, operation.ClassF32); err != nil {
		return nil, err
	}
	j.step("queue is set up")
	var tasks Queue = q
	if j.Wrap.Queue != nil {
		tasks = j.Wrap.Queue(tasks)
	}
	const name = "local" // of the worker
	followed, err := j.Telemetry.Worker(name, j.Memory, j.Workers)
	if err != nil {
		return nil, err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	var outcome *coordinator.Outcome
	ended := make(chan error, 1)
	g.Go(func() error {
		defer stop()
		w := worker.Worker{
			Name: name, Queue: tasks, Registry: observe.Registry(followed, nil), Observer: observe.Worker(followed), Store: store, Sources: j.sources, Operations: operation.All(), Classes: []string{operation.ClassF32},
			Slots: j.Workers, Memory: j.Memory, Kernel: j.Kernel, TellEvery: tellEvery, MaxRest: maxRest, Log: j.Log,
		}
		if err := w.Run(work); err != nil {
			return fmt.Errorf("worker: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		defer stop()
		run := &coordinator.Run{
			Plan: plan, Store: store, Queue: tasks, Output: coordinator.NewOutput(out, ck),
			Location: source.Of(ck), NoReuse: j.NoReuse, Watch: j.Watch, Observe: observe.Runs(j.Telemetry), Log: j.Log,
			Request: map[string]any{"model": ck.Location(), "out": j.Out, "recipe": j.Recipe.Name},
		}
		var err error
		outcome, err = run.Execute(work)
		ended <- err
		return nil
	})
	werr := g.Wait()
	err = <-ended
	if werr != nil { // the run only noticed that it was stopped
		return outcome, werr
	}
	if err != nil && ctx.Err() != nil {
		return outcome, context.Cause(ctx)
	}
	return outcome, err
}
