package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// CellState is what lies in a cell.
type CellState struct {
	Cell Cell
	// Waiting tasks were not offered to anybody yet.
	Waiting int
	// InFlight tasks are being worked on, or were given back and wait for their time.
	InFlight int
	// Oldest is how long the oldest task that waits has done so, or zero.
	Oldest time.Duration
}

// Backlog returns the cells that hold tasks, chain before bulk and large before
// small.
func (q *Queue) Backlog(ctx context.Context) ([]CellState, error) {
	var states []CellState
	err := q.persist(ctx, "$JS.API.", readLimit, func(ctx context.Context) error {
		states = nil
		stream, err := q.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			cell, found := parseConsumer(info.Name)
			if !found || info.NumPending == 0 && info.NumAckPending == 0 {
				continue
			}
			s := CellState{Cell: cell, Waiting: count(info.NumPending), InFlight: max(info.NumAckPending, 0)}
			if s.Waiting > 0 {
				msg, err := stream.GetMsg(ctx, info.Delivered.Stream+1, jetstream.WithGetMsgSubject(cell.filter()))
				switch {
				case err == nil:
					s.Oldest = max(time.Since(msg.Time), 0)
				case !errors.Is(err, jetstream.ErrMsgNotFound): // somebody took it meanwhile
					return err
				}
			}
			states = append(states, s)
		}
		return list.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("look at the backlog: %w", err)
	}
	slices.SortFunc(states, func(a, b CellState) int {
		if a.Cell.Chain != b.Cell.Chain {
			if a.Cell.Chain {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Cell.Memory, a.Cell.Memory), cmp.Compare(a.Cell.Class, b.Cell.Class))
	})
	return states, nil
}

func count(n uint64) int { return int(min(n, 1<<53)) }
