package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// An idle worker looks at all its cells from time to time, since nothing announces
// a task whose worker died: soon, then ever more seldom. A fleet of many idle workers
// looks often as a whole, and a broker has better things to do.
const (
	lookSoon = time.Second
	lookLate = 7500 * time.Millisecond
)

// Next waits for a task of one of the cells, which are asked for at every look
// around and tried in their order. It fetches one task at a time, so that none
// waits in a busy worker. A broker that is away, or has lost everything, is waited
// for.
func (q *Queue) Next(ctx context.Context, cells func() []Cell) (Delivery, error) {
	if d, err := q.scan(ctx, cells(), 0); d != nil || err != nil {
		return d.orNil(), err
	}
	// Nothing is there. From here on wake-ups come to this process, so that what is
	// published after the next look is not missed. A worker that finds work at once
	// never gets here, and takes no wake-up away from others.
	w := q.idle.enter(q, cells())
	defer q.idle.leave(q, w)
	interval := time.Duration(0)
	for {
		q.idle.update(q, w, cells())
		if interval == 0 || !q.holdsNothing(ctx, interval/2) {
			d, err := q.scan(ctx, w.cells, interval/2)
			if d != nil || err != nil {
				return d.orNil(), err
			}
		}
		interval = max(q.opts.look, min(interval+interval/2, q.lookLate()))
		if d, err := q.sleep(ctx, w, cells, interval+rand.N(interval/2)); d != nil || err != nil {
			return d.orNil(), err
		}
	}
}

func (q *Queue) lookLate() time.Duration { return max(q.opts.look, min(lookLate, q.opts.AckWait/4)) }

// holdsNothing asks whether the whole stream is empty: one question in the place of one
// for each cell, for a fleet that has nothing to do.
func (q *Queue) holdsNothing(ctx context.Context, fresh time.Duration) bool {
	whole := Cell{} // is no cell
	if q.idle.knownEmpty(whole, fresh) {
		return true
	}
	var messages uint64
	err := q.ask(ctx, "$JS.API.STREAM.", fetchTimeout, func(ctx context.Context) error {
		stream, err := q.js.Stream(ctx, streamName)
		if err == nil {
			messages = stream.CachedInfo().State.Msgs
		}
		return err
	})
	if err != nil || messages > 0 { // errors are scan's to deal with
		return false
	}
	q.idle.sawEmpty(whole)
	return true
}

// sleep waits until it is time to look again. A wake-up says where to look, and is
// followed at once.
func (q *Queue) sleep(ctx context.Context, w *waiter, cells func() []Cell, d time.Duration) (*delivery, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	again := q.link.restored()
	q.idle.rest(w, true)
	defer q.idle.rest(w, false)
	for {
		var cell Cell
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.link.closed:
			return nil, errClosed
		case <-timer.C:
			return nil, nil
		case <-again: // whatever was published meanwhile woke nobody
			again = nil
			timer.Reset(rand.N(q.opts.look))
			continue
		case cell = <-w.wake:
		}
		for more := true; more; cell, more = q.idle.more(w) {
			if !slices.Contains(cells(), cell) {
				continue
			}
			d, err := q.fetch(ctx, cell, fetchSoon)
			if err != nil {
				if q.patient(ctx, err) == nil {
					return nil, nil // look around when the broker is well again
				}
				return nil, err
			}
			if d != nil {
				return d, nil
			}
			q.idle.sawEmpty(cell)
		}
	}
}

// scan tries cells in their order. It skips those that this process saw empty less
// than fresh ago. It returns nil when nothing waits.
func (q *Queue) scan(ctx context.Context, cells []Cell, fresh time.Duration) (*delivery, error) {
	pause := 50 * time.Millisecond
	for i := 0; i < len(cells); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if fresh > 0 && q.idle.knownEmpty(cells[i], fresh) {
			i++
			continue
		}
		d, err := q.fetch(ctx, cells[i], 0)
		if err == nil {
			if d != nil {
				return d, nil
			}
			q.idle.sawEmpty(cells[i])
			i++
			continue
		}
		if err := q.patient(ctx, err); err != nil {
			return nil, err
		}
		if err := q.wait(ctx, pause/2+rand.N(pause)); err != nil {
			return nil, err
		}
		pause = min(2*pause, 2*time.Second)
		if pause == 2*time.Second {
			i++ // one cell that cannot be had must not hide the others
		}
	}
	return nil, ctx.Err()
}

// patient returns nil for an error that will pass, having done what can be done
// about it.
func (q *Queue) patient(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !passing(err) {
		return err
	}
	if gone(err) {
		if rerr := q.restore(ctx); rerr != nil {
			q.log.Info("queue is not there and cannot be made by this process; waiting", "err", errors.Join(err, rerr))
		}
	}
	return nil
}
