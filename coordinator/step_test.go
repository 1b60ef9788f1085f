package coordinator

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

// simulation is a fleet in miniature: a queue that may lose and repeat, a store
// whose objects may be damaged, workers that fail, a coordinator that is killed
// and starts again from the store alone. Time is the order of random choices.
type simulation struct {
	*rand.Rand
	ids      []task.ID
	state    *State
	store    map[task.ID]*task.Result // result.json
	damaged  map[task.ID]bool         // outputs that no longer are what the result says
	queue    map[task.ID]string       // outstanding, with the attempt to repair
	inbox    []Event
	out      map[task.ID]string // placed checkpoint: hash by task
	faults   int                // faults that may still happen
	attempts int
	failures int // below the number that ends a run
	damages  int // likewise
	done     bool
	err      error
}

// outputs are nodes of independent tasks.
func outputs(ids []task.ID) []Node {
	nodes := make([]Node, len(ids))
	for i, id := range ids {
		nodes[i] = Node{ID: id, Output: true}
	}
	return nodes
}

func hash(id task.ID) string { return fmt.Sprintf("%064x", id[0]) }

func newSimulation(seed uint64) *simulation {
	s := &simulation{
		Rand:    rand.New(rand.NewPCG(seed, 1)),
		store:   map[task.ID]*task.Result{},
		damaged: map[task.ID]bool{},
		queue:   map[task.ID]string{},
		out:     map[task.ID]string{},
	}
	for i := range 1 + s.IntN(8) {
		s.ids = append(s.ids, task.ID{byte(i + 1)})
	}
	s.faults = s.IntN(6)
	s.restart()
	return s
}

// restart is a coordinator that knows only what the store holds.
func (s *simulation) restart() {
	s.inbox = nil
	s.state = NewState(outputs(s.ids), Options{Window: 1 + s.IntN(4)})
	results := map[task.ID]*task.Result{}
	for id, r := range s.store {
		results[id] = r
	}
	s.act(s.state.Step(Started{Results: results}))
}

func (s *simulation) fault() bool {
	if s.faults == 0 || s.IntN(4) > 0 {
		return false
	}
	s.faults--
	return true
}

func (s *simulation) act(effects []Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case Publish:
			if _, there := s.queue[e.ID]; !there { // one message a task
				s.queue[e.ID] = e.Repair
			}
		case Place:
			id := e.Result.ID
			if s.damaged[id] {
				s.inbox = append(s.inbox, Broken{ID: id, Attempt: e.Result.Attempt, Reason: "simulated"})
				continue
			}
			s.out[id] = e.Result.Outputs[0].SHA256
			s.inbox = append(s.inbox, Placed{ID: id, Attempt: e.Result.Attempt})
		case Assemble:
			broken := false
			for _, r := range s.state.Results() {
				if s.damaged[r.ID] { // the checkpoint links to the store's bytes
					s.inbox = append(s.inbox, Broken{ID: r.ID, Attempt: r.Attempt, Reason: "simulated"})
					broken = true
				}
			}
			if !broken {
				s.inbox = append(s.inbox, Assembled{})
			}
		case Finish:
			s.done, s.err = true, e.Err
		}
	}
}

// work lets a worker take a task from the queue.
func (s *simulation) work(id task.ID) {
	repair := s.queue[id]
	if s.fault() {
		switch s.IntN(3) {
		case 0: // worker dies: the task stays in the queue
			return
		case 1: // worker reports a failure that may pass
			if s.failures++; s.failures >= maxFailures {
				return
			}
			delete(s.queue, id)
			s.attempts++
			s.inbox = append(s.inbox, Failed{task.Failure{ID: id, Kind: task.Transient, Attempt: fmt.Sprint("f", s.attempts)}})
			return
		case 2: // the queue loses the task
			delete(s.queue, id)
			return
		}
	}
	r := s.store[id]
	if r == nil || r.Attempt == repair {
		s.attempts++
		r = &task.Result{ID: id, Attempt: fmt.Sprint("a", s.attempts), Outputs: []task.Written{{Name: "o", SHA256: hash(id)}}}
		s.store[id] = r
		s.damaged[id] = false
	}
	delete(s.queue, id)
	s.inbox = append(s.inbox, Finished{Result: r})
	if s.IntN(4) == 0 { // told twice
		s.inbox = append(s.inbox, Finished{Result: r})
	}
	if s.IntN(4) == 0 && s.faults > 0 { // the news is lost
		s.faults--
		s.inbox = s.inbox[:len(s.inbox)-1]
	}
}

// reconcile is what the coordinator does from time to time.
func (s *simulation) reconcile() {
	for _, id := range s.ids {
		if _, outstanding := s.queue[id]; outstanding {
			continue
		}
		if r := s.store[id]; r != nil {
			s.inbox = append(s.inbox, Finished{Result: r})
		}
		s.inbox = append(s.inbox, Missing{ID: id})
	}
}

func (s *simulation) step() {
	switch s.IntN(6) {
	case 0, 1:
		for _, id := range s.ids {
			if _, there := s.queue[id]; there && s.IntN(2) == 0 {
				s.work(id)
				return
			}
		}
	case 2, 3:
		if n := len(s.inbox); n > 0 {
			i := s.IntN(n) // any order
			e := s.inbox[i]
			s.inbox = append(s.inbox[:i:i], s.inbox[i+1:]...)
			s.act(s.state.Step(e))
		}
	case 4:
		if len(s.inbox) == 0 { // it comes seldom beside the news
			s.reconcile()
		}
	case 5:
		if !s.fault() {
			return
		}
		if s.IntN(2) == 0 {
			s.restart()
			return
		}
		id := s.ids[s.IntN(len(s.ids))]
		if s.damages++; s.store[id] != nil && s.damages <= maxRepairs {
			s.damaged[id] = true
		}
	}
}

