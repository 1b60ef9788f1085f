package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shardpress/shardpress/internal/task"
)

// HeartbeatEvery is how often a worker must extend a delivery that it works on.
const HeartbeatEvery = ackWait / 3

// Delivery is one offer of a task to one worker.
type Delivery interface {
	// Message returns what is asked for, or why it cannot be understood.
	Message() (*task.Message, error)
	// Attempt counts the deliveries of this message, from 1.
	Attempt() int
	// Extend says that the work goes on; without it the task is offered to others.
	Extend() error
	// Done removes the task, confirmed by the broker. It comes after the commit.
	Done(ctx context.Context) error
	// Retry gives the task back, to be offered again after that time.
	Retry(after time.Duration) error
	// Abandon removes a task for which a failure was stored.
	Abandon(reason string) error
}

type delivery struct {
	msg     jetstream.Msg
	message *task.Message
	err     error
	attempt int
}

func newDelivery(msg jetstream.Msg) *delivery {
	d := &delivery{msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.attempt = int(min(meta.NumDelivered, 1<<20))
	}
	d.message, d.err = task.ParseMessage(msg.Data())
	return d
}

func (d *delivery) Message() (*task.Message, error) { return d.message, d.err }

func (d *delivery) Attempt() int { return d.attempt }

func (d *delivery) Extend() error { return d.msg.InProgress() }

func (d *delivery) Done(ctx context.Context) error {
	var err error
	for range 3 {
		if err = d.msg.DoubleAck(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("acknowledge task: %w", err)
}

func (d *delivery) Retry(after time.Duration) error { return d.msg.NakWithDelay(after) }

func (d *delivery) Abandon(reason string) error { return d.msg.TermWithReason(reason) }
