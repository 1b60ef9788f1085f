package coordinator

import (
	"runtime"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

// calibrated is a plan in the shape of a calibrated method: for each block its
// boundaries by part, statistics of each, their merge, and solves that read it.
func calibrated(blocks, parts, solves int) []Node {
	var nodes []Node
	add := func(n Node, inputs ...task.ID) task.ID {
		i := len(nodes)
		n.ID, n.Inputs = task.ID{byte(i), byte(i >> 8), byte(i >> 16), 1}, inputs
		nodes = append(nodes, n)
		return n.ID
	}
	boundaries := make([]task.ID, parts)
	for i := range boundaries {
		boundaries[i] = add(Node{Chain: true, Expires: true})
	}
	for range blocks {
		stats := make([]task.ID, parts)
		for i, b := range boundaries {
			stats[i] = add(Node{Expires: true}, b)
		}
		merged := add(Node{Chain: true}, stats...)
		for range solves {
			add(Node{Output: true}, merged)
		}
		for i, b := range boundaries {
			boundaries[i] = add(Node{Chain: true, Expires: true}, b)
		}
	}
	return nodes
}

// run plays a run in which every task succeeds, and counts what was published.
func runThrough(t testing.TB, s *State, started Started) (published, expired int) {
	t.Helper()
	queue := s.Step(started)
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		switch e := e.(type) {
		case Publish:
			if e.Copy != "" {
				queue = append(queue, s.Step(Audited{ID: e.ID, Attempt: e.Audit, Equal: true})...)
				continue
			}
			published++
			r := &task.Result{ID: e.ID, Attempt: "a", Outputs: []task.Written{{SHA256: "x"}}}
			for range s.index[e.ID].Inputs {
				r.Consumed = append(r.Consumed, task.Consumed{SHA256: "x"})
			}
			queue = append(queue, s.Step(Finished{Result: r})...)
		case Expire:
			expired++
		case Place:
			queue = append(queue, s.Step(Placed{ID: e.Result.ID, Attempt: "a"})...)
		case Assemble:
			queue = append(queue, s.Step(Assembled{})...)
		case Finish:
			if e.Err != nil {
				t.Fatal(e.Err)
			}
			return published, expired
		}
	}
	t.Fatal("the run has no end")
	return 0, 0
}

// TestManyNodes takes a moment, as long as no step goes over all nodes.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	nodes := calibrated(100, 64, 900) // 102 964 nodes; the last boundaries are for nobody
	s := NewState(nodes, Options{Window: 256, Audit: 0.01})
	published, expired := runThrough(t, s, Started{})
	if want := len(nodes) - 64; published != want || expired != want-100-100*900 {
		t.Errorf("%d of %d nodes were published, %d expired", published, want, expired)
	}
	// Another run finds everything, without the bytes that have expired.
	again := Started{Results: map[task.ID]*task.Result{}, Present: map[task.ID]bool{}}
	for _, u := range s.units {
		if u.result != nil {
			again.Results[u.ID] = u.result
			again.Present[u.ID] = u.there()
		}
	}
	if published, _ := runThrough(t, NewState(nodes, Options{Window: 256}), again); published != 0 {
		t.Errorf("%d nodes were published again", published)
	}
}

// BenchmarkStep measures all steps of a task's life, and what its node holds in
// memory besides its result.
func BenchmarkStep(b *testing.B) {
	nodes := calibrated(100, 64, 900)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := NewState(nodes, Options{Window: 256, Audit: 0.01})
		runtime.GC()
		runtime.ReadMemStats(&after)
		runThrough(b, s, Started{})
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(nodes)), "held-B/task")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(nodes)), "ns/task")
}
