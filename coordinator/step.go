package coordinator

import (
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/internal/task"
)

// Node is a task as the scheduler sees it.
type Node struct {
	ID task.ID
	// Inputs are the tasks whose outputs it reads, one for each such input of its
	// spec and in their order. They stand before it in the plan.
	Inputs []task.ID
	// Memory is the need in bytes for which the task is published. Published one
	// memory class higher, it is more.
	Memory int64
	// Chain puts the task before those on which nothing waits.
	Chain bool
	// Output is placed in the checkpoint: what the run is for.
	Output bool
	// Expires lets the output bytes be deleted once no unfinished task wants them.
	Expires bool
	// Decide asks for the next stage of the plan when its document is there.
	Decide bool
}

// Options are what a run decides besides its plan.
type Options struct {
	// Window bounds the messages of the run that are outstanding.
	Window int
	// KeepGoing carries on with what does not need a task that has failed.
	KeepGoing bool
	// Audit is the share of the tasks, from 0 to 1, that are run a second time and
	// compared. AuditSeed decides which.
	Audit     float64
	AuditSeed string
}

// The life of a task within a run. Only Step moves a task along.
//
//	idle ──needed──> waiting ──inputs there──> ready ──Publish──> queued
//	 ▲ (done, if only its bytes                  ▲ │ ▲               │ │
//	 │  were missing) ◄── not needed any more ───┼─┴─┼───────────────┘ │
//	 └───────────────────────────────────────────┘   └─ Failed,Missing ┤
//	                                                                   │ Finished
//	      done, or placing ──Placed──> placed  ◄───────────────────────┘
//	        │                            │
//	        └──────── Broken: waiting ───┘        failed: for good, with those that need it
type phase uint8

const (
	idle    phase = iota // without a result that anybody needs
	waiting              // to be run when its inputs are there
	ready                // to be published when the window has room
	queued               // published; a worker has it or will
	done                 // its result is known
	placing              // its result is known, its output is on its way to the checkpoint
	placed
	failed
	phases
)

// running reports whether the task is to be run or being run.
func (p phase) running() bool { return p == waiting || p == ready || p == queued }

// unit is a node with what is known of it. What few tasks have lies in maps of the
// state.
type unit struct {
	Node
	pos     uint32
	inputs  []*unit // as Node.Inputs
	readers []*unit // who has it among its inputs, as often as it is there
	// result is the current one, nil while it has none or while it is made again.
	result *task.Result
	// expect is a result whose bytes were lost. Whoever makes them again must arrive
	// at the same bytes.
	expect *task.Result
	// trouble is nil for a task that never had any.
	trouble *trouble
	missing uint32 // inputs whose bytes are not there
	wants   uint32 // readers that hold on to its bytes
	phase   phase
	twin    twin
	gone    bool // the result stands, its bytes do not
	holds   bool // it counts among its inputs' wants
	grown   bool // its decision was answered
	told    bool // the current result was given to Place
	asked   bool // likewise to Decide
	audited bool
}

// there reports whether the task's bytes can be read.
func (u *unit) there() bool { return u.result != nil && !u.gone }

// known is the result that tells the task's bytes, be they there or not.
func (u *unit) known() *task.Result {
	if u.result != nil {
		return u.result
	}
	return u.expect
}

// owes counts what the run cannot end without.
func (u *unit) owes() int {
	n := 0
	if u.phase == failed {
		return n
	}
	if u.Output && u.phase != placed {
		n++
	}
	if u.decides() {
		n++
	}
	return n
}

// decides reports whether a stage of the plan is still to come of the task.
func (u *unit) decides() bool { return u.Decide && !u.grown && u.phase != failed }

// State is the scheduling state of a run. It is a value of decisions only: it
// reads no clock, no store and no queue, so that every schedule can be replayed.
// A step costs what it changes, not what the run has.
type State struct {
	Options
	units  []*unit // in order of the plan
	index  map[task.ID]*unit
	agenda agenda
	out    []Effect // of the step under way

	counts    [phases]int
	open      int  // what units owe
	undecided int  // units that a stage of the plan is still to come of
	unswept   bool // what nobody wants has not expired yet
	twins     int  // outstanding
	audits    map[*unit]*audit
	auditsOut int                 // outstanding, of audits
	afloat    map[uint32]struct{} // units with anything outstanding
	fallen    []*unit             // failed for good by themselves
	skipped   int                 // audits that could not be made
	storage   int                 // storage failures since the last result
	paused    bool
	reason    string // why
	assembly  bool   // Assemble is under way
	ended     bool
	broken    error // of the plan
}

