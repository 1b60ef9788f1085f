package coordinator

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"

	"github.com/shardpress/shardpress/internal/task"
)

// The simulator's flags: -sim.seed plays one schedule again and tells it,
// -sim.schedules plays more of them.
var (
	simSeed      = flag.Int64("sim.seed", -1, "play the simulator's schedule of this seed alone, and tell it")
	simSchedules = flag.Int("sim.schedules", 10_000, "schedules that the simulator plays")
)

var errCancelled = errors.New("cancelled by somebody")

// newWorld makes a world of the kind that the seed says.
func newWorld(seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 2))
	w := &world{
		Rand:     r,
		results:  map[task.ID]*task.Result{},
		bytes:    map[string]uint64{},
		failures: map[task.ID][]task.Failure{},
		audits:   map[task.ID]Audited{},
		deaths:   map[task.ID][classes]int{},
		placed:   map[task.ID]uint64{},
		harmed:   map[task.ID]int{},
	}
	w.plan = newSimPlan(r)
	w.coordinators = 1 + r.IntN(3)/2
	w.workers = 1 + r.IntN(5)
	w.AuditSeed = fmt.Sprint("audit", seed)
	if r.IntN(3) == 0 {
		w.faults = 0
	} else {
		w.faults = r.IntN(12 + 2*len(w.plan))
	}
	w.harm = r.IntN(3) > 0
	w.KeepGoing = r.IntN(2) == 0
	w.Audit = []float64{0, 0, 0.2, 1}[r.IntN(4)]
	switch r.IntN(6) {
	case 0: // some nodes are faulty
		for range 1 + r.IntN(3) {
			w.plan[r.IntN(len(w.plan))].fault = simFault(r.IntN(int(simFaults)))
		}
	case 1: // one worker's machine is broken
		w.badWorker, w.harm, w.Audit, w.workers, w.coordinators = true, false, 1, 2+r.IntN(3), 1
	case 2: // so was one of an earlier run
		w.stale, w.harm = true, false
	}
	for _, n := range w.plan {
		if r.IntN(8) == 0 && !w.badWorker { // an audit in the wrong memory class would be skipped
			n.need = needsMuch
		}
	}
	w.quiet = runQuietly(w.plan)
	if w.stale || r.IntN(3) == 0 {
		w.earlier()
	}
	for range w.coordinators {
		c := &simCoordinator{world: w}
		w.coords = append(w.coords, c)
	}
	return w
}

// earlier fills the store with what earlier runs left in it: results with and
// without their bytes, and, where a machine was broken, results that were made of
// other bytes than those that stand.
func (w *world) earlier() {
	wrong := map[task.ID]uint64{}
	for _, n := range w.quiet.order {
		if w.quiet.lost[n.ID] || w.IntN(3) == 0 && !w.stale {
			continue
		}
		var inputs []uint64
		var consumed []task.Consumed
		known, differs := true, false
		for _, in := range n.Inputs {
			v := w.quiet.values[in]
			if other, there := wrong[in]; there { // read before it was made again
				v, differs = other, true
			}
			known = known && w.results[in] != nil
			inputs = append(inputs, v)
			consumed = append(consumed, task.Consumed{SHA256: sum(v)})
		}
		v := n.value(inputs)
		if w.stale && w.IntN(4) == 0 {
			wrong[n.ID] = v ^ 4 // what the broken machine made of it; its result is gone
		} else if differs {
			wrong[n.ID] = v
			if !known {
				continue
			}
		}
		a := w.attempt()
		w.results[n.ID] = &task.Result{
			ID: n.ID, Attempt: a, Worker: "earlier", Op: "sim@1",
			Outputs: []task.Written{{Name: "o", SHA256: sum(v)}}, Consumed: consumed,
		}
		if !n.Expires && w.IntN(8) > 0 || n.Expires && w.IntN(2) == 0 {
			w.bytes[a] = v
		} else {
			w.aged = true
		}
	}
}

// play runs the world to its end.
func (w *world) play() {
	for _, c := range w.coords {
		c.start()
	}
	cancel := -1
	if w.IntN(10) == 0 {
		cancel = w.IntN(200)
	}
	for steps := 0; ; steps++ {
		if w.problem != "" {
			return
		}
		if !slices.ContainsFunc(w.coords, func(c *simCoordinator) bool { return !c.done }) {
			break
		}
		if steps > 50_000 {
			w.fail("no end:%s", w.describe())
			return
		}
		w.cancelled = w.cancelled || steps == cancel
		switch k := w.IntN(100); {
		case k < 30:
			w.work()
		case k < 58:
			w.take()
		case k < 89:
			w.coords[w.IntN(len(w.coords))].turn()
		case k < 92:
			w.coords[w.IntN(len(w.coords))].disturb()
		case k < 97:
			w.mishap()
		default: // a lease runs out of a message whose worker hangs
			if len(w.queue) > 0 && w.IntN(20) == 0 {
				w.queue[w.IntN(len(w.queue))].held = nil
				w.repeats++
			}
		}
	}
	w.judge()
}

