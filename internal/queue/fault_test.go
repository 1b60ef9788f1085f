package queue

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/task"
)

// crew takes tasks until its context ends, and says which are done.
type crew struct {
	mu   sync.Mutex
	done map[task.ID]int
	err  atomic.Pointer[error]
	wg   sync.WaitGroup
}

func (c *crew) work(ctx context.Context, q *Queue) {
	c.wg.Go(func() {
		for {
			d, err := q.Next(ctx, fits(1<<30))
			if err == nil {
				err = d.Extend()
			}
			if err == nil {
				err = d.Done(ctx)
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				c.err.Store(&err)
				return
			}
			m, err := d.Message()
			if err != nil {
				c.err.Store(&err)
				return
			}
			c.mu.Lock()
			c.done[m.ID]++
			c.mu.Unlock()
		}
	})
}

func (c *crew) finished() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.done)
}

// A broker that is killed and started again under work costs time only: nobody who
// publishes, waits, extends or acknowledges sees an error.
func TestBrokerKilledUnderWork(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	p := startProcess(t, dir, "127.0.0.1:0")
	o := Options{URL: p.url, AckWait: 500 * time.Millisecond}
	ctx, stop := context.WithCancel(within(t))
	c := &crew{done: map[task.ID]int{}}
	for range 3 {
		c.work(ctx, ready(t, o))
	}
	q := ready(t, o)
	const tasks = 60
	kills := 2
	for n := range tasks {
		if n == 20 || n == 40 {
			p.kill()
			listen := strings.TrimPrefix(p.url, "nats://")
			if kills--; kills == 0 {
				// Everybody is at work while there is no broker.
				c.wg.Go(func() { p = startProcess(t, dir, listen) })
			} else {
				p = startProcess(t, dir, listen)
			}
		}
		if err := q.Publish(ctx, message(byte(n), 1)); err != nil && !errors.Is(err, ErrOutstanding) {
			t.Fatalf("publish %d: %v", n, err)
		}
	}
	until(t, "all tasks are done", func() bool { return c.finished() == tasks || c.err.Load() != nil })
	if err := c.err.Load(); err != nil {
		t.Errorf("a worker failed: %v", *err)
	}
	if out, err := q.Outstanding(ctx); err != nil {
		t.Error(err)
	} else if len(out) > tasks/10 { // those whose acknowledgement the kill ate come again
		t.Errorf("%d tasks are outstanding still", len(out))
	}
	stop()
	c.wg.Wait()
}

