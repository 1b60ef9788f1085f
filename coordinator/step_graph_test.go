package coordinator

import (
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	play(t, []script{
		{
			"inputs first", []Node{node("a"), node("b/O", "a")}, Options{}, []scriptStep{
				{Started{}, "publish a"},
				{Finished{made("a", "1")}, "publish b"},
				{Finished{made("b", "1", "a")}, "place b1"},
				{Placed{letter("b"), "1"}, "assemble"},
				{Assembled{}, "finish"},
				{Finished{made("b", "1", "a")}, ""},
			},
		}, {
			"chain tasks first", []Node{node("a/O"), node("b/C"), node("c/O", "b")}, Options{Window: 1}, []scriptStep{
				{Started{}, "publish b"},
				{Finished{made("b", "1")}, "publish a"},
				{Finished{made("a", "1")}, "place a1, publish c"},
			},
		}, {
			"a window that changes", []Node{node("a/O"), node("b/O"), node("c/O"), node("d/O")}, Options{Window: 1}, []scriptStep{
				{Started{}, "publish a"},
				{Resized{3}, "publish b, publish c"},
				{Resized{1}, ""},
				{Finished{made("a", "1")}, "place a1"},
				{Finished{made("b", "1")}, "place b1"},
				{Finished{made("c", "1")}, "place c1, publish d"},
			},
		}, {
			"nothing is published in a pause", []Node{node("a/O"), node("b/O")}, Options{Window: 1}, []scriptStep{
				{Started{}, "publish a"},
				{Paused{"the store is full"}, ""},
				{Finished{made("a", "1")}, "place a1"},
				{Missing{ID: letter("b")}, ""},
				{Resumed{}, "publish b"},
				{Paused{"the store is full"}, ""},
				{Missing{ID: letter("b")}, ""},
				{Resumed{}, "publish b"},
			},
		}, {
			"who is stopped withdraws", []Node{node("a/O"), node("b/O"), node("c/O")}, Options{Window: 2}, []scriptStep{
				{Started{}, "publish a, publish b"},
				{Stopped{errCancelled}, "withdraw a, withdraw b, finish: cancelled by somebody"},
				{Finished{made("a", "1")}, ""},
			},
		}, {
			"a plan out of order", []Node{node("b/O", "a"), node("a")}, Options{}, []scriptStep{
				{Started{}, "finish: plan contradicts itself..."},
			},
		},
	})
}

func TestResumeWalksBackFromTheOutputs(t *testing.T) {
	t.Parallel()
	chain := []Node{node("a/E"), node("b/E", "a"), node("c/O", "b"), node("x", "a")}
	a, b, c := made("a", "1"), made("b", "1", "a"), made("c", "1", "b")
	present := func(names ...string) map[task.ID]bool {
		m := map[task.ID]bool{}
		for _, n := range names {
			m[letter(n)] = true
		}
		return m
	}
	play(t, []script{
		{"nothing is there, and nobody wants x", chain, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{Finished{a}, "publish b"},
			{Finished{b}, "expire a1, publish c"},
			{Finished{c}, "expire b1, place c1"},
		}},
		{"the output is there", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b, c), Present: present("c")}, "place c1"},
			{Placed{letter("c"), "1"}, "assemble"},
		}},
		{"what expired is made again for a reader", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b), Present: present()}, "publish a repair:1"},
			{Finished{a}, ""}, // the result whose bytes are gone
			{Finished{made("a", "2")}, "publish b repair:1"},
			{Finished{made("b", "2", "a")}, "expire a2, publish c"},
		}},
		{"a reader that has what it reads needs no more", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b), Present: present("b")}, "publish c"},
		}},
		{"bytes that nobody told of count as there", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b)}, "expire a1, publish c"},
		}},
		{"an output without bytes", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b, c), Present: present("b")}, "publish c repair:1"},
			{Finished{made("c", "2", "b")}, "expire b1, place c2"},
		}},
		{"what an earlier coordinator left expires", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b, c), Present: present("a", "b", "c")}, "place c1, expire a1, expire b1"},
		}},
		{"what is not needed any more is withdrawn", chain, Options{}, []scriptStep{
			{Started{Results: results(a, b), Present: present()}, "publish a repair:1"},
			{Finished{c}, "withdraw a, place c1"}, // another coordinator had its inputs
		}},
	})
}