// NewState starts a run over the nodes in order of the plan. At most o.Window
// messages are outstanding at a time.
func NewState(nodes []Node, o Options) *State {
	o.Window = max(o.Window, 1)
	s := &State{
		Options: o,
		index:   make(map[task.ID]*unit, len(nodes)),
		audits:  map[*unit]*audit{},
		afloat:  map[uint32]struct{}{},
	}
	_, s.broken = s.add(nodes)
	return s
}

// Step takes note of an event and says what to do now.
func (s *State) Step(e Event) []Effect {
	if s.ended {
		return nil
	}
	s.out = nil
	s.take(e)
	s.sweep()
	s.refill()
	s.conclude()
	return s.out
}

func (s *State) take(e Event) {
	switch e := e.(type) {
	case Started:
		if s.broken != nil {
			s.end(s.broken)
			return
		}
		s.begin(s.units, e.Results, e.Present, e.Audits)
	case Finished:
		s.finished(e.Result)
	case Failed:
		s.failure(e.Failure)
	case Missing:
		s.lost(e)
	case Slow:
		s.slow(e)
	case Audited:
		s.compared(e)
	case Grown:
		s.grow(e)
	case Placed:
		if u := s.index[e.ID]; u != nil && u.phase == placing && u.result.Attempt == e.Attempt {
			s.set(u, placed)
		}
	case Broken:
		if u := s.index[e.ID]; u != nil && u.there() && u.result.Attempt == e.Attempt {
			s.remake(u, e.Reason)
		}
	case Assembled:
		if s.assembly {
			s.end(nil)
		}
	case Resized:
		s.Window = max(e.Window, 1)
	case Paused:
		s.pause(e.Reason)
	case Resumed:
		s.paused, s.reason, s.storage = false, "", 0
	case Stopped:
		s.end(e.Err)
	}
}

func (s *State) emit(e Effect) {
	if !s.ended {
		s.out = append(s.out, e)
	}
}

// pause publishes nothing until the run is resumed.
func (s *State) pause(reason string) { s.paused, s.reason = true, reason }

// set moves a unit along and keeps the counts.
func (s *State) set(u *unit, p phase) {
	s.change(u, func() {
		s.counts[u.phase]--
		u.phase = p
		s.counts[p]++
	})
	s.float(u)
}

// change changes what a unit owes.
func (s *State) change(u *unit, how func()) {
	s.open -= u.owes()
	if u.decides() {
		s.undecided--
	}
	how()
	s.open += u.owes()
	if u.decides() {
		s.undecided++
	}
}

// float notes whether the unit has anything outstanding.
func (s *State) float(u *unit) {
	a := s.audits[u]
	if u.phase == queued || u.twin == twinOut || a != nil && a.out {
		s.afloat[u.pos] = struct{}{}
	} else {
		delete(s.afloat, u.pos)
	}
}

// outstanding counts messages.
func (s *State) outstanding() int { return s.counts[queued] + s.twins + s.auditsOut }

// refill publishes what is most urgent while the window has room.
func (s *State) refill() {
	for !s.ended && !s.paused && s.outstanding() < s.Window && len(s.agenda) > 0 {
		u := s.units[s.agenda.pop()]
		switch a := s.audits[u]; {
		case u.missing > 0: // comes again with its inputs
		case u.phase == ready:
			s.set(u, queued)
			s.emit(s.publication(u))
		case a != nil && !a.out:
			s.publishAudit(u, a)
		}
	}
}

func (s *State) publication(u *unit) Publish {
	p := Publish{ID: u.ID}
	if u.expect != nil {
		p.Repair = u.expect.Attempt
	}
	if u.trouble != nil {
		p.Escalate = u.trouble.died
	}
	return p
}

// finished takes a result for a task that wants one.
func (s *State) finished(r *task.Result) {
	u := s.index[r.ID]
	if u == nil || u.trouble.forgot(r.Attempt) {
		return
	}
	known := u.known()
	if known != nil && known.Attempt == r.Attempt {
		return // seen again; if its bytes are lost, not their repair
	}
	switch {
	case !u.phase.running() && !u.there():
		return
	case known == nil:
	case !task.SameBytes(known, r):
		if s.contradict(u, r); s.ended || !u.phase.running() {
			return
		}
	case !u.phase.running(): // another coordinator had it made again: it is that result which stands
		u.result, u.told, u.asked = r, false, false
		s.land(u) // its output is placed again: what was placed may be a link to bytes that are garbage now
		s.use(u)
		return
	}
	s.storage = 0
	again := u.expect != nil
	if u.twin == twinOut {
		s.recall(u) // one of the two messages may be with a worker that hangs
	}
	u.twin = twinNone
	u.result, u.expect, u.gone, u.told, u.asked = r, nil, false, false, false
	s.land(u)
	s.appear(u)
	if in, stale := u.stale(); stale {
		s.forget(u, in)
		return
	}
	if !again { // else they are the bytes that its readers have seen
		for _, c := range u.readers {
			if in, stale := c.stale(); stale {
				s.forget(c, in)
			} else if c.there() {
				s.use(c)
			}
		}
	}
	s.draw(u)
	s.settle(u)
	s.use(u)
	s.unwanted(u)
}

