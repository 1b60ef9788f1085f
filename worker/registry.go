package worker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/tensor"
)

// Registry is where workers say that they live. People and forecasts read it; no
// schedule depends on it.
type Registry interface {
	Register(ctx context.Context, w *task.WorkerInfo) error
	Unregister(ctx context.Context, name string) error
}

const (
	registerEvery = 5 * time.Second // a third of the time that an entry lives
	registerLeast = time.Second     // between two changes
)

// change says that the registry's entry is old.
func (s *shift) change() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// register keeps the worker's entry until the returned function is called, which
// removes it. A registry that does not answer is no reason not to work.
func (s *shift) register(ctx context.Context) (end func()) {
	if s.Registry == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.keepRegistered(ctx)
	}()
	return func() {
		cancel()
		<-ended
		ctx, cancel := last(ctx)
		defer cancel()
		if err := s.Registry.Unregister(ctx, s.Name); err != nil {
			s.Log.Info("worker not taken off the registry, where its entry will expire", "err", err)
		}
	}
}

func (s *shift) keepRegistered(ctx context.Context) {
	tick := time.NewTicker(registerEvery)
	defer tick.Stop()
	lost := false
	for {
		limited, cancel := context.WithTimeout(ctx, registerEvery)
		err := s.Registry.Register(limited, s.info())
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !lost {
			s.Log.Warn("worker is not registered, working on", "err", err)
		}
		lost = err != nil
		// Short tasks come and go many times a second, which nobody could read.
		least := time.NewTimer(registerLeast)
		select {
		case <-ctx.Done():
			least.Stop()
			return
		case <-least.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.changed:
		}
	}
}

// info is what the worker says of itself.
func (s *shift) info() *task.WorkerInfo {
	kernel := string(s.Kernel)
	if k, err := tensor.ForName(kernel); err == nil {
		kernel = k.Name() // the one that "" stands for
	}
	w := &task.WorkerInfo{
		Name: s.Name, Version: s.Version, Host: s.Host, Classes: s.classes, Ops: slices.Sorted(maps.Keys(s.Operations)), Kernel: kernel,
		Memory: s.Memory, Slots: max(s.Slots, 1), Draining: s.draining.Load(), Started: s.started, Done: s.done.Load(), Bytes: s.bytes.Load(),
		Tasks: []task.WorkerTask{},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.at {
		w.Tasks = append(w.Tasks, task.WorkerTask{
			ID: a.m.ID, Run: a.m.Run, Attempt: a.id, Copy: a.m.Copy, Bytes: a.progress.bytes.Load(), Since: a.since,
		})
	}
	slices.SortFunc(w.Tasks, func(a, b task.WorkerTask) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Attempt, b.Attempt))
	})
	return w
}
