package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// DropStranded removes messages that lie in the queue and will never be offered, and
// tells how many. A consumer may lose its memory that a message was in flight, and keep
// that it has delivered it: when somebody purges a subject (see Withdraw), or a state
// of the broker's is damaged. Then nobody has the message, and it keeps its task from
// being published again. Those who wait for the task find that it is not outstanding
// any more.
func (q *Queue) DropStranded(ctx context.Context) (int, error) {
	n := 0
	err := q.persist(ctx, "$JS.API.", readLimit, func(ctx context.Context) error {
		stream, err := q.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		if stream.CachedInfo().State.Msgs == 0 {
			return nil
		}
		list := stream.ListConsumers(ctx)
		var infos []*jetstream.ConsumerInfo
		for info := range list.Info() {
			infos = append(infos, info)
		}
		if err := list.Err(); err != nil {
			return err
		}
		for _, info := range infos {
			cell, found := parseConsumer(info.Name)
			if !found {
				continue
			}
			dropped, err := q.dropStranded(ctx, stream, cell, info)
			n += dropped
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("look for stranded tasks: %w", err)
	}
	return n, nil
}

// dropStranded removes those of one cell.
func (q *Queue) dropStranded(ctx context.Context, stream jetstream.Stream, cell Cell, info *jetstream.ConsumerInfo) (n int, err error) {
	// Up to its floor a consumer has seen all acknowledged, and looks at nothing again.
	// With nothing in flight that is true of all that it has delivered, and with nothing
	// to deliver of all that there is.
	last := info.AckFloor.Stream
	if info.NumAckPending == 0 {
		last = max(last, info.Delivered.Stream)
	}
	everything := info.NumAckPending == 0 && info.NumPending == 0
	for seq := uint64(1); everything || seq <= last; n++ {
		msg, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(cell.filter()))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if !everything && msg.Sequence > last || info.TimeStamp.Sub(msg.Time) < q.opts.strandedAfter {
			return n, nil // and so are those behind it
		}
		// By its number: the task may have been published again meanwhile.
		if err := drop(ctx, stream, msg.Sequence); err != nil {
			return n, err
		}
		q.log.Warn("queue held a task that it would never have offered", "subject", msg.Subject, "sequence", msg.Sequence, "published", msg.Time,
			"delivered", info.Delivered.Stream, "floor", info.AckFloor.Stream, "pending", info.NumPending, "inflight", info.NumAckPending)
		seq = msg.Sequence + 1
	}
	return n, nil
}