// judge looks at how the run ended.
func (w *world) judge() {
	w.drain()
	for _, c := range w.coords {
		faulty := w.quiet.reported()
		switch {
		case c.err == nil:
			w.judgeResult(faulty)
		case w.cancelled && errors.Is(c.err, errCancelled):
		case w.badWorker && strings.Contains(c.err.Error(), "w0"), (w.stale || w.badWorker) && strings.Contains(c.err.Error(), "decided upon bytes that other workers did not find"):
		case w.badWorker && strings.Contains(c.err.Error(), "failed") && w.nondeterministic(c.err):
		case len(faulty) > 0:
			w.judgeFailure(c.err, faulty)
		default:
			w.fail("the run failed: %v", c.err)
		}
	}
	w.judgeCost()
}

// drain lets workers see to what is left in the queue: messages of tasks that are
// done, which somebody else has committed, and nothing that is still work.
func (w *world) drain() {
	w.faults = 0
	if w.litter && w.decides() {
		w.queue = nil // perhaps of a stage that only a dead coordinator knew; workers see that its run is over
	}
	before := w.executions
	left := w.describe()
	for range 1000 {
		w.take()
		w.work()
		for _, m := range w.queue {
			if m.held != nil && !slices.Contains(w.jobs, m.held) {
				m.held = nil // its worker has died
			}
		}
	}
	if n := len(w.queue); n > 0 || w.executions > before {
		w.fail("the end left work in the queue:%s", left)
	}
}

// nondeterministic reports whether the error is of workers that made other bytes
// than those that stood.
func (w *world) nondeterministic(err error) bool {
	var te *TaskError
	return errors.As(err, &te) && te.Failure.Kind == task.Nondeterministic
}

func (w *world) judgeResult(faulty []*simNode) {
	if len(faulty) > 0 {
		w.fail("the run ended well although %s is faulty", faulty[0].ID.Short())
	}
	for _, n := range w.quiet.order {
		if w.badWorker {
			if _, known := w.quiet.values[n.ID]; !known {
				continue
			}
		}
		if n.Output && w.placed[n.ID] != w.quiet.values[n.ID] {
			w.fail("task %s was placed as %x, a quiet process makes %x", n.ID.Short(), w.placed[n.ID], w.quiet.values[n.ID])
		}
	}
}

// judgeFailure looks at the error of a run with faulty nodes: without keep-going it
// is of one of them, with it of all in order, but for those which only such tasks
// need that fail anyway, and everything else stands.
func (w *world) judgeFailure(err error, faulty []*simNode) {
	all := []error{err}
	var m *multierror.Error
	if errors.As(err, &m) {
		all = m.Errors
	}
	var names []string
	for _, n := range faulty {
		names = append(names, n.ID.Short())
	}
	if !w.KeepGoing {
		if len(all) != 1 || !slices.ContainsFunc(names, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			w.fail("faulty are %v, the error is %v", names, err)
		}
		return
	}
	told := map[task.ID]bool{}
	next := 0 // of those that may be reported
	for _, err := range all {
		for next < len(faulty) && !strings.Contains(err.Error(), "node "+names[next]+" failed") {
			next++
		}
		if next == len(faulty) {
			w.fail("faulty are %v, in this order, the error is %v", names, all)
			return
		}
		n := faulty[next]
		told[n.ID] = true
		if strings.Contains(err.Error(), "is poison") != (n.fault == poisonous) {
			w.fail("fault %d of %s, the error is %v", n.fault, names[next], err)
		}
	}
	for _, n := range w.quiet.order {
		if (n.Output || n.Decide) && w.quiet.lost[n.ID] && !slices.ContainsFunc(w.quiet.causes[n.ID], func(id task.ID) bool { return told[id] }) {
			w.fail("nothing is said of why task %s was left out: %v", n.ID.Short(), err)
		}
	}
	for _, n := range w.quiet.order {
		if n.Output && !w.quiet.lost[n.ID] && w.placed[n.ID] != w.quiet.values[n.ID] {
			w.fail("task %s was not placed although it needs no faulty one", n.ID.Short())
		}
	}
}

// judgeCost bounds what was executed: every task once, and again for what happened.
func (w *world) judgeCost() {
	most := len(w.quiet.nodes) + w.copies + w.repeats
	for _, n := range w.quiet.order {
		if n.fault == failing {
			most += 2 * maxFailures
		}
	}
	// Lost bytes may be of a task all of whose ancestors have expired.
	again := w.harms
	if w.aged || w.coordinators > 1 {
		again++
	}
	if w.litter {
		again += 4
	}
	if w.decides() { // what one stage has let go of the next may want
		again++
	}
	most += again * len(w.quiet.nodes)
	if w.executions > most {
		w.fail("%d executions of %d tasks, at most %d are accounted for", w.executions, len(w.quiet.nodes), most)
	}
}

func (w *world) decides() bool {
	return slices.ContainsFunc(w.plan, func(n *simNode) bool { return n.Decide })
}

