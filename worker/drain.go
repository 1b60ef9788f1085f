package worker

import (
	"context"
	"errors"
	"time"
)

// errDrained ends the attempts of a worker that was told to stop and whose time of
// grace is over.
var errDrained = errors.New("worker was told to stop")

// outlive returns the context of tasks at work: it ends when ctx has ended and the
// time of grace is over.
func (s *shift) outlive(ctx context.Context) (work context.Context, cancel func()) {
	work, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		s.draining.Store(true)
		s.change()
		if s.Grace <= 0 {
			end(errDrained)
			return
		}
		t := time.AfterFunc(s.Grace, func() { end(errDrained) })
		context.AfterFunc(work, func() { t.Stop() })
	})
	return work, func() { stop(); end(nil) }
}
