package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// pulls are the inboxes in which answers to pulls come. An inbox serves one pull at
// a time (a task arrives under its own subject, which does not say who asked for it)
// and outlives it, so that a task that comes too late for who asked goes back at
// once, and not when its acknowledgement time is over.
type pulls struct {
	mu   sync.Mutex
	free []*puller
}

type puller struct {
	sub    *nats.Subscription
	inbox  string
	answer chan *nats.Msg

	mu      sync.Mutex
	waiting bool
}

func (q *Queue) puller() (*puller, error) {
	q.pulls.mu.Lock()
	if n := len(q.pulls.free); n > 0 {
		p := q.pulls.free[n-1]
		q.pulls.free = q.pulls.free[:n-1]
		q.pulls.mu.Unlock()
		return p, nil
	}
	q.pulls.mu.Unlock()
	p := &puller{inbox: q.nc.NewInbox(), answer: make(chan *nats.Msg, 1)}
	sub, err := q.nc.Subscribe(p.inbox, func(m *nats.Msg) {
		p.mu.Lock()
		waiting := p.waiting
		p.waiting = false
		p.mu.Unlock()
		if waiting {
			p.answer <- m // has room for the one answer
		} else {
			q.giveBack(m)
		}
	})
	p.sub = sub
	return p, err
}

func (q *Queue) freePuller(p *puller) {
	q.pulls.mu.Lock()
	defer q.pulls.mu.Unlock()
	q.pulls.free = append(q.pulls.free, p)
}

// abandon ends a pull whose answer nobody waits for any more.
func (q *Queue) abandon(p *puller) {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting = false
	p.mu.Unlock()
	if !waiting { // the answer is here, or just coming
		q.giveBack(<-p.answer)
		q.freePuller(p)
		return
	}
	// The inbox is not used again: its late answer would be taken for that to another pull.
	time.AfterFunc(q.opts.AckWait, func() { _ = p.sub.Unsubscribe() }) // the connection may be gone by then
}

// giveBack returns a task that nobody waits for any more.
func (q *Queue) giveBack(m *nats.Msg) {
	if m.Header.Get("Status") != "" || !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		return
	}
	if err := q.nc.Publish(m.Reply, []byte("-NAK")); err == nil {
		q.wakeOthers(m.Subject)
	}
}

// pull asks the consumer of a cell for a task that waits, or comes within that time.
// It returns nil if there is none.
func (q *Queue) pull(ctx context.Context, cell Cell, wait time.Duration) (*nats.Msg, error) {
	p, err := q.puller()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.waiting = true
	p.mu.Unlock()
	request := []byte(`{"batch":1,"no_wait":true}`)
	if wait > 0 {
		request = fmt.Appendf(nil, `{"batch":1,"expires":%d}`, wait)
	}
	if err := q.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+streamName+"."+cell.String(), p.inbox, request); err != nil {
		q.abandon(p)
		return nil, err
	}
	select {
	case <-ctx.Done():
		q.abandon(p)
		return nil, ctx.Err()
	case m := <-p.answer:
		q.freePuller(p)
		return readPull(m)
	}
}

// readPull tells a task from the broker's words.
func readPull(m *nats.Msg) (*nats.Msg, error) {
	status, text := m.Header.Get("Status"), m.Header.Get("Description")
	switch status {
	case "":
		return m, nil
	case "404", "408": // nothing waits
		return nil, nil
	case "503":
		return nil, nats.ErrNoResponders
	case "409":
		if strings.Contains(strings.ToLower(text), "consumer deleted") {
			return nil, nats.ErrNoResponders
		}
		return nil, nil // too many ask, or too much is in flight
	}
	return nil, fmt.Errorf("broker answers %s %q", status, text)
}

// fetchTimeout is for one pull. The answer comes at once or the network is bad.
const fetchTimeout = 10 * time.Second

// fetchSoon is how long a wake-up is trusted. It may come before the consumer knows
// of the task that was published or given back.
const fetchSoon = 250 * time.Millisecond

// fetch takes a task of the cell, or returns nil if none waits, nor comes within that
// time.
func (q *Queue) fetch(ctx context.Context, cell Cell, wait time.Duration) (*delivery, error) {
	var m *nats.Msg
	err := q.ask(ctx, "$JS.API.CONSUMER.MSG.NEXT.", fetchTimeout, func(ctx context.Context) (err error) {
		m, err = q.pull(ctx, cell, wait)
		return err
	})
	switch {
	case err == nil && m == nil:
		return nil, nil
	case err == nil:
		return newDelivery(q, m, cell), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errClosed):
		return nil, errClosed
	}
	return nil, fmt.Errorf("fetch from %s: %w", cell, err)
}
