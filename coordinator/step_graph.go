package coordinator

import (
	"errors"
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/internal/task"
)

// errPlan marks a plan that contradicts itself.
var errPlan = errors.New("plan contradicts itself")

// add takes nodes into the plan and returns them as units. One that is known
// already, from another decision, only gains: whatever one of its plans wants of
// it, the run wants.
func (s *State) add(nodes []Node) ([]*unit, error) {
	added := make([]*unit, 0, len(nodes))
	for _, n := range nodes {
		u := s.index[n.ID]
		if u == nil {
			u = &unit{Node: n, pos: uint32(len(s.units)), missing: uint32(len(n.Inputs))}
			u.inputs = make([]*unit, len(n.Inputs))
			for i, id := range n.Inputs {
				p := s.index[id]
				if p == nil {
					return nil, fmt.Errorf("%w: task %s reads task %s, which does not stand before it", errPlan, n.ID.Short(), id.Short())
				}
				u.inputs[i] = p
			}
			for _, p := range u.inputs {
				p.readers = append(p.readers, u)
				if p.there() {
					u.missing--
				}
			}
			s.units = append(s.units, u)
			s.index[n.ID] = u
			s.counts[idle]++
			s.open += u.owes()
			if u.decides() {
				s.undecided++
			}
		} else {
			if !slices.Equal(u.Inputs, n.Inputs) {
				return nil, fmt.Errorf("%w: task %s has two lists of inputs", errPlan, n.ID.Short())
			}
			s.change(u, func() {
				u.Chain, u.Output, u.Decide = u.Chain || n.Chain, u.Output || n.Output, u.Decide || n.Decide
				u.Expires = u.Expires && n.Expires
			})
		}
		added = append(added, u)
	}
	return added, nil
}

// begin takes what the store holds of units and sets off what the wanted outputs
// among them need: it walks back from those, as far as results or bytes are
// missing that something on the way will read.
func (s *State) begin(units []*unit, results map[task.ID]*task.Result, present map[task.ID]bool, audits map[task.ID]Audited) {
	for _, u := range units {
		if a, in := audits[u.ID]; in {
			s.audited(u, a)
		}
		if r := results[u.ID]; r != nil && u.phase == idle {
			u.result, u.gone = r, present != nil && !present[u.ID]
			s.land(u)
			if u.there() {
				s.appear(u)
			}
		}
	}
	for _, u := range units {
		if in, stale := u.stale(); stale {
			s.forget(u, in)
		}
	}
	for _, u := range units {
		if u.phase == done && u.Output { // known before, and now wanted as an output
			s.set(u, placing)
		}
		if u.owes() > 0 && !u.there() {
			s.require(u)
		}
	}
	for _, u := range units {
		if u.there() {
			s.use(u)
		}
	}
	for _, u := range units {
		if u.result != nil {
			s.draw(u)
		}
		s.settle(u)
	}
	s.unswept = true
}

// sweep lets everything expire that nobody wants, once after a start: what an
// earlier coordinator did not live to see. It waits for the last stage of the plan,
// which a run that is resumed soon reaches, and which may want much of it.
func (s *State) sweep() {
	if !s.unswept || s.undecided > 0 || s.ended {
		return
	}
	s.unswept = false
	for _, u := range s.units {
		s.unwanted(u)
	}
}

// require has a task run whose bytes are not there, and the tasks whose bytes it
// needs for that.
func (s *State) require(u *unit) {
	if u.phase.running() || u.phase == failed {
		return
	}
	if u.result != nil {
		u.expect, u.result, u.gone = u.result, nil, false
	}
	s.set(u, waiting)
	s.settle(u)
	for _, p := range u.inputs {
		if !p.there() {
			s.require(p)
		}
	}
	s.offer(u)
}

// offer makes a waiting task ready if its inputs are there, or fails it with the
// input that never will be.
func (s *State) offer(u *unit) {
	if u.phase != waiting {
		return
	}
	if u.missing == 0 {
		s.set(u, ready)
		s.agenda.push(u)
		return
	}
	for _, p := range u.inputs {
		if p.phase == failed {
			s.drop(u, p.trouble.cause)
			return
		}
	}
}

// appear tells the readers of a task that its bytes are there.
func (s *State) appear(u *unit) {
	for _, c := range u.readers {
		if c.missing--; c.missing > 0 {
			continue
		}
		s.offer(c)
		if a := s.audits[c]; a != nil && !a.out {
			s.agenda.push(c)
		}
	}
}

// vanish tells the readers of a task that its bytes are not there any more.
func (s *State) vanish(u *unit) {
	for _, c := range u.readers {
		if c.missing++; c.phase == ready {
			s.set(c, waiting)
		}
	}
}

