package worker

import (
	"context"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// Observer is told of the attempts that a worker makes: for traces and metrics.
type Observer interface {
	// Attempt is called when an attempt starts. ctx carries what the message brought
	// along; the attempt goes on with the context that is returned, and end is called
	// when it is over.
	Attempt(ctx context.Context, m *task.Message, d queue.Delivery) (_ context.Context, end func(AttemptEnd))
}

// AttemptEnd says how an attempt ended.
type AttemptEnd struct {
	Attempt string
	State   string    // as in its record
	Kind    task.Kind // of a failure
	Err     error
	Bytes   int64 // of source worked through
	Elapsed time.Duration
}

func (s *shift) observe(ctx context.Context, a *attempt) (context.Context, func(AttemptEnd)) {
	if s.Observer == nil {
		return ctx, func(AttemptEnd) {}
	}
	return s.Observer.Attempt(ctx, a.m, a.d)
}
