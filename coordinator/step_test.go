package coordinator

import (
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

// outputs are nodes of independent tasks.
func outputs(ids []task.ID) []Node {
	nodes := make([]Node, len(ids))
	for i, id := range ids {
		nodes[i] = Node{ID: id, Output: true}
	}
	return nodes
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
