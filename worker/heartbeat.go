package worker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// errSilent ends an attempt that gave no sign of life.
var errSilent = errors.New("no progress")

// beatEvery is how often deliveries are extended.
func (s *shift) beatEvery() time.Duration {
	if s.BeatEvery > 0 {
		return s.BeatEvery
	}
	return queue.HeartbeatEvery
}

// silence is how long an attempt may give no sign of life.
func (s *shift) silence() time.Duration {
	if s.Silence > 0 {
		return s.Silence
	}
	return 5 * time.Minute
}

// pulse is what an operation says of itself.
type pulse struct {
	bytes atomic.Int64 // of source worked through
	beats atomic.Int64 // signs of life, with bytes or without
}

func (p *pulse) beat(bytes int64) {
	p.bytes.Add(bytes)
	p.beats.Add(1)
}

// heartbeat keeps the delivery for as long as the attempt makes progress, and tells
// watchers how far it is. The context that it returns ends when there is none: a hung
// operation must hold neither its task nor its worker for ever.
func (s *shift) heartbeat(ctx context.Context, a *attempt) (beating context.Context, stop func()) {
	beating, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		extend := time.NewTicker(s.beatEvery())
		defer extend.Stop()
		every := s.TellEvery
		if every <= 0 {
			every = time.Second
		}
		tell := time.NewTicker(every)
		defer tell.Stop()
		last, since := int64(-1), time.Now()
		told := int64(0)
		for {
			select {
			case <-beating.Done():
				return
			case <-extend.C:
				if now := a.progress.beats.Load(); now != last {
					last, since = now, time.Now()
				}
				if time.Since(since) >= s.silence() {
					cancel(errSilent)
					return
				}
				if err := a.d.Extend(); err != nil {
					s.Log.Warn("heartbeat failed", "task", a.m.ID.Short(), "err", err)
				}
			case <-tell.C:
				if n := a.progress.bytes.Load(); n != told {
					told = n
					s.notify(&task.Notice{ID: a.m.ID, State: task.Progress, Bytes: n})
				}
			}
		}
	}()
	return beating, func() { cancel(nil); <-ended }
}
