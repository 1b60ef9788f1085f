package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// heart extends a delivery from time to time, and knows how regular it was.
type heart struct {
	stop func()
	gap  time.Duration // the longest between two beats
}

func beat(t *testing.T, d Delivery, every time.Duration) *heart {
	t.Helper()
	h := &heart{}
	end, ended := make(chan struct{}), make(chan struct{})
	last := time.Now()
	pulse := func() {
		h.gap = max(h.gap, time.Since(last))
		last = time.Now()
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-end:
				pulse()
				return
			case <-tick.C:
				if err := d.Extend(); err != nil {
					t.Error(err)
				}
				pulse()
			}
		}
	}()
	h.stop = func() { close(end); <-ended }
	return h
}

// steady repeats what needs a machine that does not stall for long.
func steady(t *testing.T, try func(q *Queue) (problem string, gap time.Duration)) {
	t.Helper()
	const wait = time.Second
	b := broker(t, BrokerOptions{})
	for n := range byte(5) {
		q := ready(t, Options{URL: b.URL(), AckWait: wait})
		publish(t, q, message(n, 1))
		problem, gap := try(q)
		if problem == "" {
			return
		}
		if gap < wait/2 {
			t.Fatal(problem)
		}
		t.Logf("%s, but this machine stalled for %s; trying again", problem, gap)
		if err := q.Withdraw(within(t), message(n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("this machine is too busy to tell")
}

// waits reports whether a task waits, which it takes.
func waits(t *testing.T, q *Queue) bool {
	t.Helper()
	d, err := q.fetch(within(t), Cell{class, false, 64 << 20}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d != nil
}

// A holder that was silent for too long does not take the task away from the next one.
func TestStaleHolder(t *testing.T) {
	t.Parallel()
	steady(t, func(q *Queue) (string, time.Duration) {
		ctx := within(t)
		first := next(t, q, 1<<30)
		m, err := first.Message()
		if err != nil {
			t.Fatal(err)
		}
		second := next(t, q, 1<<30) // when the first one's time is over
		h := beat(t, second, 50*time.Millisecond)
		if second.Attempt() != 2 {
			t.Errorf("attempt %d", second.Attempt())
		}
		if err := first.Retry(0); !errors.Is(err, ErrStale) {
			t.Errorf("give back: %v", err)
		}
		if err := first.Abandon("broken"); !errors.Is(err, ErrStale) {
			t.Errorf("abandon: %v", err)
		}
		again := waits(t, q)
		out, err := q.Outstanding(ctx)
		if err != nil {
			t.Fatal(err)
		}
		h.stop()
		if again || !out[m.ID] {
			return fmt.Sprintf("offered a third time: %v, outstanding: %v", again, out), h.gap
		}
		if err := q.Publish(ctx, m); !errors.Is(err, ErrOutstanding) {
			t.Errorf("publish while the second works: %v", err)
		}
		// It is at work still, and says so: that must not hurt anybody. It commits first.
		// Its acknowledgement holds for both.
		if err := first.Extend(); err != nil {
			t.Error(err)
		}
		if err := first.Done(ctx); err != nil {
			t.Error(err)
		}
		if err := second.Extend(); err != nil {
			t.Error(err)
		}
		if err := second.Done(ctx); err != nil && !errors.Is(err, errUnconfirmed) {
			t.Error(err)
		}
		if out, err := q.Outstanding(ctx); err != nil || len(out) != 0 {
			t.Errorf("outstanding: %v, %v", out, err)
		}
		return "", 0
	})
}

// Heartbeats keep a task for longer than the acknowledgement time.
func TestHeartbeatsHoldATask(t *testing.T) {
	t.Parallel()
	steady(t, func(q *Queue) (string, time.Duration) {
		d := next(t, q, 1<<30)
		h := beat(t, d, 50*time.Millisecond)
		<-time.After(q.AckWait() * 3 / 2)
		again := waits(t, q)
		h.stop()
		err := d.Retry(0)
		if again || err != nil {
			return fmt.Sprintf("offered to another one: %v, give back: %v", again, err), h.gap
		}
		return "", 0
	})
}
