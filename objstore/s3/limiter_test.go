package s3

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestLimiterFollowsTheServer(t *testing.T) {
	t.Parallel()
	l := newLimiter(64)
	begin := func(n int) []int {
		epochs := make([]int, n)
		for i := range epochs {
			e, err := l.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			epochs[i] = e
		}
		return epochs
	}
	// However many of the requests under way are told so: half, once.
	for _, e := range begin(40) {
		l.release(e, false, true)
	}
	if l.now() != 32 {
		t.Errorf("limit %d after one wave, want 32", l.now())
	}
	for range 10 {
		for _, e := range begin(1) {
			l.release(e, false, true)
		}
	}
	if l.now() != 1 {
		t.Errorf("limit %d after many waves, want 1", l.now())
	}
	// One more for each round of as many as there may be.
	rounds := 0
	for ; l.now() < 64; rounds++ {
		for _, e := range begin(l.now()) {
			l.release(e, true, false)
		}
	}
	if rounds < 32 || rounds > 100 {
		t.Errorf("%d rounds to grow back to 64", rounds)
	}
	for range 10 {
		for _, e := range begin(1) {
			l.release(e, true, false)
		}
	}
	if l.now() != 64 {
		t.Errorf("limit %d, want no more than 64", l.now())
	}
}

func TestLimiterWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(3)
		var open, most atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				e, err := l.acquire(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				n := open.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				open.Add(-1)
				l.release(e, true, false)
			})
		}
		wg.Wait()
		if most.Load() > 3 || l.used != 0 || l.waiting.Len() != 0 {
			t.Errorf("%d at once, %d left, %d waiting", most.Load(), l.used, l.waiting.Len())
		}
	})
}

// Whoever gives up waiting neither keeps a turn nor loses one.
func TestLimiterCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		for range 100 {
			e, err := l.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					c := ctx
					if i%2 == 0 {
						c = t.Context()
					}
					e, err := l.acquire(c)
					switch {
					case err == nil:
						l.release(e, true, false)
					case !errors.Is(err, context.Canceled):
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			go cancel()
			l.release(e, true, false)
			wg.Wait()
			cancel()
			if l.used != 0 || l.waiting.Len() != 0 {
				t.Fatalf("%d turns lost, %d waiting", l.used, l.waiting.Len())
			}
		}
	})
}