// contradict deals with a result of other bytes than those that were known.
func (s *State) contradict(u *unit, r *task.Result) {
	first := u.known()
	if slices.EqualFunc(first.Consumed, r.Consumed, sameConsumed) {
		s.end(fmt.Errorf("task %s gave other bytes when it was run again: first by worker %s (attempt %s), now by worker %s (attempt %s): "+
			"one of the two machines is broken, or the operation %s is not deterministic", r.ID.Short(), first.Worker, first.Attempt, r.Worker, r.Attempt, r.Op))
		return
	}
	s.forget(u, nil) // it was made of other bytes: another coordinator has found the first one stale
}

func sameConsumed(a, b task.Consumed) bool { return a.SHA256 == b.SHA256 }

// land moves a unit that has a result to where it goes next.
func (s *State) land(u *unit) {
	if u.Output {
		s.set(u, placing)
	} else {
		s.set(u, done)
	}
}

// use sets off what a result is for, besides its readers.
func (s *State) use(u *unit) {
	if u.phase == placing && !u.told {
		u.told = true
		s.emit(Place{Result: u.result})
	}
	if u.decides() && !u.asked && !slices.ContainsFunc(u.inputs, (*unit).unknown) {
		u.asked = true
		s.emit(Decide{Result: u.result})
	}
}

// unknown reports whether the task's bytes will be known, but are not yet: what was
// decided upon may have been others, and a stage of the plan is not taken back.
func (u *unit) unknown() bool { return u.phase.running() && u.known() == nil }

// conclude assembles the checkpoint when nothing is owed any more. Then nothing is
// to be run either: who runs is an output or wanted by somebody who runs.
func (s *State) conclude() {
	switch {
	case s.ended:
	case s.open > 0 || len(s.audits) > 0:
		s.assembly = false
	case len(s.fallen) > 0:
		s.end(s.collect())
	case !s.assembly:
		s.assembly = true
		s.emit(Assemble{})
	}
}

// end withdraws what is outstanding and ends the run.
func (s *State) end(err error) {
	if s.ended {
		return
	}
	for _, p := range s.Outstanding() {
		s.emit(Withdraw{ID: p.ID, Copy: p.Copy})
	}
	s.emit(Finish{Err: err})
	s.ended = true
}

// Result returns the result that the task has, nil if it has none yet or its bytes
// were lost.
func (s *State) Result(id task.ID) *task.Result {
	if u := s.index[id]; u != nil {
		return u.result
	}
	return nil
}

// Results returns the results of a run whose outputs are all placed, in order of
// the plan.
func (s *State) Results() []*task.Result {
	results := make([]*task.Result, 0, s.counts[placed])
	for _, u := range s.units {
		if u.phase == placed {
			results = append(results, u.result)
		}
	}
	return results
}

// Queued lists the tasks that are published and not known to be done, in order of
// the plan.
func (s *State) Queued() []task.ID {
	var ids []task.ID
	for _, p := range s.Outstanding() {
		if p.Copy == "" {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// Outstanding lists all copies that are published and not known to be done, in
// order of the plan.
func (s *State) Outstanding() []Publish {
	at := make([]uint32, 0, len(s.afloat))
	for pos := range s.afloat {
		at = append(at, pos)
	}
	slices.Sort(at)
	var all []Publish
	for _, pos := range at {
		u := s.units[pos]
		if u.phase == queued {
			all = append(all, s.publication(u))
		}
		if u.twin == twinOut {
			all = append(all, s.twinOf(u, ""))
		}
		if a := s.audits[u]; a != nil && a.out {
			all = append(all, s.auditOf(u, a))
		}
	}
	return all
}

// Counts says how many tasks are where.
type Counts struct {
	Tasks   int // that the run has to do or had: all but those that nobody needs
	Waiting int // for inputs
	Ready   int // for room in the window
	Queued  int
	Done    int // have results, those placed among them
	Placed  int
	Failed  int // for good, or need one that has
	Twins   int // outstanding
	Audits  int // not in yet
	Skipped int // audits that nobody could make
	Paused  bool
	Reason  string // of the pause
}

// Counts counts without looking at every task.
func (s *State) Counts() Counts {
	c := s.counts
	return Counts{
		Tasks: len(s.units) - c[idle], Waiting: c[waiting], Ready: c[ready], Queued: c[queued],
		Done: c[done] + c[placing] + c[placed], Placed: c[placed], Failed: c[failed],
		Twins: s.twins, Audits: len(s.audits), Skipped: s.skipped, Paused: s.paused, Reason: s.reason,
	}
}