func TestEveryScheduleEndsWithTheSameCheckpoint(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4000) {
		s := newSimulation(seed)
		for steps := 0; !s.done; steps++ {
			if steps > 20_000 {
				t.Fatalf("seed %d: no end after %d steps", seed, steps)
			}
			s.step()
		}
		if s.err != nil {
			t.Fatalf("seed %d: %v", seed, s.err)
		}
		for _, id := range s.ids {
			if s.out[id] != hash(id) {
				t.Fatalf("seed %d: task %v placed as %q", seed, id[0], s.out[id])
			}
		}
	}
}

func TestOtherBytesOfARepairEndTheRun(t *testing.T) {
	t.Parallel()
	id := task.ID{1}
	first := &task.Result{ID: id, Attempt: "a", Worker: "alice", Outputs: []task.Written{{Name: "o", SHA256: "1"}}}
	other := &task.Result{ID: id, Attempt: "b", Worker: "bob", Outputs: []task.Written{{Name: "o", SHA256: "2"}}}
	s := NewState(outputs([]task.ID{id}), Options{Window: 1})
	s.Step(Started{Results: map[task.ID]*task.Result{id: first}})
	effects := s.Step(Broken{ID: id, Attempt: "a", Reason: "gone"})
	if len(effects) != 1 || effects[0] != (Publish{ID: id, Repair: "a"}) {
		t.Fatalf("repair: %v", effects)
	}
	if effects := s.Step(Finished{Result: first}); len(effects) != 0 {
		t.Fatalf("the lost result is taken for its repair: %v", effects)
	}
	effects = s.Step(Finished{Result: other})
	if len(effects) == 0 {
		t.Fatal("other bytes are taken")
	}
	f, ok := effects[len(effects)-1].(Finish)
	if !ok || f.Err == nil {
		t.Fatalf("%v", effects)
	}
	for _, name := range []string{"alice", "bob"} {
		if !strings.Contains(f.Err.Error(), name) {
			t.Errorf("error does not name worker %s: %v", name, f.Err)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	id := task.ID{1}
	fail := func(attempt string, kind task.Kind) Failed {
		return Failed{task.Failure{ID: id, Attempt: attempt, Kind: kind, Message: "it broke"}}
	}
	for _, c := range []struct {
		name   string
		events []Failed
		ends   bool
	}{
		{"invalid ends at once", []Failed{fail("1", task.Invalid)}, true},
		{"changed source ends at once", []Failed{fail("1", task.Changed)}, true},
		{"one transient does not", []Failed{fail("1", task.Transient)}, false},
		{"the same attempt counts once", []Failed{fail("1", task.Transient), fail("1", task.Transient), fail("1", task.Transient)}, false},
		{"three attempts do", []Failed{fail("1", task.Transient), fail("2", task.Internal), fail("3", task.Transient)}, true},
	} {
		s := NewState(outputs([]task.ID{id}), Options{Window: 1})
		s.Step(Started{})
		ended := false
		for _, e := range c.events {
			for _, effect := range s.Step(e) {
				if f, ok := effect.(Finish); ok {
					ended = true
					if f.Err == nil || !strings.Contains(f.Err.Error(), "it broke") {
						t.Errorf("%s: error %v", c.name, f.Err)
					}
				}
			}
		}
		if ended != c.ends {
			t.Errorf("%s: ended = %v", c.name, ended)
		}
	}
}

func TestWindowBoundsWhatIsOutstanding(t *testing.T) {
	t.Parallel()
	ids := []task.ID{{1}, {2}, {3}, {4}, {5}}
	s := NewState(outputs(ids), Options{Window: 2})
	effects := s.Step(Started{})
	if len(effects) != 2 {
		t.Fatalf("started with %d publishes", len(effects))
	}
	effects = s.Step(Finished{Result: &task.Result{ID: ids[0], Attempt: "a"}})
	if len(effects) != 2 {
		t.Fatalf("finish of one: %v", effects)
	}
	if p, ok := effects[1].(Publish); !ok || p.ID != ids[2] {
		t.Errorf("next published: %v", effects[1])
	}
}

// TestManyTasks takes a moment, as long as no step goes over all tasks.
func TestManyTasks(t *testing.T) {
	t.Parallel()
	ids := make([]task.ID, 200_000)
	for i := range ids {
		ids[i] = task.ID{byte(i), byte(i >> 8), byte(i >> 16)}
	}
	s := NewState(outputs(ids), Options{Window: 7})
	queue := s.Step(Started{})
	published := 0
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		switch e := e.(type) {
		case Publish:
			if e.ID != ids[published] {
				t.Fatalf("publication %d is of task %v", published, e.ID)
			}
			published++
			queue = append(queue, s.Step(Finished{Result: &task.Result{ID: e.ID, Attempt: "a"}})...)
		case Place:
			queue = append(queue, s.Step(Placed{ID: e.Result.ID, Attempt: "a"})...)
		case Assemble:
			queue = append(queue, s.Step(Assembled{})...)
		case Finish:
			if e.Err != nil || published != len(ids) {
				t.Errorf("%d published, %v", published, e.Err)
			}
			return
		}
	}
	t.Error("the run has no end")
}
