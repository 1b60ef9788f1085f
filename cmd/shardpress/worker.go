package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/internal/machine"
	"github.com/shardpress/shardpress/internal/observe"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/worker"
)

func newWorker() *cobra.Command {
	var flags clientFlags
	var tele telemetryFlags
	var src sourceFlags
	var cache cacheFlags
	var name, memory string
	var classes []string
	var slots int
	var grace time.Duration
	c := &cobra.Command{
		Use:   "worker",
		Short: "Do the tasks of a fleet's runs",
		Long: `Do tasks. Workers may be unlike, come and go at any time and die: no run depends on
which of them did what. Each tests its arithmetic at the start, and takes only tasks
that fit into the memory it has.

SIGTERM makes the worker take no more tasks and finish those it is at within --grace;
what is left then goes to other workers at once.`,
		Example: `  shardpress worker --nats nats://broker:4222 --store s3://models/fleet
  shardpress worker --nats nats://broker:4222 --store s3://models/fleet --memory 8G --slots 2 --grace 2m`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if name == "" {
				name = machine.Name(machine.Host())
			}
			w := &worker.Worker{Name: name, Host: machine.Host(), Version: programVersion(), Operations: operation.All(), Slots: slots, Grace: grace}
			var err error
			if w.Kernel, err = kernel(); err != nil {
				return err
			}
			if w.Classes, err = numericClasses(classes); err != nil {
				return err
			}
			if w.Memory, err = workerMemory(memory); err != nil {
				return err
			}
			if w.Slots == 0 {
				w.Slots = machine.Slots(w.Memory, queue.SmallestMemory)
			}
			w.SelfTest = func(ctx context.Context, class string) error { return operation.SelfTest(ctx, class, w.Kernel) }
			t, err := tele.start(c, "shardpress-worker")
			if err != nil {
				return err
			}
			defer t.Shutdown(context.WithoutCancel(ctx))
			w.Log = t.Logger()
			store, err := flags.store.open(ctx)
			if err != nil {
				return err
			}
			w.Store = t.Bucket(store)
			opener, err := src.opener(w.Store)
			if err != nil {
				return err
			}
			closeCache, err := cache.open(opener)
			if err != nil {
				return err
			}
			defer closeCache()
			w.Sources = opener
			q, err := flags.nats.dial(ctx, name, t.Logger())
			if err != nil {
				return err
			}
			defer q.Close()
			if err := q.Setup(ctx, w.Classes...); err != nil {
				return err
			}
			followed, err := t.Worker(name, w.Memory, w.Slots)
			if err != nil {
				return err
			}
			w.Queue, w.Observer, w.Registry, w.BeatEvery = q, observe.Worker(followed), observe.Registry(followed, q), q.AckWait()/3
			if _, err := fmt.Fprintf(c.ErrOrStderr(), "worker %s: %s for tasks, %d slots, %s\n", name, formatBytes(w.Memory), w.Slots, flags.store.where()); err != nil {
				return err
			}
			return stopped(ctx, w.Run(ctx))
		},
	}
	flags.register(c)
	flags.nats.registerAckWait(c)
	tele.register(c)
	src.register(c)
	cache.register(c)
	c.Flags().StringVar(&name, "name", "", "name of this worker, unlike any other's (default the host's, with a random end)")
	c.Flags().StringSliceVar(&classes, "classes", []string{"f32"}, "numeric classes to serve")
	c.Flags().StringVar(&memory, "memory", "", "memory that tasks at once may need together, such as 8G (default the machine's or the container's, less what the program and the system need)")
	c.Flags().IntVar(&slots, "slots", 0, "tasks at once (default one for each processor that the memory suffices for)")
	c.Flags().DurationVar(&grace, "grace", 25*time.Second, "time to finish tasks after SIGTERM")
	return c
}

// workerMemory is what a worker may use for tasks.
func workerMemory(given string) (int64, error) {
	if given == "" {
		return machine.Budget(machine.Memory()), nil
	}
	n, err := parseBytes(given)
	if err != nil {
		return 0, &usageError{fmt.Errorf("--memory %s: %w", given, err)}
	}
	if n < queue.SmallestMemory {
		return 0, &usageError{fmt.Errorf("--memory %s: no task needs less than %s", given, formatBytes(queue.SmallestMemory))}
	}
	return n, nil
}

// numericClasses are the classes that the names stand for, with their versions.
func numericClasses(names []string) ([]string, error) {
	known := map[string]string{"f32": operation.ClassF32}
	var classes []string
	for _, name := range names {
		class, ok := known[name]
		if !ok {
			return nil, &usageError{fmt.Errorf("--classes %s: want f32", name)}
		}
		classes = append(classes, class)
	}
	return classes, nil
}

// cacheFlags say what a worker keeps near of what it reads from afar.
type cacheFlags struct{ scratch, size string }

func (f *cacheFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.scratch, "scratch", "", "directory for what need not outlive the worker (default the system's)")
	c.Flags().StringVar(&f.size, "cache", "", "keep up to so much of the sources in --scratch, such as 20G (default none)")
}

// open gives the opener a cache, if one is wanted. What it returns removes it.
func (f *cacheFlags) open(o *source.Opener) (func(), error) {
	if f.size == "" {
		return func() {}, nil
	}
	n, err := parseBytes(f.size)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--cache %s: %w", f.size, err)}
	}
	dir, remove, err := machine.Scratch(f.scratch)
	if err != nil {
		return nil, err
	}
	cache, err := source.OpenCache(filepath.Join(dir, "cache"), n)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	o.Cache = cache
	return func() { _ = remove() }, nil // scratch
}
