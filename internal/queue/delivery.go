package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shardpress/shardpress/internal/task"
)

// HeartbeatEvery is how often a worker must extend a delivery that it works on.
const HeartbeatEvery = ackWait / 3

// ErrStale is returned for what only the holder of a task may do, when so long was
// nothing heard of the delivery that the task may be somebody else's by now.
var ErrStale = errors.New("the delivery was silent for too long, and the task may be another worker's")

// Delivery is one offer of a task to one worker.
type Delivery interface {
	// Message returns what is asked for, or why it cannot be understood.
	Message() (*task.Message, error)
	// Cell is where the task was offered.
	Cell() Cell
	// Context returns ctx with the trace in which the task was published.
	Context(ctx context.Context) context.Context
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
	q       *Queue
	msg     *nats.Msg
	cell    Cell
	message *task.Message
	err     error
	attempt int

	mu   sync.Mutex
	seen time.Time // when the broker last heard of this delivery
}

func newDelivery(q *Queue, msg *nats.Msg, cell Cell) *delivery {
	d := &delivery{q: q, msg: msg, cell: cell, seen: time.Now()}
	if meta, err := msg.Metadata(); err == nil {
		d.attempt = int(min(meta.NumDelivered, 1<<20))
	}
	d.message, d.err = task.ParseMessage(msg.Data)
	if d.err != nil {
		return d
	}
	if said, err := CellOf(d.message); err != nil || said.subject(d.message) != msg.Subject {
		d.err = fmt.Errorf("message of task %s: %w: it came with subject %q", d.message.ID.Short(), task.ErrInvalid, msg.Subject)
		d.message = nil
	}
	return d
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func (d *delivery) orNil() Delivery {
	if d == nil {
		return nil
	}
	return d
}

func (d *delivery) Message() (*task.Message, error) { return d.message, d.err }

func (d *delivery) Cell() Cell { return d.cell }

func (d *delivery) Context(ctx context.Context) context.Context { return extract(ctx, d.msg.Header) }

func (d *delivery) Attempt() int { return d.attempt }

func (d *delivery) Extend() error {
	if err := d.q.nc.Publish(d.msg.Reply, []byte("+WPI")); err != nil {
		return fmt.Errorf("extend delivery: %w", err)
	}
	if d.q.nc.IsConnected() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.seen = time.Now()
	}
	return nil
}

// Done also acknowledges for a holder that was silent for too long: it comes after a
// commit, and the task needs nobody any more.
func (d *delivery) Done(ctx context.Context) error {
	silent := 0
	err := d.q.persist(ctx, d.msg.Reply, 0, func(ctx context.Context) error {
		tctx, stop := context.WithTimeout(ctx, d.q.ackTimeout())
		defer stop()
		_, err := d.q.nc.RequestWithContext(tctx, d.msg.Reply, []byte("+ACK"))
		if errors.Is(err, nats.ErrNoResponders) || tctx.Err() != nil && ctx.Err() == nil {
			// A broker that lost its stream does not answer, and not either after the stream
			// was made again: it does not know this delivery.
			if silent++; silent == maxSilent {
				return errUnconfirmed
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("acknowledge task: %w", err)
	}
	return nil
}

// maxSilent is how often an acknowledgement is sent to a broker that is there and
// does not confirm it.
const maxSilent = 3

var errUnconfirmed = errors.New("the broker does not confirm it: it may have lost its state, or offer the task again")

func (q *Queue) ackTimeout() time.Duration {
	return max(min(5*time.Second, q.opts.AckWait/6), 100*time.Millisecond)
}

func (d *delivery) Retry(after time.Duration) error {
	if err := d.held(); err != nil {
		return fmt.Errorf("give task back: %w", err)
	}
	body := []byte("-NAK")
	if after > 0 {
		options, err := json.Marshal(map[string]int64{"delay": int64(after)})
		if err != nil {
			return fmt.Errorf("give task back: %w", err)
		}
		body = append(append(body, ' '), options...)
	}
	if err := d.q.nc.Publish(d.msg.Reply, body); err != nil {
		return fmt.Errorf("give task back: %w", err)
	}
	// The broker does not say that the task waits again.
	if after <= 0 {
		d.q.wakeOthers(d.msg.Subject)
	} else {
		time.AfterFunc(after+10*time.Millisecond, func() { d.q.wakeOthers(d.msg.Subject) })
	}
	return nil
}

func (d *delivery) Abandon(reason string) error {
	if err := d.held(); err != nil {
		return fmt.Errorf("abandon task: %w", err)
	}
	if err := d.q.nc.Publish(d.msg.Reply, []byte("+TERM "+reason)); err != nil {
		return fmt.Errorf("abandon task: %w", err)
	}
	return nil
}

// held fails when the broker may have given the task to somebody else.
func (d *delivery) held() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.seen) >= d.q.opts.AckWait {
		return ErrStale
	}
	return nil
}
