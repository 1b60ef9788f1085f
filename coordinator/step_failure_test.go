package coordinator

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/go-multierror"

	"github.com/shardpress/shardpress/internal/task"
)

func died(name, attempt string, memory int64) Failed {
	f := broke(name, attempt, task.Died)
	f.Failure.Memory = memory
	return f
}

func ofCopy(f Failed, c string) Failed {
	f.Failure.Copy = c
	return f
}

func TestPoison(t *testing.T) {
	t.Parallel()
	one := []Node{node("a/O")}
	const poison = "finish: a broke (task 610000000000 is poison..."
	play(t, []script{
		{"one class up, once", one, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{died("a", "1", 10), "noted, publish a up:1"},
			{broke("a", "2", task.Transient), "noted, publish a up:1"},
			{died("a", "3", 20), "noted final, withdraw a, " + poison},
		}},
		{"the class is enough", one, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{died("a", "1", 10), "noted, publish a up:1"},
			{Finished{made("a", "2")}, "place a2"},
		}},
		{"several copies in one class", one, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{Slow{letter("a"), "w1"}, "publish a copy:twin avoid:w1"},
			{ofCopy(died("a", "1", 10), task.CopyTwin), "noted"},
			{died("a", "2", 10), "noted, publish a up:1"},
			{died("a", "3", 10), "noted, publish a up:1"},
			{died("a", "4", 10), "noted, publish a up:1"},
			{died("a", "5", 10), "noted final, withdraw a, " + poison}, // there is no larger class
		}},
		{"a coordinator before had raised it", one, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{died("a", "1", 20), "noted final, withdraw a, " + poison},
		}},
		{"workers that do not say in which class", one, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{died("a", "1", 0), "noted, publish a up:1"},
			{died("a", "2", 0), "noted final, withdraw a, " + poison},
		}},
	})
}

func TestWhatIsNotHeldAgainstATask(t *testing.T) {
	t.Parallel()
	s := NewState([]Node{node("a"), node("b/O", "a")}, Options{Window: 2})
	s.Step(Started{Results: results(made("a", "1"))})
	for i := range storagePause - 1 {
		if got := tell(s.Step(broke("b", fmt.Sprint("s", i), task.Storage))); got != "noted" { // it is given back
			t.Fatalf("storage failure %d: %s", i, got)
		}
	}
	for _, step := range []scriptStep{
		{broke("b", "s1", task.Storage), ""}, // seen
		{broke("b", "t1", task.Transient), "noted, publish b"},
		{broke("b", "t2", task.Transient), "noted, publish b"},
		{broke("b", "x", task.Storage), "noted, pause"},
		{broke("b", "y", task.Storage), "noted"},
		{Missing{ID: letter("b")}, ""},
		{Resumed{}, "publish b"},
		{broke("b", "z", task.Storage), "noted"},
		{broke("b", "full", task.Full), "noted, pause"},
		{broke("b", "fuller", task.Full), "noted"},
		{Resumed{}, ""}, // it is in the queue
		{broke("b", "t3", task.Internal), "noted final, withdraw b, finish: b broke (task 620000000000 failed 3 times, last on worker w)"},
	} {
		if got := tell(s.Step(step.event)); got != step.want {
			t.Fatalf("%T %+v:\n got %s\nwant %s", step.event, step.event, got, step.want)
		}
	}
}

// A worker that never finds what is there must not keep the run from ending.
func TestAComplaintOfNothingEndsTheRun(t *testing.T) {
	t.Parallel()
	s := NewState([]Node{node("a"), node("b/O", "a")}, Options{Window: 2})
	s.Step(Started{Results: results(made("a", "1"))})
	for i := range maxVoid {
		if got := tell(s.Step(missedInput("b", fmt.Sprint(i), "a", "other"))); got != "noted, look a, publish b" {
			t.Fatalf("complaint %d: %s", i, got)
		}
	}
	if got := tell(s.Step(broke("b", "last", task.Lost))); got != "noted final, withdraw b, finish: b broke" {
		t.Error(got)
	}
}

func TestKeepGoing(t *testing.T) {
	t.Parallel()
	nodes := []Node{node("a"), node("b/O", "a"), node("c/O", "b"), node("d/O"), node("e"), node("f/O", "e"), node("g/O", "a", "e")}
	options := Options{KeepGoing: true, Window: 9}
	play(t, []script{
		{"a task takes those that need it along", nodes, options, []scriptStep{
			{Started{}, "publish a, publish d, publish e"},
			{broke("e", "1", task.Invalid), "noted final, withdraw e"},
			{Finished{made("d", "1")}, "place d1"},
			{Finished{made("a", "1")}, "publish b"},
			{broke("b", "1", task.Invalid), "noted final, withdraw b"},
			{Finished{made("b", "2", "a")}, ""}, // too late
			{Placed{letter("d"), "1"}, "finish: 2 errors occurred:\n\t* b broke; tasks left out that need task 620000000000: 1\n\t* e broke; tasks left out that need task 650000000000: 2\n\n"},
		}},
		{"nothing is made for those", nodes[4:], options, []scriptStep{
			{Started{}, "finish: plan contradicts itself..."},
		}},
		{"what only they need is withdrawn", []Node{node("a"), node("b"), node("c/O", "a", "b")}, options, []scriptStep{
			{Started{}, "publish a, publish b"},
			{broke("a", "1", task.Invalid), "noted final, withdraw a, withdraw b, finish: a broke; tasks left out that need task 610000000000: 1"},
		}},
		{"who has read it already goes on", []Node{node("a/E"), node("b/O", "a")}, options, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b"},
			{Broken{letter("a"), "1", "gone"}, "publish a repair:1"},
			{broke("a", "2", task.Invalid), "noted final, withdraw a"},
			{Finished{made("b", "1", "a")}, "place b1"},
			{Placed{letter("b"), "1"}, "finish: a broke"},
		}},
		{"who has not does not", []Node{node("a/E"), node("b/O", "a")}, options, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b"},
			{Broken{letter("a"), "1", "gone"}, "publish a repair:1"},
			{broke("a", "2", task.Invalid), "noted final, withdraw a"},
			{Missing{ID: letter("b")}, "finish: a broke; tasks left out that need task 610000000000: 1"},
		}},
		{"without it the first ends the run", nodes, Options{}, []scriptStep{
			{Started{}, "publish a, publish d, publish e"},
			{broke("e", "1", task.Invalid), "noted final, withdraw a, withdraw d, withdraw e, finish: e broke"},
		}},
	})
}

func TestFailuresAreTaskErrors(t *testing.T) {
	t.Parallel()
	s := NewState([]Node{node("a/O"), node("b/O"), node("c/O", "a")}, Options{Window: 9, KeepGoing: true})
	s.Step(Started{})
	s.Step(broke("b", "1", task.Changed))
	effects := s.Step(broke("a", "1", task.Invalid))
	err := effects[len(effects)-1].(Finish).Err
	var all *multierror.Error
	var first *TaskError
	if !errors.As(err, &all) || len(all.Errors) != 2 || !errors.As(all.Errors[0], &first) || first.Failure.ID != letter("a") || !errors.Is(err, task.ErrInvalid) {
		t.Errorf("%v", err)
	}
}