// settle has a task hold on to its inputs' bytes, or let go of them. It holds on
// while it is to be run, or audited, and until its decision is answered: the next
// stage often reads what the decision read.
func (s *State) settle(u *unit) {
	holds := u.phase.running() || s.audits[u] != nil || u.decides() && u.result != nil
	if u.holds == holds {
		return
	}
	u.holds = holds
	for _, p := range u.inputs {
		if holds {
			p.wants++
		} else if p.wants--; p.wants == 0 {
			s.unwanted(p)
		}
	}
}

// unwanted does what can be done about a task whose bytes nobody holds on to: they
// are let go of, or need not be made.
func (s *State) unwanted(u *unit) {
	switch {
	case u.wants > 0 || s.ended:
	case u.phase.running() && u.owes() == 0:
		s.release(u)
	case u.Expires && !u.Output && !u.Decide && u.there(): // a run that is resumed reads decisions again
		u.gone = true
		s.vanish(u)
		s.emit(Expire{ID: u.ID, Attempt: u.result.Attempt})
	}
}

// release gives up a task that is not needed any more.
func (s *State) release(u *unit) {
	s.recall(u)
	if u.expect == nil {
		s.set(u, idle)
	} else {
		u.result, u.expect, u.gone = u.expect, nil, true
		s.set(u, done)
	}
	s.settle(u)
}

// stale reports whether the task's result was made of other bytes than those that
// its inputs now have, and of which input.
//
// An operation is deterministic, so this is the trace of an input that was made
// twice with different bytes, of which one result was lost in between: a broken
// machine. Nobody can tell any more which of the two was right, but the bytes of
// the input that stand are the only ones that can be read and checked, and all
// readers must have read the same: so the reader is stale and not the input. Going
// from inputs to readers it also comes to an end; making an input again, in the
// hope of its former bytes, need not.
func (u *unit) stale() (*unit, bool) {
	r := u.known()
	if r == nil {
		return nil, false
	}
	n := 0
	for _, c := range r.Consumed {
		if c.Source != nil {
			continue
		}
		if n == len(u.inputs) {
			return nil, true
		}
		p := u.inputs[n]
		made := p.known()
		switch {
		case made != nil && !holds(made, c.SHA256), made == nil && p.trouble.doubts(c.SHA256):
			return p, true
		}
		n++
	}
	return nil, n != len(u.inputs)
}

// holds reports whether one of the result's outputs has that hash.
func holds(r *task.Result, sum string) bool {
	return slices.ContainsFunc(r.Outputs, func(w task.Written) bool { return w.SHA256 == sum })
}

// forget drops a stale result and has the task run again, if anybody needs it; any
// bytes may come of it. What was made of its bytes is in the same doubt and goes
// before it: as long as any of it stands, so does the trace that leads there, and a
// coordinator that dies in between leaves nothing in doubt that is not found again.
func (s *State) forget(u, input *unit) {
	for _, c := range u.readers {
		if c.known() != nil {
			s.forget(c, u)
		}
	}
	r, t := u.known(), s.troubled(u)
	t.stale = append(t.stale, r)
	if u.there() {
		s.vanish(u)
	}
	u.result, u.expect, u.gone, u.audited = nil, nil, false, false
	f := Forget{ID: u.ID, Attempt: r.Attempt}
	if input != nil {
		f.Input = input.ID
	}
	s.emit(f)
	switch {
	case len(t.stale) > maxRepairs:
		s.giveUp(u, fmt.Errorf("task %s was made of other bytes than its inputs have, %d times, last by worker %s: one of the machines is broken", u.ID.Short(), len(t.stale), r.Worker))
		return
	case u.Decide && u.grown:
		s.end(fmt.Errorf("task %s by worker %s decided upon bytes that other workers did not find, and part of the plan was made from what it decided: submit again; what is not in doubt is kept", u.ID.Short(), r.Worker))
		return
	case !u.phase.running():
		s.set(u, idle)
	}
	if u.wanted() {
		s.require(u)
	}
	s.void(u) // last, so that the inputs are held on to all the time
	s.settle(u)
}

// wanted reports whether the run has a use for the task's bytes.
func (u *unit) wanted() bool { return u.Output || u.wants > 0 || u.decides() }

// remake has a task run again whose bytes were lost, if anybody needs them.
func (s *State) remake(u *unit, reason string) {
	s.vanish(u)
	u.gone = true
	if !u.wanted() {
		return
	}
	t := s.troubled(u)
	t.repairs++
	if t.repairs > maxRepairs {
		s.giveUp(u, fmt.Errorf("output of task %s was lost or damaged %d times, last: %s: check the store's disk", u.ID.Short(), t.repairs, reason))
		return
	}
	s.require(u)
}

// grow takes in the stage that a decision leads to.
func (s *State) grow(e Grown) {
	u := s.index[e.ID]
	if u == nil || !u.Decide || u.grown || u.known() == nil || u.known().Attempt != e.Attempt {
		return
	}
	s.change(u, func() { u.grown = true })
	units, err := s.add(e.Nodes)
	if err != nil {
		s.end(err)
		return
	}
	s.begin(units, e.Results, e.Present, e.Audits)
	s.settle(u)
	s.unwanted(u)
}
