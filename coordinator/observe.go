package coordinator

import (
	"context"
	"log/slog"

	"github.com/shardpress/shardpress/internal/task"
)

// Observer is told what becomes of one run, for traces and metrics.
type Observer interface {
	// Context puts what is done with ctx into the run's trace and log.
	Context(ctx context.Context) context.Context
	// Began comes before everything else but phases: so many tasks, of which so many
	// have results already.
	Began(ctx context.Context, tasks, reused int, attrs ...slog.Attr)
	// Phase is a part of the run, until what it returns is called.
	Phase(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error, ...slog.Attr))
	// Published is the publish of a message, which takes the trace of the context along.
	// It ends with whether the queue has taken it, which it does not if it has it.
	Published(ctx context.Context, m *task.Message, reason string) (context.Context, func(taken bool, err error))
	// Placed is the placing of a task's output into the result.
	Placed(ctx context.Context, id task.ID, bytes int64) (context.Context, func(error))
	// Counted is called when tasks may have changed their states. counts says how many
	// are in each, and the run's own, and is called at once or not at all.
	Counted(counts func() (state string, tasks map[string]int64))
	Repaired(ctx context.Context)
	Retried(ctx context.Context, kind task.Kind)
	Audited(ctx context.Context, result string)
	// Finished says how the run ended, Left that it goes on elsewhere or later.
	Finished(ctx context.Context, state string, err error, attrs ...slog.Attr)
	Left()
}

// Why a message is published.
const (
	ReasonFirst  = "first"
	ReasonAgain  = "again"
	ReasonRepair = "repair"
	ReasonTwin   = "twin"
	ReasonAudit  = "audit"
)

// reason is why a task is published.
func (d *driver) reason(p Publish) string {
	switch {
	case p.Copy == task.CopyTwin:
		return ReasonTwin
	case p.Copy == task.CopyAudit:
		return ReasonAudit
	case p.Repair != "":
		return ReasonRepair
	case d.asked[d.index[p.ID]]:
		return ReasonAgain
	}
	return ReasonFirst
}

// counts tells how far the run is.
func (d *driver) counts() (state string, tasks map[string]int64) {
	c := d.state.Counts()
	state = "running"
	if c.Paused {
		state = "paused"
	}
	return state, map[string]int64{
		"waiting": int64(c.Waiting), "ready": int64(c.Ready), "queued": int64(c.Queued),
		"done": int64(c.Done - c.Placed), "placed": int64(c.Placed), "failed": int64(c.Failed),
	}
}

// nobody observes.
type nobody struct{}

func (nobody) Context(ctx context.Context) context.Context { return ctx }

func (nobody) Began(context.Context, int, int, ...slog.Attr) {}

func (nobody) Phase(ctx context.Context, _ string, _ ...slog.Attr) (context.Context, func(error, ...slog.Attr)) {
	return ctx, func(error, ...slog.Attr) {}
}

func (nobody) Published(ctx context.Context, _ *task.Message, _ string) (context.Context, func(bool, error)) {
	return ctx, func(bool, error) {}
}

func (nobody) Placed(ctx context.Context, _ task.ID, _ int64) (context.Context, func(error)) {
	return ctx, func(error) {}
}

func (nobody) Counted(func() (string, map[string]int64)) {}

func (nobody) Repaired(context.Context) {}

func (nobody) Retried(context.Context, task.Kind) {}

func (nobody) Audited(context.Context, string) {}

func (nobody) Finished(context.Context, string, error, ...slog.Attr) {}

func (nobody) Left() {}
