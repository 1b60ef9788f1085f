package queue

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// idlers are the calls of Next in this process that wait. The broker gives each
// wake-up to one process that has some.
type idlers struct {
	mu      sync.Mutex
	waiters []*waiter
	subs    map[rung]*wakeSub
	surplus []string // subjects of wake-ups for waiters that have one already
	empty   map[Cell]time.Time
}

type waiter struct {
	cells []Cell // under idlers.mu, written by the waiter only
	wake  chan Cell
	// subject of what is in wake
	subject string
	// rests: it has looked around, and will not do so again soon.
	rests bool
}

// rung is what a process subscribes to: both ranks of a memory class.
type rung struct {
	class  string
	memory int64
}

type wakeSub struct {
	sub  *nats.Subscription
	used int
}

const maxSurplus = 1024

func (s *idlers) init() {
	s.subs = map[rung]*wakeSub{}
	s.empty = map[Cell]time.Time{}
}

// rungs are those that the cells stand on.
func rungs(cells []Cell) []rung {
	var rs []rung
	for _, c := range cells {
		if r := (rung{c.Class, c.Memory}); !slices.Contains(rs, r) {
			rs = append(rs, r)
		}
	}
	return rs
}

func (s *idlers) enter(q *Queue, cells []Cell) *waiter {
	w := &waiter{cells: cells, wake: make(chan Cell, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters = append(s.waiters, w)
	s.use(q, rungs(cells))
	return w
}

// update changes the cells of a waiter.
func (s *idlers) update(q *Queue, w *waiter, cells []Cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(w.cells, cells) {
		return
	}
	old := rungs(w.cells)
	w.cells = cells
	s.use(q, rungs(cells))
	s.unuse(old)
}

// leave ends a waiter. A wake-up that it did not follow goes to another one, here or
// elsewhere.
func (s *idlers) leave(q *Queue, w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters, w); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
	s.unuse(rungs(w.cells))
	select {
	case <-w.wake:
		s.surplus = append(s.surplus, w.subject)
	default:
	}
	rest := s.surplus
	s.surplus = nil
	for _, subject := range rest {
		s.dispatch(q, subject)
	}
}

func (s *idlers) use(q *Queue, rs []rung) {
	for _, r := range rs {
		ws := s.subs[r]
		if ws == nil {
			ws = &wakeSub{}
			var err error
			ws.sub, err = q.nc.QueueSubscribe("wake."+r.class+".*."+Cell{Memory: r.memory}.name()+".*", "workers", func(m *nats.Msg) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.dispatch(q, m.Subject)
			})
			if err != nil { // the connection is closed; Next notices
				ws.sub = nil
			}
			s.subs[r] = ws
		}
		ws.used++
	}
}

func (s *idlers) unuse(rs []rung) {
	for _, r := range rs {
		ws := s.subs[r]
		if ws.used--; ws.used > 0 {
			continue
		}
		delete(s.subs, r)
		if ws.sub != nil {
			_ = ws.sub.Unsubscribe() // the connection may be gone already
		}
	}
}

// dispatch gives a wake-up to a waiter, or passes it on if there is none for it.
func (s *idlers) dispatch(q *Queue, subject string) {
	cell, _, _, err := parseSubject(subject)
	if err != nil {
		return
	}
	var free *waiter
	suits := false
	for _, w := range s.waiters {
		if !slices.Contains(w.cells, cell) {
			continue
		}
		suits = true
		if len(w.wake) == 0 && (free == nil || w.rests) {
			if free = w; w.rests { // one that looks around finds the task by itself
				break
			}
		}
	}
	if free != nil {
		free.subject = subject
		free.wake <- cell // has room: all who send hold the lock
		return
	}
	if suits {
		if len(s.surplus) < maxSurplus {
			s.surplus = append(s.surplus, subject)
		}
		return
	}
	q.pass(subject)
}

func (s *idlers) rest(w *waiter, rests bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.rests = rests
}

// more returns a wake-up for which no waiter was free.
func (s *idlers) more(w *waiter) (Cell, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, subject := range s.surplus {
		if cell, _, _, err := parseSubject(subject); err == nil && slices.Contains(w.cells, cell) {
			s.surplus = slices.Delete(s.surplus, i, i+1)
			return cell, true
		}
	}
	return Cell{}, false
}

func (s *idlers) sawEmpty(c Cell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty[c] = time.Now()
}

func (s *idlers) knownEmpty(c Cell, fresh time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.empty[c]) < fresh
}

// pass hands a wake-up on to another process.
func (q *Queue) pass(subject string) {
	if !q.nc.IsConnected() {
		return // everybody looks around when the broker is back
	}
	_ = q.nc.Publish(subject, nil) // a hint
}

// wakeOthers says that a task which was given back waits again.
func (q *Queue) wakeOthers(taskSubject string) {
	if rest, found := strings.CutPrefix(taskSubject, "task."); found {
		q.pass("wake." + rest)
	}
}
