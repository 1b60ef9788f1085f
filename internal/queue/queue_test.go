package queue

import (
	"context"
	"errors"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

const class = "f32@1"

func start(t *testing.T, dir string) *Queue {
	t.Helper()
	b, err := StartBroker(BrokerOptions{Dir: dir, Embedded: true, hasty: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	q, err := b.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	if err := q.Setup(t.Context(), class); err != nil {
		t.Fatal(err)
	}
	return q
}

func fits(memory int64) func() []Cell {
	return func() []Cell { return Ladder(class, memory) }
}

func message(n byte, memory int64) *task.Message {
	return &task.Message{ID: task.ID{n}, Run: "run", Class: class, Memory: memory}
}

func TestOneMessageATask(t *testing.T) {
	t.Parallel()
	q := start(t, scratch(t))
	ctx := t.Context()
	if err := q.Publish(ctx, message(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(ctx, message(1, 1)); !errors.Is(err, ErrOutstanding) {
		t.Errorf("second publish of a queued task: %v", err)
	}
	d, err := q.Next(ctx, fits(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := d.Message(); err != nil || m.ID != (task.ID{1}) || d.Attempt() != 1 {
		t.Fatalf("got %v, %v, attempt %d", m, err, d.Attempt())
	}
	if err := q.Publish(ctx, message(1, 1)); !errors.Is(err, ErrOutstanding) {
		t.Errorf("publish of a task in flight: %v", err)
	}
	out, err := q.Outstanding(ctx)
	if err != nil || !out[task.ID{1}] || len(out) != 1 {
		t.Errorf("outstanding: %v, %v", out, err)
	}
	if err := d.Done(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := q.Outstanding(ctx); err != nil || len(out) != 0 {
		t.Errorf("outstanding after done: %v, %v", out, err)
	}
	if err := q.Publish(ctx, message(1, 1)); err != nil {
		t.Errorf("publish of a task that was done: %v", err)
	}
}

func TestLargestThatFitsFirst(t *testing.T) {
	t.Parallel()
	q := start(t, scratch(t))
	ctx := t.Context()
	for n, memory := range []int64{1 << 20, 100 << 20, 3 << 30} {
		if err := q.Publish(ctx, message(byte(n), memory)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []byte{1, 0} { // the task of 3 GiB does not fit
		d, err := q.Next(ctx, fits(1<<30))
		if err != nil {
			t.Fatal(err)
		}
		m, err := d.Message()
		if err != nil || m.ID[0] != want {
			t.Errorf("got task %v (%v), want %d", m, err, want)
		}
		if err := d.Done(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d, err := q.Next(ctx, fits(4<<30))
	if m, merr := d.Message(); err != nil || merr != nil || m.ID[0] != 2 {
		t.Errorf("bigger worker got %v, %v, %v", m, merr, err)
	}
}

func TestGivenBackTaskComesAgainAndSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	ctx := t.Context()
	func() {
		b, err := StartEmbedded(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		q, err := b.Connect()
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if err := q.Setup(ctx, class); err != nil {
			t.Fatal(err)
		}
		if err := q.Publish(ctx, message(7, 1)); err != nil {
			t.Fatal(err)
		}
		d, err := q.Next(ctx, fits(1<<30))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Retry(0); err != nil {
			t.Fatal(err)
		}
		d, err = q.Next(ctx, fits(1<<30))
		if err != nil || d.Attempt() != 2 {
			t.Fatalf("second delivery: attempt %d, %v", d.Attempt(), err)
		}
	}()
	q := start(t, dir)
	if out, err := q.Outstanding(ctx); err != nil || !out[task.ID{7}] {
		t.Fatalf("after a restart the task is gone: %v, %v", out, err)
	}
}

func TestNextWaitsAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	q := start(t, scratch(t))
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		d, err := q.Next(ctx, fits(1<<30))
		if err == nil {
			err = d.Done(context.WithoutCancel(ctx))
		}
		got <- err
	}()
	if err := q.Publish(ctx, message(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("waiting worker: %v", err)
	}
	go func() {
		_, err := q.Next(ctx, fits(1<<30))
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled worker: %v", err)
	}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	q := start(t, scratch(t))
	ctx, cancel := context.WithCancel(t.Context())
	ch, err := q.Notices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := &task.Notice{ID: task.ID{9}, State: task.Done, Worker: "w"}
	if err := q.Notify(want); err != nil {
		t.Fatal(err)
	}
	if n := <-ch; n == nil || *n != *want {
		t.Errorf("got %v", n)
	}
	cancel()
	for range ch { // closes
	}
}

func TestCells(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		need int64
		want int64
	}{{0, 64 << 20}, {64 << 20, 64 << 20}, {64<<20 + 1, 128 << 20}, {1 << 40, 1 << 40}} {
		got, err := CellOf(message(0, c.need))
		if err != nil || got.Memory != c.want {
			t.Errorf("CellOf(%d) = %v, %v", c.need, got, err)
		}
	}
	if _, err := CellOf(message(0, 1<<40+1)); !errors.Is(err, task.ErrInvalid) {
		t.Errorf("a task larger than the largest class: %v", err)
	}
	if got := RoundDown(100 << 20); got != 64<<20 {
		t.Errorf("RoundDown(100 MiB) = %d", got)
	}
	if got := RoundDown(1); got != 0 {
		t.Errorf("RoundDown(1) = %d", got)
	}
}
