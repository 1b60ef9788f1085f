package coordinator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/internal/task"
)

// world is a fleet in miniature: a store that may lose and damage what it holds, a
// queue that may lose, repeat and forget, workers that die, hang and come late.
// Time is the order of random choices.
type world struct {
	*rand.Rand
	simOptions
	plan  []*simNode
	quiet *quiet

	results  map[task.ID]*task.Result // result.json
	bytes    map[string]uint64        // output bytes by attempt
	failures map[task.ID][]task.Failure
	audits   map[task.ID]Audited
	deaths   map[task.ID][classes]int // records of attempts that only ever started
	full     bool                     // the store has no room
	placed   map[task.ID]uint64       // the checkpoint
	queue    []*message
	jobs     []*job
	coords   []*simCoordinator
	acked    []Publish // to be delivered once more, by mistake

	faults     int // that may still happen
	attempts   int
	executions int
	harmed     map[task.ID]int
	// What may cost executions: counts of events.
	copies, repeats, harms int
	cancelled              bool
	litter                 bool // the queue may hold what no coordinator remembers
	aged                   bool // the store began with results whose bytes were gone
	log                    func(format string, args ...any)
	tally                  map[string]int // how often what was met, where somebody counts
	problem                string
}

// simOptions are the kind of world.
type simOptions struct {
	coordinators int
	workers      int
	harm         bool // the store loses and damages
	badWorker    bool // worker 0 computes wrong, and all tasks are audited
	stale        bool // so did one of an earlier run
	Options
}

// message is a task in the queue. held is who has it; nobody, if that worker died or
// was silent for too long.
type message struct {
	Publish
	held *job
}

// job is an attempt under way, with what it has read.
type job struct {
	worker   int
	message  *message
	attempt  string
	consumed []task.Consumed
	value    uint64
}

func (w *world) count(what string, of any) {
	if w.tally != nil {
		w.tally[fmt.Sprintf("%s %T", what, of)]++
		if f, ok := of.(Failed); ok {
			w.tally["failure "+string(f.Failure.Kind)]++
		}
		if p, ok := of.(Publish); ok {
			w.tally["copy "+p.Copy]++
		}
	}
}

// trace tells what happens, where somebody listens.
func (w *world) trace(format string, args ...any) {
	if w.log == nil {
		return
	}
	for i, a := range args {
		if id, ok := a.(task.ID); ok {
			args[i] = id.Short()
		}
	}
	w.log(format, args...)
}

func workerName(i int) string { return fmt.Sprint("w", i) }

func (w *world) fail(format string, args ...any) {
	if w.problem == "" {
		w.problem = fmt.Sprintf(format, args...)
	}
}

func (w *world) fault() bool {
	if w.faults == 0 || w.IntN(4) > 0 {
		return false
	}
	w.faults--
	return true
}

func (w *world) find(id task.ID, c string) *message {
	for _, m := range w.queue {
		if m.ID == id && m.Copy == c {
			return m
		}
	}
	return nil
}

// offer is a publication: the queue has one message for each copy of a task.
func (w *world) offer(p Publish) {
	if w.find(p.ID, p.Copy) == nil {
		w.queue = append(w.queue, &message{Publish: p})
	}
}

// ack takes a message off the queue. Late ones do, too.
func (w *world) ack(m *message) {
	for i, q := range w.queue {
		if q.ID == m.ID && q.Copy == m.Copy {
			w.queue = slices.Delete(w.queue, i, i+1)
			return
		}
	}
}

// tell gives news to all coordinators, unless it is lost or comes twice.
func (w *world) tell(n news) {
	for _, c := range w.coords {
		if w.IntN(8) == 0 && w.fault() {
			continue
		}
		c.inbox = append(c.inbox, n)
		if w.IntN(8) == 0 {
			c.inbox = append(c.inbox, n)
		}
	}
}

