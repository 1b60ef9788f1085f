package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/objstoretest"
	"github.com/shardpress/shardpress/shard"
)

// TestStoreTroubleIsNotTheTasksFault fails every kind of call in every phase of an
// attempt: the task is given back, later each time, and nothing is abandoned.
func TestStoreTroubleIsNotTheTasksFault(t *testing.T) {
	t.Parallel()
	full := fmt.Errorf("%w: no space left", objstore.ErrFull)
	for _, c := range []struct {
		name  string
		store *faulty
		op    error // of the operation itself
		kind  task.Kind
	}{
		{name: "result cannot be read", store: &faulty{get: ends("result.json")}, kind: task.Storage},
		{name: "spec cannot be read", store: &faulty{get: ends("task.json")}, kind: task.Storage},
		{name: "attempts cannot be listed", store: &faulty{list: has("/attempts/")}, kind: task.Storage},
		{name: "attempt cannot be read", store: &faulty{get: has("/attempts/")}, kind: task.Storage},
		{name: "record cannot be written", store: &faulty{put: has("/attempts/")}, kind: task.Storage},
		{name: "output cannot be written", store: &faulty{put: ends("/o")}, kind: task.Storage},
		{name: "commit fails", store: &faulty{put: ends("result.json")}, kind: task.Storage},
		{name: "no room", store: &faulty{put: ends("/o"), err: full}, kind: task.Full},
		{name: "no room for the commit", store: &faulty{put: ends("result.json"), err: full}, kind: task.Full},
		{name: "read-only", store: &faulty{put: ends("/o"), err: objstore.ErrReadOnly}, kind: task.Storage},
		{name: "not a store", store: &faulty{put: ends("/o"), err: objstore.ErrRoot}, kind: task.Storage},
		{name: "time-out of its own", store: &faulty{put: ends("/o"), err: context.DeadlineExceeded}, kind: task.Storage},
		{name: "scratch is full", op: fmt.Errorf("write scratch: %w", syscall.ENOSPC), kind: task.Storage},
		{name: "a store of sources may not be read", op: fmt.Errorf("read source: %w", objstore.ErrReadOnly), kind: task.Storage},
		{name: "a store of sources is gone", op: fmt.Errorf("read source: %w", objstore.ErrRoot), kind: task.Storage},
		{name: "a source does not answer", op: fmt.Errorf("read source: %w", shard.ErrUnreachable), kind: task.Storage},
		{name: "quota of scratch", op: fmt.Errorf("write scratch: %w", syscall.EDQUOT), kind: task.Storage},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				m := f.task(t, "a")
				f.died(t, m, task.AttemptRecord{Worker: "bob"})
				b := &faulty{Bucket: f.store}
				if c.store != nil {
					b.put, b.get, b.list, b.err = c.store.put, c.store.get, c.store.list, c.store.err
				}
				if b.err == nil {
					b.err = errors.New("connection reset")
				}
				b.times.Store(1 << 30)
				fail := c.op
				w := f.worker("alice", opFunc(func(ctx context.Context, s *task.Spec, env *operation.Env) error {
					if fail != nil {
						return fail
					}
					return writes("bytes")(ctx, s, env)
				}))
				w.Store = b
				defer start(t, w)()
				delays := []time.Duration{}
				for n := 2; n < 10; n++ {
					begin := time.Now()
					d := f.queue.offer(m, n)
					if fate := d.wait(t); fate != "retry" {
						t.Fatalf("delivery %d was %s for %s", n, fate, d.reason)
					}
					if len(delays) > 0 && time.Since(begin) < delays[len(delays)-1]/2 {
						t.Errorf("a task was pulled %v after the store failed, while the other one waits for %v", time.Since(begin), delays[len(delays)-1])
					}
					delays = append(delays, d.after)
				}
				if first, end := delays[0], delays[len(delays)-1]; first > time.Second || first < time.Second/2 || end < 20*time.Second || end > 30*time.Second {
					t.Errorf("given back for %v", delays)
				}
				news := f.queue.news(task.Failed)
				if len(news) != len(delays) {
					t.Fatalf("%d notices of %d failures", len(news), len(delays))
				}
				for _, n := range news {
					if n.Failure.Kind != c.kind || n.Worker != "alice" || n.Failure.Message == "" {
						t.Errorf("notice %+v", n.Failure)
					}
				}
				if stored := f.failures(t, m); len(stored) != 0 {
					t.Errorf("failures stored: %+v", stored)
				}
				b.times.Store(0)
				fail = nil
				if fate := f.queue.offer(m, 10).wait(t); fate != "done" {
					t.Errorf("when the store was back the delivery was %s", fate)
				}
				synctest.Wait()
				time.Sleep(settleEvery) //nolint:forbidigo // by the bubble's clock
				synctest.Wait()
				if s := f.states(t, m); strings.Count(s, task.AttemptStarted) != 1 || !strings.HasSuffix(s, task.AttemptDone) {
					t.Errorf("attempts %s, want the one that died and no other", s)
				}
				begin := time.Now()
				other := f.task(t, "b")
				f.queue.offer(other, 1).wait(t)
				if time.Since(begin) != 0 {
					t.Errorf("the worker rests for %v although the store is well", time.Since(begin))
				}
				b.times.Store(1 << 30)
				fail = c.op
				again := f.task(t, "c")
				f.died(t, again, task.AttemptRecord{Worker: "bob"})
				if d := f.queue.offer(again, 2); d.wait(t) != "retry" || d.after > time.Second {
					t.Errorf("the first failure after a success: %s after %v", d.fate, d.after)
				}
			})
		})
	}
}