// A broker that comes back with nothing gets stream and consumers again from whoever
// notices.
func TestBrokerWiped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		waits  bool // a worker, who notices too
		notice func(t *testing.T, q *Queue)
	}{
		{"noticed by a publisher", false, func(t *testing.T, q *Queue) {
			publish(t, q, message(2, 1))
			if got := id(t, next(t, q, 1<<30)); got != 2 {
				t.Errorf("the worker got task %d", got)
			}
		}},
		{"noticed by a worker", true, func(t *testing.T, q *Queue) {
			until(t, "the stream is there", func() bool {
				return q.ask(within(t), "$JS.API.", 200*time.Millisecond, func(ctx context.Context) error {
					_, err := q.js.Stream(ctx, streamName)
					return err
				}) == nil
			})
		}},
		{"noticed by a reconciler", false, func(t *testing.T, q *Queue) {
			if out, err := q.Outstanding(within(t)); err != nil || len(out) != 0 {
				t.Errorf("outstanding: %v, %v", out, err)
			}
		}},
		{"noticed by the registry", false, func(t *testing.T, q *Queue) {
			if err := q.Register(within(t), &task.WorkerInfo{Name: "w"}); err != nil {
				t.Error(err)
			}
			if l, err := q.Acquire(within(t), "run", "me"); err != nil {
				t.Error(err)
			} else if err := l.Renew(within(t)); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := scratch(t)
			b := broker(t, BrokerOptions{Dir: dir})
			o := Options{URL: b.URL(), AckWait: time.Second}
			q, worker := ready(t, o), ready(t, o)
			publish(t, q, message(1, 1))
			lost := next(t, worker, 1<<30)
			var wg sync.WaitGroup
			ctx, stop := context.WithCancel(t.Context())
			if c.waits {
				wg.Go(func() {
					if _, err := worker.Next(ctx, fits(1<<30)); ctx.Err() == nil {
						t.Errorf("waiting worker: %v", err)
					}
				})
				idle(t, worker, 1)
			}
			b.Close()
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			broker(t, BrokerOptions{Dir: dir, Listen: strings.TrimPrefix(b.URL(), "nats://")})
			c.notice(t, q)
			// The task that was lost with its stream is committed; its worker must not wait.
			if err := lost.Done(within(t)); err != nil && !errors.Is(err, errUnconfirmed) {
				t.Errorf("acknowledge a task that the broker forgot: %v", err)
			}
			stop()
			wg.Wait()
		})
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	q := ready(t, Options{URL: b.URL()})

	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		p := startProxy(t, b.URL())
		far := ready(t, Options{URL: p.url(), Name: "cut"})
		publish(t, far, chained(1, 1))
		d := next(t, far, 1<<30)
		p.cut(true)
		done := make(chan error, 1)
		go func() { done <- d.Done(within(t)) }()
		until(t, "the cut is seen", func() bool { return !far.nc.IsConnected() })
		p.mend()
		if err := <-done; err != nil {
			t.Errorf("acknowledge over a network that was cut: %v", err)
		}
		if out, err := q.Outstanding(within(t)); err != nil || out[task.ID{1}] {
			t.Errorf("outstanding: %v, %v", out, err)
		}
	})
	t.Run("a question that the cut ate is asked again at once", func(t *testing.T) {
		t.Parallel()
		p := startProxy(t, b.URL())
		far := ready(t, Options{URL: p.url(), Name: "eaten"})
		p.freeze()
		done := make(chan error, 1)
		go func() { done <- far.Publish(within(t), message(9, 64<<30)) }()
		until(t, "the question is asked", func() bool {
			far.link.mu.Lock()
			defer far.link.mu.Unlock()
			return len(far.link.waiting) > 0
		})
		p.melt()
		p.cut(false)
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, ErrOutstanding) { // the first may have arrived
				t.Error(err)
			}
		case <-time.After(requestTimeout / 3):
			t.Error("the question waits for its time to be over")
		}
	})
	t.Run("a task that comes too late goes back", func(t *testing.T) {
		t.Parallel()
		p := startProxy(t, b.URL())
		far := ready(t, Options{URL: p.url(), Name: "late"})
		cell := Cell{Class: class, Memory: 1 << 35}
		publish(t, q, message(3, 1<<35))
		p.freeze()
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		if d, err := far.fetch(ctx, cell, 0); d != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, %v", d, err)
		}
		p.melt() // now the pull gets through, and its answer finds nobody
		until(t, "the task is sent", func() bool {
			c, err := q.js.Consumer(within(t), streamName, cell.String())
			if err != nil {
				t.Fatal(err)
			}
			return c.CachedInfo().Delivered.Consumer > 0
		})
		var d *delivery
		until(t, "the task is back", func() bool {
			var err error
			if d, err = q.fetch(within(t), cell, 0); err != nil {
				t.Fatal(err)
			}
			return d != nil
		})
		if d.attempt != 2 {
			t.Errorf("attempt %d", d.attempt)
		}
		if err := d.Done(within(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		p := startProxy(t, b.URL())
		far := connect(t, Options{URL: p.url(), Name: "slow"})
		p.slow(50 * time.Millisecond)
		got := make(chan Delivery, 1)
		go func() {
			d, err := far.Next(within(t), func() []Cell { return []Cell{{Class: class, Memory: 1 << 37}} })
			if err != nil {
				t.Error(err)
			}
			got <- d
		}()
		idle(t, far, 1)
		publish(t, q, message(4, 1<<37))
		d := <-got
		if err := d.Done(within(t)); err != nil {
			t.Error(err)
		}
	})
}

func chained(n byte, memory int64) *task.Message {
	m := message(n, memory)
	m.Chain = true
	return m
}
