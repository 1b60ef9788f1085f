package local_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"time"

	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// call is one operation of a fleet on its store, its output or its queue, or one
// step beside them.
type call struct {
	on  string // "store", "out", "queue", "delivery", "step"
	op  string
	key string
	// Put: what is about to be stored; an interceptor may replace it.
	reader *io.Reader
	notice *task.Notice  // Notify
	task   *task.Message // Publish
}

// interceptor does a call by calling do, or not.
type interceptor func(c *call, do func() error) error

// tapped lets every operation of a job pass through f.
func tapped(f interceptor) local.Wrap {
	return local.Wrap{
		Bucket: func(b objstore.Bucket) objstore.Bucket {
			on := "out"
			if d, ok := b.(*objstore.Dir); ok && filepath.Base(d.Root()) == ".shardpress" {
				on = "store"
			}
			return &tap{inner: b, on: on, f: f}
		},
		Queue: func(q local.Queue) local.Queue { return &queueTap{inner: q, f: f} },
		Step: func(what string) {
			_ = f(&call{on: "step", op: what}, func() error { return nil }) // nothing to fail
		},
	}
}

type tap struct {
	inner objstore.Bucket
	on    string
	f     interceptor
}

var _ objstore.Copier = (*tap)(nil)

func (t *tap) Get(ctx context.Context, key string, off, n int64) (r io.ReadCloser, err error) {
	err = t.f(&call{on: t.on, op: "get", key: key}, func() (err error) {
		r, err = t.inner.Get(ctx, key, off, n)
		return err
	})
	return r, err
}

func (t *tap) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (info objstore.Info, err error) {
	err = t.f(&call{on: t.on, op: "put", key: key, reader: &r}, func() (err error) {
		info, err = t.inner.Put(ctx, key, r, size, o)
		return err
	})
	return info, err
}

func (t *tap) Stat(ctx context.Context, key string) (info objstore.Info, err error) {
	err = t.f(&call{on: t.on, op: "stat", key: key}, func() (err error) {
		info, err = t.inner.Stat(ctx, key)
		return err
	})
	return info, err
}

func (t *tap) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		more := true
		err := t.f(&call{on: t.on, op: "list", key: prefix}, func() error {
			for info, err := range t.inner.List(ctx, prefix) {
				if more = yield(info, err); !more || err != nil {
					more = false
					return nil
				}
			}
			return nil
		})
		if err != nil && more {
			yield(objstore.Info{}, err)
		}
	}
}

func (t *tap) Delete(ctx context.Context, key string) error {
	return t.f(&call{on: t.on, op: "delete", key: key}, func() error { return t.inner.Delete(ctx, key) })
}

// Copy hands the inner bucket on, so that links are still made.
func (t *tap) Copy(ctx context.Context, dst string, src objstore.Bucket, srcKey string) (info objstore.Info, err error) {
	c, ok := t.inner.(objstore.Copier)
	if !ok {
		return info, objstore.ErrCannotCopy
	}
	if s, ok := src.(*tap); ok {
		src = s.inner
	}
	err = t.f(&call{on: t.on, op: "copy", key: dst}, func() (err error) {
		info, err = c.Copy(ctx, dst, src, srcKey)
		return err
	})
	return info, err
}

type queueTap struct {
	inner local.Queue
	f     interceptor
}

func (q *queueTap) Publish(ctx context.Context, m *task.Message) error {
	return q.f(&call{on: "queue", op: "publish", key: m.ID.String(), task: m}, func() error { return q.inner.Publish(ctx, m) })
}

func (q *queueTap) Withdraw(ctx context.Context, m *task.Message) error {
	return q.f(&call{on: "queue", op: "withdraw", key: m.ID.String()}, func() error { return q.inner.Withdraw(ctx, m) })
}

func (q *queueTap) OutstandingCopies(ctx context.Context, which string) (ids map[task.ID]bool, err error) {
	err = q.f(&call{on: "queue", op: "outstanding"}, func() (err error) {
		ids, err = q.inner.OutstandingCopies(ctx, which)
		return err
	})
	return ids, err
}

func (q *queueTap) DropStranded(ctx context.Context) (n int, err error) {
	err = q.f(&call{on: "queue", op: "drop stranded"}, func() (err error) {
		n, err = q.inner.DropStranded(ctx)
		return err
	})
	return n, err
}

func (q *queueTap) Outstanding(ctx context.Context) (ids map[task.ID]bool, err error) {
	err = q.f(&call{on: "queue", op: "outstanding"}, func() (err error) {
		ids, err = q.inner.Outstanding(ctx)
		return err
	})
	return ids, err
}

func (q *queueTap) Notices(ctx context.Context) (c <-chan *task.Notice, err error) {
	err = q.f(&call{on: "queue", op: "notices"}, func() (err error) {
		c, err = q.inner.Notices(ctx)
		return err
	})
	return c, err
}

func (q *queueTap) Next(ctx context.Context, cells func() []queue.Cell) (d queue.Delivery, err error) {
	err = q.f(&call{on: "queue", op: "next"}, func() (err error) {
		d, err = q.inner.Next(ctx, cells)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &deliveryTap{Delivery: d, f: q.f}, nil
}

func (q *queueTap) Notify(n *task.Notice) error {
	return q.f(&call{on: "queue", op: "notify", key: n.ID.String(), notice: n}, func() error { return q.inner.Notify(n) })
}

type deliveryTap struct {
	queue.Delivery
	f interceptor
}

func (d *deliveryTap) Extend() error {
	return d.f(&call{on: "delivery", op: "extend"}, d.Delivery.Extend)
}

func (d *deliveryTap) Done(ctx context.Context) error {
	return d.f(&call{on: "delivery", op: "done"}, func() error { return d.Delivery.Done(ctx) })
}

func (d *deliveryTap) Retry(after time.Duration) error {
	return d.f(&call{on: "delivery", op: "retry"}, func() error { return d.Delivery.Retry(after) })
}

func (d *deliveryTap) Abandon(reason string) error {
	return d.f(&call{on: "delivery", op: "abandon"}, func() error { return d.Delivery.Abandon(reason) })
}

// errInjected is a failure that a test asked for.
var errInjected = errors.New("injected failure")