// take lets a worker take a message that nobody holds.
func (w *world) take() {
	if len(w.queue) == 0 {
		return
	}
	m := w.queue[w.IntN(len(w.queue))]
	if m.held != nil {
		return
	}
	at := w.IntN(w.workers)
	if workerName(at) == m.Avoid {
		if w.workers > 1 || m.Copy == task.CopyTwin {
			return // left to another
		}
		w.audited(m, Audited{ID: m.ID, Attempt: m.Audit, Skipped: true})
		return
	}
	if m.Copy != task.CopyAudit {
		if r := w.results[m.ID]; r != nil && r.Attempt != m.Repair {
			w.ack(m)
			w.tell(news{done: m.ID})
			return
		}
	}
	n := w.quiet.nodes[m.ID]
	if n.fault == unworkable && w.IntN(2) == 0 { // seen before anything is read
		w.failed(m, w.attempt(), at, task.Invalid, nil)
		return
	}
	j := &job{worker: at, message: m, attempt: w.attempt()}
	inputs, ok := w.read(j, n)
	if !ok {
		return
	}
	if m.Copy != task.CopyAudit {
		deaths := w.deaths[m.ID]
		if deaths[m.Escalate] >= deadlyPoll {
			w.failed(m, j.attempt, at, task.Died, nil)
			return
		}
		careless := n.need > m.Escalate || n.fault == poisonous
		if careless || deaths[m.Escalate]+1 < deadlyPoll && w.fault() {
			deaths[m.Escalate]++ // dies: the message comes again
			w.deaths[m.ID] = deaths
			w.executions++
			w.repeats++
			w.trace("worker %d dies at %s", at, m.ID)
			return
		}
	}
	w.executions++
	if m.Copy == task.CopyAudit && n.need > m.Escalate { // dies as often as it takes
		w.failed(m, j.attempt, at, task.Died, nil)
		return
	}
	j.value = n.value(inputs)
	if w.badWorker && at == 0 {
		j.value ^= 1
	}
	m.held = j
	w.jobs = append(w.jobs, j)
	w.trace("worker %d begins %s %s%s", at, j.attempt, m.ID, m.Copy)
}

func (w *world) attempt() string {
	w.attempts++
	return fmt.Sprint("a", w.attempts)
}

// read checks every input as it reads it.
func (w *world) read(j *job, n *simNode) (values []uint64, ok bool) {
	m := j.message
	for _, in := range n.Inputs {
		r := w.results[in]
		lost := &task.Producer{ID: in}
		var v uint64
		if r != nil {
			lost.Attempt = r.Attempt
			if at, there := w.bytes[r.Attempt]; there && sum(at) == r.Outputs[0].SHA256 {
				v, lost = at, nil
			}
		}
		if lost != nil {
			w.failed(m, j.attempt, j.worker, task.Lost, lost)
			return nil, false
		}
		values = append(values, v)
		j.consumed = append(j.consumed, task.Consumed{SHA256: sum(v)})
	}
	return values, true
}

func (w *world) failed(m *message, attempt string, worker int, kind task.Kind, lost *task.Producer) {
	f := task.Failure{ID: m.ID, Attempt: attempt, Worker: workerName(worker), Kind: kind, Message: "node " + m.ID.Short() + " failed", Producer: lost, Copy: m.Copy}
	if kind == task.Died {
		f.Memory = int64(m.Escalate) + 1
	}
	w.failures[m.ID] = append(w.failures[m.ID], f)
	w.ack(m)
	w.tell(news{failure: &f})
	w.trace("%s fails: %s of %s%s", attempt, kind, m.ID, m.Copy)
}

// givenBack is an attempt that ends at the store's fault: the worker tells of it, and
// gives the message back.
func (w *world) givenBack(j *job, kind task.Kind) {
	m := j.message
	w.repeats++
	if m.held == j {
		m.held = nil
	}
	if m.Copy == task.CopyAudit {
		return
	}
	f := task.Failure{ID: m.ID, Attempt: j.attempt, Worker: workerName(j.worker), Kind: kind, Message: "store", Copy: m.Copy}
	w.tell(news{failure: &f})
	w.trace("%s is given back: %s of %s%s", j.attempt, kind, m.ID, m.Copy)
}

func (w *world) audited(m *message, a Audited) {
	w.audits[m.ID] = a
	w.ack(m)
	w.tell(news{audited: &a})
}

// work lets an attempt come to some end.
func (w *world) work() {
	if len(w.jobs) == 0 {
		return
	}
	i := w.IntN(len(w.jobs))
	j := w.jobs[i]
	m := j.message
	n := w.quiet.nodes[m.ID]
	audit := m.Copy == task.CopyAudit
	drop := func() { w.jobs = slices.Delete(w.jobs, i, i+1) }
	if m.held == j && !(audit && w.badWorker) && w.fault() {
		switch w.IntN(4) {
		case 0: // hangs or is cut off: the queue gives up on it, and it may come late
			m.held = nil
			w.repeats++
			w.trace("%s hangs", j.attempt)
			return
		case 1: // is told to stop, and gives its task back
			m.held = nil
			w.repeats++
			drop()
			return
		case 2:
			drop()
			w.givenBack(j, task.Storage)
			return
		case 3:
			counted := 0
			for _, f := range w.failures[m.ID] {
				if f.Kind == task.Transient && f.Copy != task.CopyAudit {
					counted++
				}
			}
			if !audit && counted+1 >= maxFailures {
				return
			}
			drop()
			w.repeats++
			w.failed(m, j.attempt, j.worker, task.Transient, nil)
			return
		}
	}
	drop()
	switch {
	case audit:
		a := Audited{ID: m.ID, Attempt: m.Audit, First: m.Avoid, Worker: workerName(j.worker)}
		switch r := w.results[m.ID]; {
		case r == nil || r.Attempt != m.Audit && w.IntN(2) == 0,
			!slices.EqualFunc(r.Consumed, j.consumed, sameConsumed): // of other inputs: says nothing of either worker
			a.Skipped = true
		default:
			a.Equal = r.Outputs[0].SHA256 == sum(j.value)
		}
		w.audited(m, a)
	case w.full:
		w.givenBack(j, task.Full)
	case n.fault == unworkable:
		w.failed(m, j.attempt, j.worker, task.Invalid, nil)
	case n.fault == failing:
		w.failed(m, j.attempt, j.worker, task.Internal, nil)
	default:
		w.commit(j)
	}
}