// TestKinds says whose fault errors are, as they come out of an operation.
func TestKinds(t *testing.T) {
	t.Parallel()
	invalid := fmt.Errorf("%w: group", compress.ErrInvalid)
	for _, c := range []struct {
		name string
		run  func(ctx context.Context, env *operation.Env) error
		want task.Kind
	}{
		{"own", func(context.Context, *operation.Env) error { return errors.New("cable") }, task.Transient},
		{"invalid", func(context.Context, *operation.Env) error { return invalid }, task.Invalid},
		{"source", func(context.Context, *operation.Env) error { return shard.ErrSourceChanged }, task.Changed},
		{"invalid while it is read", func(ctx context.Context, env *operation.Env) error {
			return env.Put(ctx, "o", io.MultiReader(strings.NewReader("some"), failing{invalid}), -1)
		}, task.Invalid},
		{"invalid while it is written", func(ctx context.Context, env *operation.Env) error {
			return env.Put(ctx, "o", objstore.FromWriter(func(w io.Writer) error {
				if _, err := io.WriteString(w, "some"); err != nil {
					return err
				}
				return invalid
			}), -1)
		}, task.Invalid},
		{"cable while it is read", func(ctx context.Context, env *operation.Env) error {
			return env.Put(ctx, "o", failing{errors.New("cable")}, -1)
		}, task.Transient},
		{"too few bytes", func(ctx context.Context, env *operation.Env) error {
			return env.Put(ctx, "o", strings.NewReader("x"), 2)
		}, task.Transient},
		{"object is not there", func(ctx context.Context, env *operation.Env) error {
			_, err := objstore.ReadAll(ctx, env.Store, "tasks/x", 10)
			return err
		}, task.Transient},
		{"lost input", func(ctx context.Context, env *operation.Env) error {
			_, err := objstore.ReadAll(ctx, env.Store, "tasks/x", 10)
			return fmt.Errorf("merge: %w", &operation.LostInput{ID: task.ID{7}, Attempt: "01A", Err: err})
		}, task.Lost},
		{"panic", func(context.Context, *operation.Env) error { panic("index out of range") }, task.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet()
			m := f.task(t, "a")
			stop := start(t, f.worker("alice", opFunc(func(ctx context.Context, _ *task.Spec, env *operation.Env) error { return c.run(ctx, env) })))
			d := f.queue.offer(m, 1)
			if fate := d.wait(t); fate != "abandon" || d.reason != string(c.want) {
				t.Errorf("delivery was %s for %s", fate, d.reason)
			}
			stop()
			failed := f.failures(t, m)
			if len(failed) != 1 || failed[0].Kind != c.want {
				t.Fatalf("failures %+v", failed)
			}
			if p := failed[0].Producer; (c.want == task.Lost) != (p != nil) || p != nil && (p.ID != task.ID{7} || p.Attempt != "01A") {
				t.Errorf("producer %+v", p)
			}
			if c.want == task.Internal && !strings.Contains(failed[0].Message, "index out of range") {
				t.Errorf("failure %s", failed[0].Message)
			}
			if s := f.states(t, m); s != task.AttemptFailed {
				t.Errorf("attempts %s", s)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestBlamedIsABucket holds the wrapper to what all buckets promise.
func TestBlamedIsABucket(t *testing.T) {
	t.Parallel()
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return &blamed{objstore.NewMem()} })
}

// TestBlame marks the store's own errors, and no answers.
func TestBlame(t *testing.T) {
	t.Parallel()
	var marked *operation.StoreError
	away := errors.New("away")
	mem := objstore.NewMem()
	b := &blamed{&faulty{Bucket: mem, get: has("bad"), put: has("bad"), list: has("bad"), remove: has("bad"), err: away}}
	b.Bucket.(*faulty).times.Store(1 << 30)
	ctx := t.Context()
	for name, call := range map[string]func(key string) error{
		"get":    func(key string) error { _, err := b.Get(ctx, key, 0, -1); return err },
		"delete": func(key string) error { return b.Delete(ctx, key) },
		"put": func(key string) error {
			_, err := b.Put(ctx, key, bytes.NewReader(nil), 0, objstore.PutOptions{})
			return err
		},
		"list": func(key string) error {
			for _, err := range b.List(ctx, key) {
				return err
			}
			return nil
		},
	} {
		if err := call("bad"); !errors.As(err, &marked) || !errors.Is(err, away) {
			t.Errorf("%s: %v is not marked", name, err)
		}
		if err := call("good"); errors.As(err, &marked) {
			t.Errorf("%s: %v is marked", name, err)
		}
	}
	if _, err := b.Put(ctx, "there", bytes.NewReader(nil), 0, objstore.PutOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := b.Put(ctx, "there", bytes.NewReader(nil), 0, objstore.PutOptions{IfAbsent: true}); !errors.Is(err, objstore.ErrExist) || errors.As(err, &marked) {
		t.Errorf("put if absent: %v", err)
	}
	// A store that fails in the middle of what an operation writes to it.
	sink := &blamed{sinking{mem}}
	written := objstore.FromWriter(func(w io.Writer) error { _, err := io.WriteString(w, "bytes"); return err })
	if _, err := sink.Put(ctx, "k", written, -1, objstore.PutOptions{}); !errors.As(err, &marked) || !errors.Is(err, errSunk) {
		t.Errorf("write that the store breaks off: %v", err)
	}
	broken := &blamedReader{ctx, io.NopCloser(failing{away})}
	if _, err := broken.Read(nil); !errors.As(err, &marked) {
		t.Errorf("read that breaks off: %v", err)
	}
	if _, err := (&blamedReader{ctx, io.NopCloser(strings.NewReader(""))}).Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // exactly that
		t.Errorf("end of an object: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := blame(ended, away); errors.As(err, &marked) {
		t.Error("an error of one's own end is the store's")
	}
}

// sinking is a bucket that breaks off whatever is written to it.
type sinking struct{ objstore.Bucket }

var errSunk = errors.New("sunk")

func (sinking) Write([]byte) (int, error) { return 0, errSunk }

func (s sinking) Put(_ context.Context, _ string, r io.Reader, _ int64, _ objstore.PutOptions) (objstore.Info, error) {
	_, err := io.Copy(s, r)
	return objstore.Info{}, err
}
