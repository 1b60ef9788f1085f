package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/internal/task"
)

// inBucket asks something of a bucket, which is made again if it was lost.
func (q *Queue) inBucket(ctx context.Context, name string, f func(context.Context, jetstream.KeyValue) error) error {
	// The subject differs with the question: any denial of one of the bucket's counts.
	return q.persist(ctx, "$", readLimit, func(ctx context.Context) error {
		kv, err := q.bucket(ctx, name)
		if err != nil {
			return err
		}
		return f(ctx, kv)
	})
}

// Register writes what a worker says of itself. It must come again within the
// registry's time to live.
func (q *Queue) Register(ctx context.Context, w *task.WorkerInfo) error {
	if !task.ValidToken(w.Name) {
		return fmt.Errorf("register worker: %w: name %q", task.ErrInvalid, w.Name)
	}
	b, err := w.Encode()
	if err != nil {
		return err
	}
	err = q.inBucket(ctx, workersBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		_, err := kv.Put(ctx, w.Name, b)
		return err
	})
	if err != nil {
		return fmt.Errorf("register worker %s: %w", w.Name, err)
	}
	return nil
}

// Unregister removes a worker's entry.
func (q *Queue) Unregister(ctx context.Context, name string) error {
	if !task.ValidToken(name) {
		return fmt.Errorf("unregister worker: %w: name %q", task.ErrInvalid, name)
	}
	err := q.inBucket(ctx, workersBucket, func(ctx context.Context, kv jetstream.KeyValue) error { return kv.Purge(ctx, name) })
	if err != nil {
		return fmt.Errorf("unregister worker %s: %w", name, err)
	}
	return nil
}

// Workers lists the workers that live, by name. An entry that cannot be read, or
// that says another name than its own, is left out.
func (q *Queue) Workers(ctx context.Context) ([]*task.WorkerInfo, error) {
	var names []string
	err := q.persist(ctx, "$JS.API.STREAM.", readLimit, func(ctx context.Context) error {
		names = nil
		stream, err := q.js.Stream(ctx, "KV_"+workersBucket)
		if err != nil {
			return err
		}
		const prefix = "$KV." + workersBucket + "."
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
		if err != nil {
			return err
		}
		for subject := range info.State.Subjects {
			names = append(names, strings.TrimPrefix(subject, prefix))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	slices.Sort(names)
	workers := make([]*task.WorkerInfo, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i, name := range names {
		g.Go(func() (err error) {
			workers[i], err = q.entry(ctx, name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	return slices.DeleteFunc(workers, func(w *task.WorkerInfo) bool { return w == nil }), nil
}

// entry is nil for one that is gone or damaged.
func (q *Queue) entry(ctx context.Context, name string) (*task.WorkerInfo, error) {
	var w *task.WorkerInfo
	err := q.inBucket(ctx, workersBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, name)
		if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
			return nil
		}
		if err != nil {
			return err
		}
		if w, err = task.ParseWorkerInfo(e.Value()); err != nil || w.Name != name {
			q.log.Warn("registry holds what is no entry of a worker", "key", name, "err", err)
			w = nil
		}
		return nil
	})
	return w, err
}

// PutSnapshot keeps what a coordinator knows of a live run, for whoever asks.
func (q *Queue) PutSnapshot(ctx context.Context, run string, b []byte) error {
	if !task.ValidToken(run) {
		return fmt.Errorf("put snapshot: %w: run %q", task.ErrInvalid, run)
	}
	if limit := q.nc.MaxPayload(); limit > 0 && int64(len(b)) > limit {
		return fmt.Errorf("put snapshot of run %s: %w: %d bytes, the broker takes %d", run, task.ErrInvalid, len(b), limit)
	}
	err := q.inBucket(ctx, runsBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		_, err := kv.Put(ctx, run, b)
		return err
	})
	if err != nil {
		return fmt.Errorf("put snapshot of run %s: %w", run, err)
	}
	return nil
}

// Snapshot returns what PutSnapshot kept last, or ErrNotFound.
func (q *Queue) Snapshot(ctx context.Context, run string) ([]byte, error) {
	if !task.ValidToken(run) {
		return nil, fmt.Errorf("get snapshot: %w: run %q", task.ErrInvalid, run)
	}
	var b []byte
	err := q.inBucket(ctx, runsBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, run)
		if err == nil {
			b = e.Value()
		}
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get snapshot of run %s: %w", run, err)
	}
	return b, nil
}

// DeleteSnapshot forgets the snapshot of a run that ended.
func (q *Queue) DeleteSnapshot(ctx context.Context, run string) error {
	if !task.ValidToken(run) {
		return fmt.Errorf("delete snapshot: %w: run %q", task.ErrInvalid, run)
	}
	err := q.inBucket(ctx, runsBucket, func(ctx context.Context, kv jetstream.KeyValue) error { return kv.Purge(ctx, run) })
	if err != nil {
		return fmt.Errorf("delete snapshot of run %s: %w", run, err)
	}
	return nil
}