func TestRepair(t *testing.T) {
	t.Parallel()
	nodes := []Node{node("a/E"), node("b/O", "a"), node("c/O", "a")}
	play(t, []script{
		{"an input is lost", nodes, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{Finished{made("a", "1")}, "publish b, publish c"},
			{missedInput("b", "2", "a", "1"), "noted, publish a repair:1"},
			{missedInput("c", "3", "a", "1"), "noted"},
			{Missing{ID: letter("b")}, ""},
			{Finished{made("a", "1")}, ""},
			{Finished{made("a", "4")}, "publish b, publish c"},
			{missedInput("c", "5", "a", "1"), "noted, look a, publish c"}, // late, and harmless
			{Finished{made("b", "6", "a")}, "place b6"},
			{Finished{made("c", "7", "a")}, "expire a4, place c7"},
		}},
		{"a result is lost that would name the attempt", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b, publish c"},
			{missedInput("b", "2", "a", ""), "noted, publish a repair:1"},
		}},
		{"a reader that has its bytes needs no repair", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b, publish c"},
			{missedInput("b", "2", "a", "1"), "noted, publish a repair:1"},
			{Finished{made("c", "3", "a")}, "place c3"},
			{Finished{made("b", "3", "a")}, "withdraw a, place b3"},
		}},
		{"an output is lost whose input has expired", nodes[:2], Options{}, []scriptStep{
			{Started{}, "publish a"},
			{Finished{made("a", "1")}, "publish b"},
			{Finished{made("b", "1", "a")}, "expire a1, place b1"},
			{Broken{letter("b"), "1", "gone"}, "publish a repair:1"},
			{Finished{made("a", "2")}, "publish b repair:1"},
			{Finished{made("b", "2", "a")}, "expire a2, place b2"},
		}},
		{"other bytes", nodes[:2], Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b"},
			{missedInput("b", "2", "a", "1"), "noted, publish a repair:1"},
			{Finished{made("a=x", "3")}, "withdraw a, finish: task 610000000000 gave other bytes when it was run again: first by worker w1 (attempt 1), now by worker w3 (attempt 3)..."},
		}},
		{"late news of the attempt before", []Node{node("a/O")}, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "place a1"},
			{Broken{letter("a"), "1", "gone"}, "publish a repair:1"},
			{Placed{letter("a"), "1"}, ""},
			{Finished{made("a", "2")}, "place a2"},
			{Broken{letter("a"), "1", "gone"}, ""},
			{Placed{letter("a"), "1"}, ""},
			{Assembled{}, ""},
			{Placed{letter("a"), "2"}, "assemble"},
			{Broken{letter("a"), "2", "gone"}, "publish a repair:2"},
			{Assembled{}, ""},
			{Finished{made("a", "3")}, "place a3"},
			{Placed{letter("a"), "3"}, "assemble"},
			{Assembled{}, "finish"},
		}},
		{"another coordinator's repair of what is placed", []Node{node("a/O"), node("b/O")}, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "place a1, publish b"},
			{Placed{letter("a"), "1"}, ""},
			{Finished{made("a", "2")}, "place a2"},
		}},
		{"lost again and again", nodes[:2], Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b"},
			{missedInput("b", "f1", "a", "1"), "noted, publish a repair:1"},
			{Finished{made("a", "2")}, "publish b"},
			{missedInput("b", "f2", "a", "2"), "noted, publish a repair:2"},
			{Finished{made("a", "3")}, "publish b"},
			{missedInput("b", "f3", "a", "3"), "noted, publish a repair:3"},
			{Finished{made("a", "4")}, "publish b"},
			{missedInput("b", "f4", "a", "4"), "noted, withdraw b, finish: output of task 610000000000 was lost or damaged 4 times, last: b broke: check the store's disk"},
		}},
		{"another coordinator's repair", nodes[:2], Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "publish b"},
			{missedInput("b", "2", "a", "9"), "noted, look a, publish b"},
			{Finished{made("a", "9")}, ""},
			{missedInput("b", "3", "a", "9"), "noted, publish a repair:9"},
		}},
	})
}

