package queue

import (
	"context"
	"slices"
	"testing"
	"time"
)

// waiting starts a call of Next and returns what it gets.
func waiting(t *testing.T, q *Queue, cells func() []Cell) <-chan Delivery {
	t.Helper()
	got := make(chan Delivery, 1)
	ctx := t.Context()
	go func() {
		defer close(got)
		if d, err := q.Next(ctx, cells); err == nil {
			got <- d
		} else if ctx.Err() == nil {
			t.Errorf("next: %v", err)
		}
	}()
	return got
}

// seldom is after what time the workers of these tests look around by themselves, and
// soon less than that.
const (
	seldom = patience
	soon   = seldom / 2
)

func receive(t *testing.T, what string, got <-chan Delivery) Delivery {
	t.Helper()
	start := time.Now()
	select {
	case d := <-got:
		if d == nil {
			t.Fatalf("%s: got nothing", what)
		}
		if waited := time.Since(start); waited > soon {
			t.Errorf("%s: after %s, so nobody woke it", what, waited)
		}
		return d
	case <-time.After(patience):
		t.Fatalf("%s: waited in vain", what)
	}
	return nil
}

func TestWakeUp(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]BrokerOptions{"open": {}, "accounts": {Users: users()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := broker(t, b)
			login := func(user string) Options {
				o := Options{URL: b.URL(), Name: user, look: seldom}
				if name == "accounts" {
					o.URL = as(user, b.URL())
				}
				return o
			}
			c := ready(t, login("coordinator"))
			// Neither a busy worker nor one that is too small takes the wake-up away.
			small, busy := ready(t, login("w2")), ready(t, login("w2"))
			w := ready(t, login("w1"))
			publish(t, c, message(1, 2<<30))
			if got := id(t, next(t, busy, 8<<30)); got != 1 {
				t.Fatalf("task %d", got)
			}
			tiny := waiting(t, small, fits(1<<30))
			big := waiting(t, w, fits(8<<30))
			idle(t, small, 1)
			idle(t, w, 1)
			heard := small.nc.Stats().InMsgs
			for n := byte(2); n < 8; n++ {
				publish(t, c, message(n, 2<<30))
				if got := id(t, receive(t, "idle worker", big)); got != n {
					t.Fatalf("task %d", got)
				}
				big = waiting(t, w, fits(8<<30))
				idle(t, w, 1)
			}
			if n := small.nc.Stats().InMsgs - heard; n != 0 {
				t.Errorf("the worker that is too small hears %d messages", n)
			}
			publish(t, c, chained(8, 1<<20))
			select { // it suits both
			case <-tiny:
			case d := <-big:
				if got := id(t, d); got != 8 {
					t.Errorf("task %d", got)
				}
			case <-time.After(patience):
				t.Error("nobody wakes up")
			}
		})
	}
}

// A task that is given back wakes somebody too, at once or when its time has come.
func TestGivenBackTaskWakes(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{Users: users()})
	c := ready(t, Options{URL: as("coordinator", b.URL())})
	first, second := ready(t, Options{URL: as("w1", b.URL()), Name: "w1", look: seldom}), ready(t, Options{URL: as("w2", b.URL()), Name: "w2", look: seldom})
	for n, after := range []time.Duration{0, 50 * time.Millisecond} {
		publish(t, c, message(byte(n), 1))
		d := next(t, first, 1<<30)
		got := waiting(t, second, fits(1<<30))
		idle(t, second, 1)
		if err := d.Retry(after); err != nil {
			t.Fatal(err)
		}
		again := receive(t, "the other worker", got)
		if id(t, again) != byte(n) || again.Attempt() != 2 {
			t.Errorf("task %d, attempt %d", id(t, again), again.Attempt())
		}
		if err := again.Done(within(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// A wake-up may come before the consumer knows of the task: it is trusted for a moment.
func TestEarlyWakeUp(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	o := Options{URL: b.URL(), look: seldom}
	c, other := ready(t, o), ready(t, o)
	publish(t, c, message(1, 1))
	d := next(t, c, 1<<30).(*delivery) // hides the task
	got := waiting(t, other, fits(1<<30))
	idle(t, other, 1)
	until(t, "the worker trusts the wake-up", func() bool {
		c.wakeOthers(d.msg.Subject)
		consumer, err := c.js.Consumer(within(t), streamName, d.cell.String())
		if err != nil {
			t.Fatal(err)
		}
		return consumer.CachedInfo().NumWaiting > 0
	})
	if err := d.Retry(0); err != nil {
		t.Fatal(err)
	}
	receive(t, "the worker", got)
}

// A wake-up whose receiver is gone, or has found other work, is passed on.
func TestWakeUpIsPassedOn(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	o := Options{URL: b.URL(), look: seldom}
	c, leaving, other := ready(t, o), ready(t, o), ready(t, o)
	cells := fits(1 << 30)()
	// It waits, but follows no wake-up, as if it had just found a task.
	w := leaving.idle.enter(leaving, cells)
	if err := leaving.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, c, message(1, 1), message(2, 1))
	until(t, "both wake-ups are here", func() bool {
		leaving.idle.mu.Lock()
		defer leaving.idle.mu.Unlock()
		return len(w.wake) == 1 && len(leaving.idle.surplus) == 1
	})
	// The tasks are hidden meanwhile, so that the other worker must be woken.
	d1, d2 := next(t, c, 1<<30), next(t, c, 1<<30)
	got := waiting(t, other, fits(1<<30))
	idle(t, other, 1)
	for _, d := range []Delivery{d1, d2} { // given back without the wake-up
		if err := c.nc.Publish(d.(*delivery).msg.Reply, []byte("-NAK")); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	leaving.idle.leave(leaving, w)
	receive(t, "the other worker", got)
}

// Many workers on one connection share the looking around, and each wake-up goes to
// one that is free.
func TestManyWorkersOnOneConnection(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL(), look: seldom})
	const workers = 50
	got := make(chan byte, workers)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for range workers {
		go func() {
			d, err := q.Next(ctx, fits(1<<30))
			if err != nil {
				t.Error(err)
				return
			}
			m, err := d.Message()
			if err != nil {
				t.Error(err)
				return
			}
			got <- m.ID[0]
		}()
	}
	idle(t, q, workers)
	for n := range workers {
		publish(t, q, message(byte(n), 1))
	}
	var ids []byte
	for range workers {
		ids = append(ids, <-got)
	}
	slices.Sort(ids)
	for n, id := range ids {
		if int(id) != n {
			t.Fatalf("tasks %v", ids)
		}
	}
	q.idle.mu.Lock()
	defer q.idle.mu.Unlock()
	if len(q.idle.subs) != 0 || len(q.idle.surplus) != 0 {
		t.Errorf("%d subscriptions and %d wake-ups are left over", len(q.idle.subs), len(q.idle.surplus))
	}
}
