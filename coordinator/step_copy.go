package coordinator

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/shardpress/shardpress/internal/task"
)

// twin is the second message of a straggler: who is first wins.
type twin uint8

const (
	twinNone  twin = iota
	twinOut        // outstanding
	twinSpent      // gone; there is one for each series of attempts
)

// slow gives a straggler a twin if the window has room: at a run's end, where
// stragglers matter, it has.
func (s *State) slow(e Slow) {
	u := s.index[e.ID]
	if u == nil || u.phase != queued || u.twin != twinNone || u.missing > 0 || s.paused || s.outstanding() >= s.Window {
		return
	}
	u.twin = twinOut
	s.twins++
	s.float(u)
	s.emit(s.twinOf(u, e.Worker))
}

func (s *State) twinOf(u *unit, avoid string) Publish {
	p := s.publication(u)
	p.Copy, p.Avoid = task.CopyTwin, avoid
	return p
}

// dropTwin notes that a twin is not outstanding any more.
func (s *State) dropTwin(u *unit) {
	if u.twin == twinOut {
		u.twin = twinSpent
		s.twins--
		s.float(u)
	}
}

// recall takes all messages of a task but its audit off the queue.
func (s *State) recall(u *unit) {
	if u.phase == queued {
		s.emit(Withdraw{ID: u.ID})
	}
	if u.twin == twinOut {
		s.emit(Withdraw{ID: u.ID, Copy: task.CopyTwin})
	}
	s.dropTwin(u)
	u.twin = twinNone
}

// audit is a task that is run a second time to compare its bytes.
type audit struct {
	attempt, worker string // the first
	out             bool   // outstanding
}

func (s *State) auditOf(u *unit, a *audit) Publish {
	p := s.publication(u)
	p.Repair, p.Copy, p.Audit, p.Avoid = "", task.CopyAudit, a.attempt, a.worker
	return p
}

// chosen decides by seed and ID alone whether a task is audited, so that every
// coordinator chooses the same ones.
func (s *State) chosen(id task.ID) bool {
	if s.Audit <= 0 {
		return false
	}
	h := sha256.New()
	_, _ = io.WriteString(h, s.AuditSeed)
	h.Write(id[:])
	draw := binary.BigEndian.Uint64(h.Sum(nil)) >> 11 // as many bits as a float64 holds
	return float64(draw) < s.Audit*math.Exp2(53)
}

// draw plans the audit of a task that has a result, if it is chosen and was not
// audited yet. It holds on to the task's inputs; where they are gone without
// being made again it is skipped.
func (s *State) draw(u *unit) {
	if u.audited || s.ended || s.audits[u] != nil || !s.chosen(u.ID) {
		return
	}
	s.audits[u] = &audit{attempt: u.result.Attempt, worker: u.result.Worker}
	for _, p := range u.inputs {
		if !p.there() && !p.phase.running() {
			s.skip(u)
			return
		}
	}
	s.settle(u)
	if u.missing == 0 {
		s.agenda.push(u)
	}
}

func (s *State) publishAudit(u *unit, a *audit) {
	a.out = true
	s.auditsOut++
	s.float(u)
	s.emit(s.auditOf(u, a))
}

// recallAudit takes an audit for lost: it is published again.
func (s *State) recallAudit(u *unit, a *audit) {
	a.out = false
	s.auditsOut--
	s.float(u)
	for _, p := range u.inputs {
		if p.phase == failed {
			s.skip(u)
			return
		}
	}
	if u.missing == 0 {
		s.agenda.push(u)
	}
}

// compared takes note of what an audit found. An audit of an earlier attempt at the
// same bytes is as good.
func (s *State) compared(e Audited) {
	u := s.index[e.ID]
	if u == nil || s.audits[u] == nil || u.trouble.forgot(e.Attempt) {
		return
	}
	s.audited(u, e)
	if !s.ended {
		s.closeAudit(u)
	}
}

// audited takes note of an audit that is in, of this coordinator or of one before
// it.
func (s *State) audited(u *unit, e Audited) {
	if !e.Equal && !e.Skipped {
		first := e.First
		if a := s.audits[u]; a != nil {
			first = a.worker
		}
		s.end(fmt.Errorf("audit of task %s: worker %s (attempt %s) and worker %s made different bytes of it: one of the two machines is broken%s; "+
			"take it out of the fleet and run again without reuse", e.ID.Short(), first, e.Attempt, e.Worker, detail(e.Detail)))
		return
	}
	u.audited = true
	if e.Skipped {
		s.skipped++
	}
}

func detail(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// skip gives an audit up; it is only counted.
func (s *State) skip(u *unit) {
	u.audited = true
	s.skipped++
	s.void(u)
}

// void ends an audit before its time, and takes it off the queue.
func (s *State) void(u *unit) {
	if a := s.audits[u]; a != nil {
		if a.out {
			s.emit(Withdraw{ID: u.ID, Copy: task.CopyAudit})
		}
		s.closeAudit(u)
	}
}

func (s *State) closeAudit(u *unit) {
	if s.audits[u].out {
		s.auditsOut--
	}
	delete(s.audits, u)
	s.float(u)
	s.settle(u)
}
