package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

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
	var workers []*task.WorkerInfo
	err := q.inBucket(ctx, workersBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		workers = nil
		return each(ctx, kv, func(key string, value []byte) {
			w, err := task.ParseWorkerInfo(value)
			if err != nil || w.Name != key {
				q.log.Warn("registry holds what is no entry of a worker", "key", key, "err", err)
				return
			}
			workers = append(workers, w)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	slices.SortFunc(workers, func(a, b *task.WorkerInfo) int { return strings.Compare(a.Name, b.Name) })
	return workers, nil
}

// each calls f with every entry of a bucket.
func each(ctx context.Context, kv jetstream.KeyValue, f func(key string, value []byte)) error {
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return err
	}
	defer w.Stop() //nolint:errcheck // the watch ends with the connection at the latest
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-w.Updates():
			if !open {
				return errDisconnected
			}
			if e == nil {
				return nil // that was all
			}
			f(e.Key(), e.Value())
		}
	}
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
