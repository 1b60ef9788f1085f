package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shardpress/shardpress/internal/task"
)

// ErrLeased is returned when another holder has the lease, or took it meanwhile.
var ErrLeased = errors.New("another one holds the lease")

// Lease says that its holder is the one who drives something. It ends by itself when
// it is not renewed within its time to live. It saves work and excludes nobody: what
// must happen once is decided by puts into the store.
type Lease struct {
	q      *Queue
	name   string
	holder string

	mu       sync.Mutex
	revision uint64
}

// Acquire takes a lease, or returns ErrLeased. A holder that was killed, or that was
// not told that it has the lease, takes its own again; but not one that it had by
// this connection, for then another process bears its name.
func (q *Queue) Acquire(ctx context.Context, name, holder string) (*Lease, error) {
	if !task.ValidToken(name) || !task.ValidToken(holder) {
		return nil, fmt.Errorf("acquire lease: %w: name %q, holder %q", task.ErrInvalid, name, holder)
	}
	l := &Lease{q: q, name: name, holder: holder}
	q.mu.Lock()
	had := q.leased[name]
	q.mu.Unlock()
	err := q.inBucket(ctx, leasesBucket, func(ctx context.Context, kv jetstream.KeyValue) (err error) {
		l.revision, err = kv.Create(ctx, name, []byte(holder))
		if !errors.Is(err, jetstream.ErrKeyExists) || had {
			return err
		}
		e, gerr := kv.Get(ctx, name)
		if gerr == nil && string(e.Value()) == holder {
			l.revision, err = kv.Update(ctx, name, []byte(holder), e.Revision())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("acquire lease %s: %w", name, leaseError(err))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leased[name] = true
	return l, nil
}

// leaseError tells a lost race from trouble.
func leaseError(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return ErrLeased
	}
	return err
}

// Renew prolongs the lease. It returns ErrLeased when it had ended, whether or not
// another one has it now.
func (l *Lease) Renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.q.inBucket(ctx, leasesBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		revision, err := kv.Update(ctx, l.name, []byte(l.holder), l.revision)
		if err == nil {
			l.revision = revision
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("renew lease %s: %w", l.name, leaseError(err))
	}
	return nil
}

// Release ends the lease, so that another one need not wait for its end.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.q.inBucket(ctx, leasesBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		return kv.Delete(ctx, l.name, jetstream.LastRevision(l.revision))
	})
	if err = leaseError(err); err != nil && !errors.Is(err, ErrLeased) { // had ended anyway
		return fmt.Errorf("release lease %s: %w", l.name, err)
	}
	return nil
}

// Holder returns who holds the lease, or ErrNotFound.
func (q *Queue) Holder(ctx context.Context, name string) (string, error) {
	if !task.ValidToken(name) {
		return "", fmt.Errorf("look at lease: %w: name %q", task.ErrInvalid, name)
	}
	var holder string
	err := q.inBucket(ctx, leasesBucket, func(ctx context.Context, kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, name)
		if err == nil {
			holder = string(e.Value())
		}
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		err = ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("look at lease %s: %w", name, err)
	}
	return holder, nil
}
