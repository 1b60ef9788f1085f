package worker

import (
	"context"
	"sync"
)

// budget is the memory that tasks at once may use, in bytes.
type budget struct {
	mu      sync.Mutex
	free    int64
	changed chan struct{} // capacity 1: something was given back
}

func (b *budget) available() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free
}

func (b *budget) take(n int64) {
	b.mu.Lock()
	b.free -= n
	b.mu.Unlock()
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// wait returns when at least n bytes are free. One goroutine waits at a time.
func (b *budget) wait(ctx context.Context, n int64) error {
	for b.available() < n {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.changed:
		}
	}
	return nil
}