func TestStaleReaders(t *testing.T) {
	t.Parallel()
	nodes := []Node{node("a"), node("b", "a"), node("c/O", "b")}
	play(t, []script{
		{"what was made of other bytes goes, the last first", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b=y", "1", "x"), made("c=z", "1", "y"))}, "forget c1, forget b1, publish b"},
			{Finished{made("b=y", "1", "x")}, ""}, // late news
			{Finished{made("b", "2", "a")}, "publish c"},
			{Finished{made("c", "2", "b")}, "place c2"},
		}},
		{"an input that is made meanwhile", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("b=y", "1", "x")), Present: map[task.ID]bool{}}, "publish a"},
			{Finished{made("a", "2")}, "forget b1, publish b"}, // without expectation
			{Finished{made("b", "3", "a")}, "publish c"},
		}},
		{"a result without its inputs", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1"))}, "forget b1, publish b"},
			{Finished{made("b", "2", "a", "a")}, "forget b2, publish b"},
			{Finished{made("b", "3")}, "forget b3, publish b"},
			{Finished{made("b", "4")}, "forget b4, finish: task 620000000000 was made of other bytes than its inputs have, 4 times..."},
		}},
		{"read of bytes that have been dropped", []Node{node("a"), node("b", "a"), node("d/D")}, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b=y", "1", "x"), made("d", "1"))}, "forget b1, decide d1"}, // nobody wants b
			{Grown{ID: letter("d"), Attempt: "1", Nodes: []Node{node("c/O", "b")}, Results: results(made("c", "1", "y"))}, "forget c1, publish b"},
		}},
		{"another coordinator has seen it", []Node{node("a"), node("b/O", "a")}, Options{}, []scriptStep{
			{Started{Results: results(made("b=y", "1", "x")), Present: map[task.ID]bool{}}, "publish a"},
			{Finished{made("b", "2", "a")}, "forget b1, withdraw a, place b2"},
		}},
		{"a worker compared with the stale result", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b=y", "1", "x"))}, "forget b1, publish b"},
			{broke("b", "2", task.Nondeterministic), "noted, publish b"},
		}},
		{"a decision in doubt", []Node{node("a"), node("b/D", "a")}, Options{}, []scriptStep{
			{Started{Results: results(made("b", "1", "x"))}, "decide b1"},
			{Grown{ID: letter("b"), Attempt: "1", Nodes: []Node{node("c/O", "a")}}, "publish a"},
			{Finished{made("a", "1")}, "forget b1, finish: task 620000000000 by worker w1 decided upon bytes that other workers did not find..."},
		}},
	})
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	nodes := []Node{node("a/E"), node("b/D", "a")}
	play(t, []script{
		{"the next stage", nodes, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{Finished{made("a", "1")}, "publish b"},
			{Finished{made("b", "1", "a")}, "decide b1"}, // a waits: the next stage may want it
			{Grown{ID: letter("b"), Attempt: "0", Nodes: []Node{node("x/O")}}, ""},
			{Grown{ID: letter("b"), Attempt: "1", Nodes: []Node{node("c/O", "a")}}, "publish c"},
			{Grown{ID: letter("b"), Attempt: "1", Nodes: []Node{node("x/O")}}, ""},
			{Finished{made("c", "1", "a")}, "expire a1, place c1"},
			{Placed{letter("c"), "1"}, "assemble"},
		}},
		{"nobody wants what it read", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1", "a"))}, "decide b1"},
			{Grown{ID: letter("b"), Attempt: "1"}, "expire a1, assemble"},
		}},
		{"nothing expires before the plan is known, after a start", []Node{node("a/E"), node("b/D"), node("c/E")}, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1"), made("c", "1"))}, "decide b1"},
			{Grown{ID: letter("b"), Attempt: "1", Nodes: []Node{node("d/O", "a")}}, "expire c1, publish d"},
		}},
		{"its document is lost", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1", "a"))}, "decide b1"},
			{Broken{letter("b"), "1", "gone"}, "publish b repair:1"},
			{Finished{made("b", "2", "a")}, "decide b2"},
		}},
		{"equal decisions share", []Node{node("a/D"), node("b/D")}, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1"))}, "decide a1, decide b1"},
			{Grown{ID: letter("a"), Attempt: "1", Nodes: []Node{node("c/E"), node("d/O", "c")}}, "publish c"},
			{Finished{made("c", "1")}, "publish d"},
			{Grown{ID: letter("b"), Attempt: "1", Nodes: []Node{node("c/O"), node("d/O", "c")}, Results: results(made("c", "1"))}, "place c1"},
			{Finished{made("d", "1", "c")}, "place d1"},
		}},
		{"one that contradicts", []Node{node("a/D"), node("b/O")}, Options{}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "decide a1, publish b"},
			{Grown{ID: letter("a"), Attempt: "1", Nodes: []Node{node("b/O", "a")}}, "withdraw b, finish: plan contradicts itself: task 620000000000 has two lists of inputs"},
		}},
		{"what it was decided upon is being made", nodes, Options{}, []scriptStep{
			{Started{Results: results(made("b", "1", "a"))}, "decide b1"}, // nobody makes it
		}},
		{"and may turn out other", []Node{node("a"), node("b/D", "a"), node("c/O", "a")}, Options{}, []scriptStep{
			{Started{Results: results(made("b", "1", "a"))}, "publish a"},
			{Finished{made("a", "2")}, "decide b1, publish c"},
		}},
	})
}
