package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shardpress/shardpress/internal/task"
)

// codeOutstanding is JetStream's error for one message too many of a subject.
const codeOutstanding jetstream.ErrorCode = 10077

// Publish queues a task. It returns ErrOutstanding when the task, or the copy of it
// that m asks for, is queued or in flight already. The trace of ctx travels with it.
func (q *Queue) Publish(ctx context.Context, m *task.Message) error {
	cell, err := CellOf(m)
	if err != nil {
		return err
	}
	b, err := m.Encode()
	if err != nil {
		return err
	}
	// A task that no consumer's filter matches would lie in the stream for ever.
	q.mu.Lock()
	known := slices.Contains(q.classes, m.Class)
	q.mu.Unlock()
	if !known {
		if err := q.Setup(ctx, m.Class); err != nil {
			return fmt.Errorf("publish task %s: %w", m.ID.Short(), err)
		}
	}
	msg := &nats.Msg{Subject: cell.subject(m), Data: b, Header: nats.Header{}}
	inject(ctx, msg.Header)
	err = q.persist(ctx, msg.Subject, 0, func(ctx context.Context) error {
		_, err := q.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
		return err
	})
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeOutstanding {
		return fmt.Errorf("publish task %s: %w", m.ID.Short(), ErrOutstanding)
	}
	if err != nil {
		return fmt.Errorf("publish task %s: %w", m.ID.Short(), err)
	}
	return nil
}

// Withdraw removes the task, or the copy of it that m asks for, whether it is queued
// or in flight. A worker that is at it is not told.
func (q *Queue) Withdraw(ctx context.Context, m *task.Message) error {
	cell, err := CellOf(m)
	if err != nil {
		return err
	}
	err = q.persist(ctx, "$JS.API.STREAM.", 0, func(ctx context.Context) error {
		stream, err := q.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		// Not by a purge of the subject: of a message in flight that moves the consumer's
		// ack floor up to it (nats-server 2.15, purge in consumer.go), and with the next
		// acknowledgement beyond others in flight. If their workers die, those are offered
		// to nobody. A message that is deleted counts as acknowledged.
		msg, err := stream.GetLastMsgForSubject(ctx, cell.subject(m))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err == nil {
			err = drop(ctx, stream, msg.Sequence)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("withdraw task %s: %w", m.ID.Short(), err)
	}
	return nil
}

// drop deletes a message, if it is there.
func drop(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := stream.DeleteMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		if _, gerr := stream.GetMsg(ctx, sequence); errors.Is(gerr, jetstream.ErrMsgNotFound) {
			return nil
		}
	}
	return err
}

// Outstanding lists the tasks that are queued or in flight. Copies do not count.
func (q *Queue) Outstanding(ctx context.Context) (map[task.ID]bool, error) {
	return q.outstanding(ctx, "")
}

// OutstandingCopies lists the tasks of which that copy is queued or in flight.
func (q *Queue) OutstandingCopies(ctx context.Context, which string) (map[task.ID]bool, error) {
	return q.outstanding(ctx, which)
}

func (q *Queue) outstanding(ctx context.Context, which string) (map[task.ID]bool, error) {
	var subjects map[string]uint64
	err := q.persist(ctx, "$JS.API.STREAM.", readLimit, func(ctx context.Context) error {
		stream, err := q.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter("task.>"))
		if err == nil {
			subjects = info.State.Subjects
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list outstanding tasks: %w", err)
	}
	ids := make(map[task.ID]bool, len(subjects))
	for subject := range subjects {
		_, id, have, err := parseSubject(subject)
		if err != nil {
			// Somebody else's, or of another version: it must not stop this run.
			q.log.Warn("stream holds what is no task", "subject", strings.ToValidUTF8(subject, "?"), "err", err)
			continue
		}
		if have == which {
			ids[id] = true
		}
	}
	return ids, nil
}