// TestSchedules plays made-up plans in made-up fleets: whatever happens, the run ends
// with the bytes that a quiet process makes, or with the error that its faults
// deserve.
func TestSchedules(t *testing.T) {
	t.Parallel()
	if *simSeed >= 0 {
		w := newWorld(uint64(*simSeed))
		w.log = t.Logf
		w.play()
		if w.problem != "" {
			t.Error(w.problem)
		}
		return
	}
	schedules := *simSchedules
	if testing.Short() {
		schedules /= 10
	}
	const parts = 8
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < schedules; seed += parts {
				w := newWorld(uint64(seed))
				w.play()
				if w.problem != "" {
					t.Fatalf("play it again by -run TestSchedules -sim.seed %d: %s", seed, w.problem)
				}
			}
		})
	}
}

// TestTheSimulatorMeetsEverything keeps the simulator honest: a schedule that never
// comes about tests nothing.
func TestTheSimulatorMeetsEverything(t *testing.T) {
	t.Parallel()
	tally := map[string]int{}
	for seed := range uint64(1500) {
		w := newWorld(seed)
		w.tally = tally
		w.play()
		for _, c := range w.coords {
			var one *TaskError
			var many *multierror.Error
			switch {
			case c.err == nil:
				tally["end well"]++
			case errors.Is(c.err, errCancelled):
				tally["end cancelled"]++
			case errors.As(c.err, &many):
				tally["end with several failures"]++
			case errors.As(c.err, &one):
				tally["end with a failure"]++
			default:
				tally["end with "+strings.Fields(c.err.Error())[0]]++
			}
		}
	}
	var missed []string
	for _, e := range []any{
		Started{}, Finished{}, Failed{}, Missing{}, Slow{}, Audited{}, Grown{}, Placed{}, Broken{}, Assembled{}, Resized{}, Paused{}, Resumed{}, Stopped{},
	} {
		if k := fmt.Sprintf("event %T", e); tally[k] < 8 {
			missed = append(missed, k)
		}
	}
	for _, e := range []any{Publish{}, Withdraw{}, Noted{}, Pause{}, Look{}, Forget{}, Expire{}, Decide{}, Place{}, Assemble{}, Finish{}} {
		if k := fmt.Sprintf("effect %T", e); tally[k] < 8 {
			missed = append(missed, k)
		}
	}
	for _, k := range []task.Kind{task.Invalid, task.Full, task.Transient, task.Internal, task.Died, task.Lost, task.Storage} {
		if k := "failure " + string(k); tally[k] < 8 {
			missed = append(missed, k)
		}
	}
	for _, k := range []string{"copy twin", "copy audit", "end well", "end cancelled", "end with several failures", "end with a failure", "end with audit"} {
		if tally[k] < 8 {
			missed = append(missed, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%7d %s", tally[k], k)
	}
	if len(missed) > 0 {
		t.Errorf("hardly ever met: %v", missed)
	}
}

// TestAQuietRunCostsNothingTwice plays plans without faults: every task that is
// needed runs once, what may expire has expired at the end, and the next run finds
// everything.
func TestAQuietRunCostsNothingTwice(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		w := newWorld(seed)
		w.faults, w.badWorker, w.harm, w.Audit = 0, false, false, 0
		w.results, w.bytes = map[task.ID]*task.Result{}, map[string]uint64{}
		w.coords = w.coords[:1]
		for _, n := range w.quiet.order {
			n.fault, n.need = sound, 0
		}
		w.quiet = runQuietly(w.plan)
		w.calm()
		if w.problem != "" {
			t.Fatalf("seed %d: %s", seed, w.problem)
		}
		most := len(w.quiet.order)
		if w.decides() {
			most *= 2
		}
		if w.executions > most {
			t.Errorf("seed %d: %d executions of %d tasks", seed, w.executions, most)
		}
		for _, u := range w.coords[0].state.units {
			if u.Expires && !u.Output && !u.Decide && u.result != nil {
				if _, there := w.bytes[u.result.Attempt]; there {
					t.Errorf("seed %d: bytes of task %s did not expire", seed, u.ID.Short())
				}
			}
		}
		before := maps.Clone(w.placed)
		w.executions, w.placed = 0, map[task.ID]uint64{}
		w.coords[0].done = false
		w.calm()
		if w.executions > 0 || !maps.Equal(before, w.placed) {
			t.Errorf("seed %d: the second run executes %d tasks", seed, w.executions)
		}
	}
}

// calm plays without disturbance.
func (w *world) calm() {
	c := w.coords[0]
	c.start()
	for steps := 0; !c.done && w.problem == ""; steps++ {
		if steps > 50_000 {
			w.fail("no end:%s", w.describe())
		}
		switch w.IntN(3) {
		case 0:
			w.take()
		case 1:
			w.work()
		case 2:
			c.turn()
		}
	}
	if c.err != nil {
		w.fail("the run failed: %v", c.err)
	}
	w.judgeResult(nil)
}
