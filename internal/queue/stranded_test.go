package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A consumer may forget that a message was in flight, while the stream keeps it. Nobody
// is offered it then, and the task cannot be published: until it is looked for.
func TestStranded(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL(), strandedAfter: time.Nanosecond})
	ctx := within(t)
	drop := func(want int) {
		t.Helper()
		if n, err := q.DropStranded(ctx); err != nil || n != want {
			t.Errorf("dropped %d, %v, want %d", n, err, want)
		}
	}
	outstanding := func(want ...byte) {
		t.Helper()
		ids, err := q.Outstanding(ctx)
		if err != nil || len(ids) != len(want) {
			t.Errorf("outstanding %v, %v, want %d", ids, err, want)
		}
		for _, n := range want {
			if !ids[message(n, 1).ID] {
				t.Errorf("%d is not outstanding", n)
			}
		}
	}
	// forget has the consumer of the small tasks go on at a message, and know of nothing before.
	forget := func(n byte) {
		t.Helper()
		cell, err := CellOf(message(n, 1))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := q.js.Stream(ctx, streamName)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetLastMsgForSubject(ctx, cell.subject(message(n, 1)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = q.nc.RequestWithContext(ctx, "$JS.API.CONSUMER.RESET."+streamName+"."+cell.String(), fmt.Appendf(nil, `{"seq":%d}`, m.Sequence))
		if err != nil {
			t.Fatal(err)
		}
	}
	drop(0)
	publish(t, q, message(1, 1), message(2, 1), message(3, 1), message(4, 1), message(9, 1<<30))
	if d := next(t, q, 64<<20); id(t, d) != 1 {
		t.Fatal("the first task is not offered first")
	}
	drop(0) // one in flight, four that wait
	outstanding(1, 2, 3, 4, 9)

	forget(3)
	if err := q.Publish(ctx, message(1, 1)); !errors.Is(err, ErrOutstanding) {
		t.Fatalf("a stranded task is published again: %v", err)
	}
	third := next(t, q, 64<<20)
	if id(t, third) != 3 {
		t.Fatal("the consumer does not go on behind those it forgot")
	}
	drop(2)
	outstanding(3, 4, 9)
	publish(t, q, message(1, 1))
	for _, want := range []byte{4, 1} {
		d := next(t, q, 64<<20)
		if id(t, d) != want {
			t.Errorf("offered %d, want %d", id(t, d), want)
		}
		drop(0)
		if err := d.Done(ctx); err != nil {
			t.Error(err)
		}
	}
	drop(0)
	if err := third.Done(ctx); err != nil {
		t.Error(err)
	}
	outstanding(9)
	drop(0)

	// A young one may have come after its consumer was looked at.
	young := ready(t, Options{URL: b.URL(), strandedAfter: time.Hour})
	publish(t, q, message(5, 1), message(6, 1))
	forget(6)
	if n, err := young.DropStranded(ctx); err != nil || n != 0 {
		t.Errorf("dropped %d young ones, %v", n, err)
	}
	drop(1)
	if err := q.js.DeleteStream(ctx, streamName); err != nil {
		t.Fatal(err)
	}
	drop(0)
	if _, err := q.js.Stream(ctx, streamName); errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Error("a stream that was lost is not made again")
	}
}

// A task that is withdrawn from its worker's hands takes none away that is in others'.
// A purge of its subject did: the tasks below it were offered to nobody any more.
func TestWithdrawStrandsNobody(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL(), AckWait: time.Second, strandedAfter: time.Nanosecond})
	ctx := within(t)
	publish(t, q, message(1, 1), message(2, 1), message(3, 1), message(4, 1))
	var held []Delivery
	for range 4 {
		held = append(held, next(t, q, 64<<20))
	}
	if err := q.Withdraw(ctx, message(3, 1)); err != nil {
		t.Fatal(err)
	}
	if err := held[3].Done(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := q.DropStranded(ctx); err != nil || n != 0 {
		t.Errorf("%d tasks are stranded, %v", n, err)
	}
	// The workers of the first two die.
	again := map[byte]bool{}
	for range 2 {
		d := next(t, q, 64<<20)
		again[id(t, d)] = true
		if err := d.Done(ctx); err != nil {
			t.Error(err)
		}
	}
	if !again[1] || !again[2] {
		t.Errorf("offered again: %v, want 1 and 2", again)
	}
	if left, err := q.Outstanding(ctx); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
