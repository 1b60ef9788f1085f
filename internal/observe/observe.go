// Package observe shows telemetry what workers and the queue do. These know only
// interfaces of their own, and telemetry knows neither.
package observe

import (
	"context"
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/telemetry"
	"github.com/shardpress/shardpress/worker"
)

// Worker has telemetry follow the attempts of a worker.
func Worker(t *telemetry.Worker) worker.Observer { return attempts{t} }

type attempts struct{ t *telemetry.Worker }

func (a attempts) Attempt(ctx context.Context, m *task.Message, d queue.Delivery) (context.Context, func(worker.AttemptEnd)) {
	ctx, end := a.t.Attempt(ctx, m, d.Attempt())
	return ctx, func(e worker.AttemptEnd) {
		end(telemetry.AttemptEnd{Attempt: e.Attempt, Outcome: e.State, Kind: e.Kind, Err: e.Err, Bytes: e.Bytes})
	}
}

// Registry has telemetry hear what a worker tells next, which may be nil.
func Registry(t *telemetry.Worker, next worker.Registry) worker.Registry { return registry{t, next} }

type registry struct {
	t    *telemetry.Worker
	next worker.Registry
}

func (r registry) Register(ctx context.Context, w *task.WorkerInfo) error {
	r.t.Heard(w)
	if r.next == nil {
		return nil
	}
	return r.next.Register(ctx, w)
}

func (r registry) Unregister(ctx context.Context, name string) error {
	if r.next == nil {
		return nil
	}
	return r.next.Unregister(ctx, name)
}

// Queue is what holds the tasks that wait, and knows who lives.
type Queue interface {
	Backlog(ctx context.Context) ([]queue.CellState, error)
	Workers(ctx context.Context) ([]*task.WorkerInfo, error)
}

// Backlog asks the queue for what it holds, for telemetry.Telemetry.ObserveBacklog.
func Backlog(q Queue) func(context.Context) ([]telemetry.Cell, error) {
	return func(ctx context.Context) ([]telemetry.Cell, error) {
		states, err := q.Backlog(ctx)
		if err != nil {
			return nil, err
		}
		workers, err := q.Workers(ctx)
		if err != nil {
			return nil, err
		}
		cells := make([]telemetry.Cell, len(states))
		for i, s := range states {
			cells[i] = telemetry.Cell{
				Class: s.Cell.Class, Memory: fmt.Sprintf("m%d", s.Cell.Memory>>20), Chain: s.Cell.Chain,
				Waiting: int64(s.Waiting), InFlight: int64(s.InFlight), Oldest: s.Oldest,
			}
			for _, w := range workers {
				if !w.Draining && w.Memory >= s.Cell.Memory && slices.Contains(w.Classes, s.Cell.Class) {
					cells[i].Workers++
				}
			}
		}
		return cells, nil
	}
}

// Runs has telemetry follow the runs of a coordinator.
func Runs(t *telemetry.Telemetry) func(run string) coordinator.Observer {
	return func(run string) coordinator.Observer { return t.Run(run) }
}
