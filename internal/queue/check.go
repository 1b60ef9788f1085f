package queue

import (
	"context"
	"fmt"
	"time"
)

// Check is one finding about the broker.
type Check struct {
	Name   string
	OK     bool
	Detail string
	Remedy string // what to do when it is not OK
}

// Check looks at the broker: is all there that a fleet needs?
func (q *Queue) Check(ctx context.Context) ([]Check, error) {
	var checks []Check
	err := q.persist(ctx, "$JS.API.", readLimit, func(ctx context.Context) error {
		info, err := q.js.AccountInfo(ctx)
		if err != nil {
			return err
		}
		rtt, err := q.nc.RTT()
		if err != nil {
			return err
		}
		checks = []Check{
			{Name: "connection", OK: true, Detail: fmt.Sprintf("%s, NATS %s, round trip %s", q.nc.ConnectedUrlRedacted(), q.nc.ConnectedServerVersion(), rtt.Round(time.Microsecond))},
			{Name: "jetstream", OK: info.API.Level >= 1, Detail: fmt.Sprintf("API level %d, %d streams", info.API.Level, info.Streams)},
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("check broker: %w", err)
	}
	return checks, nil
}
