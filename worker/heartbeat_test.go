package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// TestHeartbeat follows the progress of operations on the bubble's clock.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		silence time.Duration
		every   time.Duration // between signs of life, for an hour
		bytes   int64
		fate    string
		least   int // deliveries are extended
		most    int
		ends    time.Duration
		beat    time.Duration
	}{
		{"a long operation keeps its task", 0, time.Minute, 7, "done", 355, 361, time.Hour, 0},
		{"a long pass that does not count keeps it", 0, time.Minute, 0, "done", 355, 361, time.Hour, 0},
		{"a hung operation loses it", 0, time.Hour, 0, "abandon", 29, 31, 5*time.Minute + 20*time.Second, 0},
		{"sooner if that is asked for", time.Minute, 2 * time.Minute, 7, "abandon", 5, 7, time.Minute + 20*time.Second, 0},
		{"a queue that waits for less hears more", 0, time.Minute, 7, "done", 3500, 3601, time.Hour, time.Second},
		{"later if that is asked for", 30 * time.Minute, 20 * time.Minute, 7, "done", 355, 361, time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				m := f.task(t, "a")
				w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
					for range time.Hour / c.every {
						select {
						case <-time.After(c.every):
						case <-ctx.Done():
							return ctx.Err()
						}
						env.Progress(c.bytes)
					}
					return writes("bytes")(ctx, s, env)
				}))
				w.Silence, w.BeatEvery = c.silence, c.beat
				stop := start(t, w)
				begin := time.Now()
				d := f.queue.offer(m, 1)
				if fate := d.wait(t); fate != c.fate {
					t.Errorf("delivery was %s", fate)
				}
				if took := time.Since(begin); took > c.ends {
					t.Errorf("it took %v", took)
				}
				stop()
				if d.extends < c.least || d.extends > c.most {
					t.Errorf("extended %d times, want %d to %d", d.extends, c.least, c.most)
				}
				progress := f.queue.news(task.Progress)
				if (c.bytes > 0 && c.fate == "done") != (len(progress) > 1) {
					t.Errorf("%d notices of progress", len(progress))
				}
				if n := len(progress); n > 0 && progress[n-1].Bytes%7 != 0 {
					t.Errorf("progress of %d bytes", progress[n-1].Bytes)
				}
				if c.fate == "done" {
					return
				}
				failed := f.failures(t, m)
				if len(failed) != 1 || failed[0].Kind != task.Transient || !strings.Contains(failed[0].Message, "no progress for") {
					t.Errorf("failures %+v", failed)
				}
				if s := f.states(t, m); s != task.AttemptFailed {
					t.Errorf("attempts %s", s)
				}
			})
		})
	}
}

// TestOperationThatDoesNotStop neither ends nor stops: its attempt is given up, its
// memory stays taken, what it writes later is not taken, and the worker goes on with
// what it has left, or ends if that is too little.
func TestOperationThatDoesNotStop(t *testing.T) {
	t.Parallel()
	for _, memory := range []int64{512 << 20, 1000 << 20} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			m := f.task(t, "a")
			m.Memory = memory
			gate := make(chan struct{})
			ended := make(chan error, 1)
			hung := opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
				<-gate
				err := writes("bytes")(context.WithoutCancel(ctx), s, env)
				ended <- err
				return err
			})
			w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
				if env.Message.ID == m.ID {
					return hung(ctx, s, env)
				}
				return writes("bytes")(ctx, s, env)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			go func() { result <- w.Run(ctx) }()
			d := f.queue.offer(m, 1)
			if fate := d.wait(t); fate != "abandon" || d.reason != string(task.Transient) {
				t.Errorf("delivery was %s for %s", fate, d.reason)
			}
			if memory > w.Memory-queue.SmallestMemory {
				if err := <-result; !errors.Is(err, errStuck) {
					t.Errorf("a worker without room ended with %v", err)
				}
			} else {
				big, small := f.task(t, "big"), f.task(t, "small")
				big.Memory = memory + 1
				waiting := f.queue.offer(big, 1)
				if fate := f.queue.offer(small, 1).wait(t); fate != "done" {
					t.Errorf("another task was %s", fate)
				}
				synctest.Wait()
				select {
				case <-waiting.ended:
					t.Error("a task got memory that is not free")
				default:
				}
			}
			close(gate)
			if err := <-ended; !errors.Is(err, errClosed) {
				t.Errorf("a write after the end: %v", err)
			}
			cancel()
			synctest.Wait()
			if left := f.keys(t, task.Prefix(m.ID)); len(left) != 1 {
				t.Errorf("in the store: %q", left)
			}
		})
	}
}
