// Package queue moves tasks from coordinators to workers over NATS JetStream, at
// least once. It is the one place that knows NATS.
//
//	task.<numeric class>.<memory class>.<task id>   work queue TASKS, one message a task
//	wake.<...>                                      its headers again, to idle workers
//	note.<state>.<task id>                          done, failed, progress: hints
//
// The queue holds scheduling state only. The object store is the truth, and a
// coordinator can rebuild everything here from it: the whole queue can be lost.
// For the same reason an acknowledgement excludes nobody; the commit of a result,
// put if absent, does.
package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shardpress/shardpress/internal/task"
)

const (
	streamName = "TASKS"
	// ackWait is how long a worker may be silent before its task is offered to
	// another one; it is the time in which a dead worker is noticed.
	ackWait = 30 * time.Second
)

// ErrOutstanding is returned by Publish for a task that is queued or being worked
// on; nothing needs to be done about it.
var ErrOutstanding = errors.New("task is already outstanding")

// Queue is a connection to a broker.
type Queue struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	wake   chan struct{}
	// embedded says that the broker lives and dies with this process.
	embedded bool

	mu        sync.Mutex
	consumers map[Cell]jetstream.Consumer
}

func open(nc *nats.Conn) (*Queue, error) {
	// NATS gives a request 5 s, which a busy disk behind a broker that syncs always may exceed.
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(30*time.Second))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Queue{nc: nc, js: js, wake: make(chan struct{}, 1024), consumers: map[Cell]jetstream.Consumer{}}, nil
}

// Setup makes the stream and the consumers of the numeric classes, or finds them.
func (q *Queue) Setup(ctx context.Context, classes ...string) error {
	stream, err := q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:      streamName,
		Subjects:  []string{"task.>"},
		Retention: jetstream.WorkQueuePolicy,
		Storage:   jetstream.FileStorage,
		// A subject names one task: a second publish of a task that is queued or in
		// flight is refused, which dedupes for as long as it is outstanding.
		MaxMsgsPerSubject:    1,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		MaxMsgSize:           task.MaxMessage + 1024,
		RePublish:            &jetstream.RePublish{Source: "task.>", Destination: "wake.>", HeadersOnly: true},
	})
	if err != nil {
		return fmt.Errorf("create stream %s: %w", streamName, err)
	}
	q.stream = stream
	for _, class := range classes {
		for _, cell := range Ladder(class, largestClass) {
			c, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
				Durable:       cell.durable(),
				FilterSubject: cell.filter(),
				AckPolicy:     jetstream.AckExplicitPolicy,
				AckWait:       ackWait,
				// Never give up here: a task at its delivery limit would stay in the
				// stream for ever, unseen. Workers count attempts themselves.
				MaxDeliver:    -1,
				MaxAckPending: 20_000,
				MaxWaiting:    4096,
				// What was delivered and not acknowledged is of no use to anybody after
				// an embedded broker's end (Clear), so it need not be on disk.
				MemoryStorage: q.embedded,
			})
			if err != nil {
				return fmt.Errorf("create consumer %s: %w", cell.durable(), err)
			}
			q.mu.Lock()
			q.consumers[cell] = c
			q.mu.Unlock()
		}
	}
	_, err = q.nc.QueueSubscribe("wake.>", "workers", func(*nats.Msg) {
		select {
		case q.wake <- struct{}{}:
		default: // enough wake-ups are pending; workers scan all their cells anyway
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to wake-ups: %w", err)
	}
	return nil
}

// Publish queues a task. It returns ErrOutstanding when the task is queued or in
// flight already.
func (q *Queue) Publish(ctx context.Context, m *task.Message) error {
	cell, err := CellOf(m.Class, m.Memory)
	if err != nil {
		return err
	}
	b, err := m.Encode()
	if err != nil {
		return err
	}
	_, err = q.js.Publish(ctx, cell.subject(m.ID), b)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == 10077 { // maximum messages per subject
		return fmt.Errorf("publish task %s: %w", m.ID.Short(), ErrOutstanding)
	}
	if err != nil {
		return fmt.Errorf("publish task %s: %w", m.ID.Short(), err)
	}
	return nil
}

// Outstanding lists the tasks that are queued or in flight.
func (q *Queue) Outstanding(ctx context.Context) (map[task.ID]bool, error) {
	info, err := q.stream.Info(ctx, jetstream.WithSubjectFilter("task.>"))
	if err != nil {
		return nil, fmt.Errorf("list outstanding tasks: %w", err)
	}
	ids := make(map[task.ID]bool, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		id, err := task.ParseID(subject[strings.LastIndexByte(subject, '.')+1:])
		if err != nil {
			return nil, fmt.Errorf("list outstanding tasks: subject %q: %w", subject, err)
		}
		ids[id] = true
	}
	return ids, nil
}

// Notify tells whoever listens about a task. It may be lost.
func (q *Queue) Notify(n *task.Notice) error {
	b, err := n.Encode()
	if err != nil {
		return err
	}
	return q.nc.Publish("note."+n.State+"."+n.ID.String(), b)
}

// Notices delivers what Notify sent, until ctx ends. Notices that cannot be read
// are dropped: they are only hints.
func (q *Queue) Notices(ctx context.Context) (<-chan *task.Notice, error) {
	raw := make(chan *nats.Msg, 4096)
	sub, err := q.nc.ChanSubscribe("note.>", raw)
	if err != nil {
		return nil, fmt.Errorf("subscribe to notices: %w", err)
	}
	if err := q.nc.Flush(); err != nil { // the subscription stands before anything is published
		return nil, fmt.Errorf("subscribe to notices: %w", err)
	}
	out := make(chan *task.Notice)
	go func() {
		defer close(out)
		defer func() { _ = sub.Unsubscribe() }() // the connection may be gone already
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-raw:
				n, err := task.ParseNotice(m.Data)
				if err != nil {
					continue
				}
				select {
				case out <- n:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

// Close ends the connection.
func (q *Queue) Close() { q.nc.Close() }

// Next waits for a task of one of the cells, which are asked for at every look
// around and tried in their order. It fetches one task at a time, so that none
// waits in a busy worker.
func (q *Queue) Next(ctx context.Context, cells func() []Cell) (Delivery, error) {
	for {
		for _, cell := range cells() {
			d, err := q.fetch(ctx, cell)
			if err != nil {
				return nil, err
			}
			if d != nil {
				return d, nil
			}
		}
		// The wake-up is a hint and may go to another worker: look by oneself too,
		// with jitter so that a fleet does not ask in step.
		timer := time.NewTimer(time.Second + rand.N(500*time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-q.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (q *Queue) fetch(ctx context.Context, cell Cell) (*delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	c := q.consumers[cell]
	q.mu.Unlock()
	if c == nil {
		return nil, nil
	}
	batch, err := c.FetchNoWait(1)
	if err != nil {
		if q.nc.IsClosed() {
			return nil, errClosed
		}
		return nil, fmt.Errorf("fetch from %s: %w", cell.durable(), err)
	}
	for msg := range batch.Messages() {
		return newDelivery(msg), nil
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
		if q.nc.IsClosed() {
			return nil, errClosed
		}
		return nil, fmt.Errorf("fetch from %s: %w", cell.durable(), err)
	}
	return nil, nil
}