// commit puts a result if there is none, or only the one that is to be repaired.
func (w *world) commit(j *job) {
	m := j.message
	r := &task.Result{
		ID: m.ID, Attempt: j.attempt, Worker: workerName(j.worker), Op: "sim@1",
		Outputs: []task.Written{{Name: "o", SHA256: sum(j.value)}}, Consumed: j.consumed,
	}
	first := w.results[m.ID]
	if first != nil && !task.SameBytes(first, r) {
		w.failed(m, j.attempt, j.worker, task.Nondeterministic, nil)
		return
	}
	if first == nil || first.Attempt == m.Repair {
		w.bytes[j.attempt] = j.value
		w.results[m.ID] = r
	}
	if m.held == j || m.held == nil || w.IntN(2) == 0 {
		w.ack(m)
		if w.IntN(4) == 0 {
			w.acked = append(w.acked, m.Publish)
		}
	}
	w.trace("%s is done: %s", j.attempt, m.ID)
	w.tell(news{done: m.ID})
}

// mishap is what befalls store, queue and leases.
func (w *world) mishap() {
	if w.faults == 0 {
		return
	}
	w.faults--
	switch k := w.IntN(10); k {
	case 0, 1, 2, 7, 8, 9:
		w.damage(k % 7)
	case 3: // garbage is collected
		used := map[string]bool{}
		for _, r := range w.results {
			used[r.Attempt] = true
		}
		for attempt := range w.bytes {
			if !used[attempt] {
				delete(w.bytes, attempt)
			}
		}
	case 4: // the broker's store is wiped, or one message lost
		w.trace("queue loses messages")
		w.repeats += len(w.jobs)
		if w.IntN(2) == 0 {
			w.queue = nil
		} else if n := len(w.queue); n > 0 {
			i := w.IntN(n)
			w.queue = slices.Delete(w.queue, i, i+1)
		}
	case 5: // a message comes back that was acknowledged
		if n := len(w.acked); n > 0 {
			w.litter = true
			w.offer(w.acked[w.IntN(n)])
		}
	case 6:
		w.full = w.IntN(2) == 0
	}
}

// damage harms what a result names, or the result itself.
func (w *world) damage(kind int) {
	n := w.quiet.order[w.IntN(len(w.quiet.order))]
	r := w.results[n.ID]
	if !w.harm || r == nil || w.harmed[n.ID] >= 2 {
		return
	}
	w.harmed[n.ID]++
	w.harms++
	w.trace("harm %d to %s of %s", kind, r.Attempt, n.ID)
	switch kind {
	case 0:
		delete(w.bytes, r.Attempt)
	case 1:
		if _, there := w.bytes[r.Attempt]; there {
			w.bytes[r.Attempt] ^= 2
		}
	case 2:
		delete(w.results, n.ID)
	}
}

// intact reports whether the attempt's bytes are those that its result tells.
func (w *world) intact(r *task.Result) bool {
	v, there := w.bytes[r.Attempt]
	return there && sum(v) == r.Outputs[0].SHA256
}

func (w *world) describe() string {
	var b strings.Builder
	for _, m := range w.queue {
		fmt.Fprintf(&b, "\n  queued %s%s repair %q held %v", m.ID.Short(), m.Copy, m.Repair, m.held != nil)
	}
	for i, c := range w.coords {
		fmt.Fprintf(&b, "\n  coordinator %d: %+v, done %v", i, c.state.Counts(), c.done)
		for _, u := range c.state.units {
			fmt.Fprintf(&b, "\n    %s phase %d missing %d wants %d gone %v output %v inputs", u.ID.Short(), u.phase, u.missing, u.wants, u.gone, u.Output)
			for _, in := range u.inputs {
				fmt.Fprintf(&b, " %s", in.ID.Short())
			}
		}
	}
	return b.String()
}
