package worker

import (
	"context"
	"sync"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
)

// room is what a worker has for tasks at once: memory in bytes, and company. A task
// that killed its workers must be alone; while it is, or waits for that, nothing is
// pulled.
type room struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	size    int64
	free    int64
	company int       // tasks at work that mind no other ones
	waiting int       // tasks that wait for being alone
	alone   bool      // one is
	until   time.Time // nothing is pulled before
}

func newRoom(memory int64) *room {
	return &room{size: memory, free: memory, changed: make(chan struct{})}
}

// tell wakes those who wait for a change. The lock is held.
func (r *room) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// available is what a task that is pulled now may need, in bytes.
func (r *room) available() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.availableLocked()
}

func (r *room) availableLocked() int64 {
	if r.alone || r.waiting > 0 || time.Now().Before(r.until) {
		return 0
	}
	return r.free
}

// open returns when a task can be pulled.
func (r *room) open(ctx context.Context) error {
	for {
		r.mu.Lock()
		ready := r.availableLocked() >= queue.SmallestMemory
		changed, pause := r.changed, time.Until(r.until)
		r.mu.Unlock()
		if ready {
			return ctx.Err()
		}
		var later <-chan time.Time
		if pause > 0 {
			t := time.NewTimer(pause)
			defer t.Stop()
			later = t.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-later:
		}
	}
}

// rest keeps the worker from pulling for a while.
func (r *room) rest(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := time.Now().Add(d); t.After(r.until) {
		r.until = t
	}
}

// place is a task's share of the room.
type place struct {
	room   *room
	memory int64
	alone  bool
}

// enter takes room for a task, nil if there is none any more.
func (r *room) enter(memory int64) *place {
	r.mu.Lock()
	defer r.mu.Unlock()
	if memory < 0 || memory > r.availableLocked() {
		return nil
	}
	r.free -= memory
	r.company++
	return &place{room: r, memory: memory}
}

// beAlone returns when no other task is at work. Waiting counts as a sign of life.
func (p *place) beAlone(ctx context.Context, every time.Duration, alive func()) error {
	r := p.room
	tick := time.NewTicker(every)
	defer tick.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.company--
	r.waiting++
	r.tell() // another one may wait for us
	for r.company > 0 || r.alone {
		changed := r.changed
		r.mu.Unlock()
		var err error
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-changed:
		case <-tick.C:
			alive()
		}
		r.mu.Lock()
		if err != nil {
			r.waiting--
			r.company++
			r.tell()
			return err
		}
	}
	r.waiting--
	r.alone, p.alone = true, true
	return nil
}

// leave gives the room back.
func (p *place) leave() {
	p.part()
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.room.free += p.memory
	p.room.tell()
}

// part ends the task's company with others.
func (p *place) part() {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.alone {
		r.alone = false
	} else {
		r.company--
	}
	r.tell()
}

// strand leaves the room for a task whose operation does not stop: its memory stays
// taken until it does, which ended says. It returns what room is left in all.
func (p *place) strand(ended <-chan struct{}) int64 {
	p.part()
	r := p.room
	go func() {
		<-ended
		r.mu.Lock()
		defer r.mu.Unlock()
		r.free += p.memory
		r.size += p.memory
		r.tell()
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size -= p.memory
	return r.size
}
