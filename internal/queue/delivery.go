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
type Delivery struct {
	msg     jetstream.Msg
	message *task.Message
	err     error
	attempt int
}

func newDelivery(msg jetstream.Msg) *Delivery {
	d := &Delivery{msg: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.attempt = int(min(meta.NumDelivered, 1<<20))
	}
	d.message, d.err = task.ParseMessage(msg.Data())
	return d
}

// Message returns what was asked for, or why it cannot be understood.
func (d *Delivery) Message() (*task.Message, error) { return d.message, d.err }

// Attempt counts the deliveries of this task, from 1.
func (d *Delivery) Attempt() int { return d.attempt }

// Extend says that the work goes on; without it the task is offered to others.
func (d *Delivery) Extend() error { return d.msg.InProgress() }

// Done removes the task, confirmed by the broker. It comes after the commit.
func (d *Delivery) Done(ctx context.Context) error {
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

// Retry gives the task back, to be offered again after that time.
func (d *Delivery) Retry(after time.Duration) error { return d.msg.NakWithDelay(after) }

// Abandon removes a task for which a failure was stored.
func (d *Delivery) Abandon(reason string) error { return d.msg.TermWithReason(reason) }
