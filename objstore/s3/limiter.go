package s3

import (
	"container/list"
	"context"
	"sync"
)

// limiter bounds the requests that are open at once. The bound follows the server:
// asked to slow down it is halved, once for all requests that were under way then,
// and with each request that succeeds it grows, by about one for each round of
// them (additive increase, multiplicative decrease).
type limiter struct {
	mu      sync.Mutex
	most    float64
	limit   float64
	used    int
	epoch   int       // counts the halvings
	waiting list.List // of chan struct{}, the first in line first
}

func newLimiter(most int) *limiter { return &limiter{most: float64(most), limit: float64(most)} }

// acquire waits for its turn. The epoch is to be given to release.
func (l *limiter) acquire(ctx context.Context) (epoch int, err error) {
	l.mu.Lock()
	if l.waiting.Len() == 0 && float64(l.used) < l.limit {
		l.used++
		epoch = l.epoch
		l.mu.Unlock()
		return epoch, nil
	}
	turn := make(chan struct{})
	place := l.waiting.PushBack(turn)
	l.mu.Unlock()
	select {
	case <-turn:
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		select {
		case <-turn: // it was ours at the same moment: pass it on
			l.used--
			l.wake()
		default:
			l.waiting.Remove(place)
		}
		return 0, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, nil
}

// release ends a request that began in the epoch.
func (l *limiter) release(epoch int, ok, slowDown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used--
	switch {
	case slowDown && epoch == l.epoch:
		l.limit = max(1, l.limit/2)
		l.epoch++
	case ok && !slowDown:
		l.limit = min(l.most, l.limit+1/l.limit)
	}
	l.wake()
}

// wake lets those in who are next.
func (l *limiter) wake() {
	for l.waiting.Len() > 0 && float64(l.used) < l.limit {
		turn, _ := l.waiting.Remove(l.waiting.Front()).(chan struct{})
		l.used++
		close(turn)
	}
}

// now is the present bound.
func (l *limiter) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.limit)
}
