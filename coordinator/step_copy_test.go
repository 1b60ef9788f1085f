package coordinator

import (
	"fmt"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

func TestTwins(t *testing.T) {
	t.Parallel()
	two := []Node{node("a/O"), node("b/O")}
	slow := Slow{letter("a"), "w1"}
	play(t, []script{
		{"one at a time", two, Options{Window: 3}, []scriptStep{
			{Started{}, "publish a, publish b"},
			{slow, "publish a copy:twin avoid:w1"},
			{slow, ""},
			{Missing{letter("a"), task.CopyTwin}, ""},
			{slow, ""}, // there was one
			{broke("a", "1", task.Transient), "noted, publish a"},
			{slow, "publish a copy:twin avoid:w1"},
			{Finished{made("a", "2")}, "withdraw a, withdraw a copy:twin, place a2"},
			{slow, ""},
		}},
		{"the window bounds them", two, Options{Window: 2}, []scriptStep{
			{Started{}, "publish a, publish b"},
			{slow, ""},
			{Finished{made("b", "1")}, "place b1"},
			{slow, "publish a copy:twin avoid:w1"},
			{Stopped{errCancelled}, "withdraw a, withdraw a copy:twin, finish: cancelled by somebody"},
		}},
		{"one fails and the first goes on", two[:1], Options{}, []scriptStep{
			{Started{}, "publish a"},
			{slow, "publish a copy:twin avoid:w1"},
			{ofCopy(broke("a", "1", task.Transient), task.CopyTwin), "noted"},
			{Finished{made("a", "1")}, "place a1"},
		}},
		{"none in a pause, none of what is done or waits", []Node{node("a/O"), node("b/O", "a")}, Options{}, []scriptStep{
			{Started{}, "publish a"},
			{Slow{ID: letter("b")}, ""},
			{Paused{}, ""},
			{slow, ""},
		}},
	})
}

func TestAudits(t *testing.T) {
	t.Parallel()
	nodes := []Node{node("a/E"), node("b/O", "a")}
	all := Options{Audit: 1, Window: 9}
	audited := func(name, attempt string, equal bool) Audited {
		return Audited{ID: letter(name), Attempt: attempt, First: "w1", Worker: "w9", Equal: equal}
	}
	lostAudit := ofCopy(missedInput("b", "f", "a", "1"), task.CopyAudit)
	play(t, []script{
		{"the checkpoint waits for them, and their inputs stay", nodes, all, []scriptStep{
			{Started{}, "publish a"},
			{Finished{made("a", "1")}, "publish a copy:audit audit:1 avoid:w1, publish b"},
			{Finished{made("b", "2", "a")}, "place b2, publish b copy:audit audit:2 avoid:w2"},
			{Placed{letter("b"), "2"}, ""},
			{audited("a", "1", true), ""},
			{audited("a", "1", true), ""},
			{Missing{letter("b"), task.CopyAudit}, "publish b copy:audit audit:2 avoid:w2"},
			{audited("b", "2", true), "expire a1, assemble"},
		}},
		{"unequal", nodes, all, []scriptStep{
			{Started{}, "publish a"},
			{Finished{made("a", "1")}, "publish a copy:audit audit:1 avoid:w1, publish b"},
			{audited("a", "1", false), "withdraw a copy:audit, withdraw b, finish: audit of task 610000000000: worker w1 (attempt 1) and worker w9 made different bytes of it..."},
		}},
		{"unequal, and the coordinator died", nodes, all, []scriptStep{
			{Started{Results: results(made("a", "1")), Audits: map[task.ID]Audited{letter("a"): audited("a", "1", false)}}, "finish: audit of task 610000000000: worker w1 (attempt 1) and worker w9..."},
		}},
		{"in already", nodes, all, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1", "a")), Audits: map[task.ID]Audited{letter("a"): audited("a", "1", true), letter("b"): {Skipped: true}}}, "place b1, expire a1"},
		}},
		{"skipped for want of its input", nodes, all, []scriptStep{
			{Started{Results: results(made("a", "1"), made("b", "1", "a")), Present: map[task.ID]bool{letter("b"): true}}, "place b1, publish a copy:audit audit:1 avoid:w1"},
			{Audited{ID: letter("a"), Skipped: true}, ""},
			{Placed{letter("b"), "1"}, "assemble"},
		}},
		{"one that fails is skipped", nodes, all, []scriptStep{
			{Started{Results: results(made("b", "1", "a"), made("a", "1")), Audits: map[task.ID]Audited{letter("a"): audited("a", "1", true)}}, "place b1, publish b copy:audit audit:1 avoid:w1"},
			{lostAudit, "noted, withdraw b copy:audit, expire a1"},
		}},
		{"in the memory class that it took", []Node{node("a/O")}, all, []scriptStep{
			{Started{}, "publish a"},
			{died("a", "1", 10), "noted, publish a up:1"},
			{Finished{made("a", "2")}, "place a2, publish a copy:audit audit:2 avoid:w2 up:1"},
			{ofCopy(died("a", "3", 20), task.CopyAudit), "noted, withdraw a copy:audit"},
		}},
		{"none is left when the run ends", nodes[:1], Options{Audit: 1}, []scriptStep{
			{Started{Results: results(made("a", "1"))}, "expire a1, publish a copy:audit audit:1 avoid:w1"},
			{Stopped{errCancelled}, "withdraw a copy:audit, finish: cancelled by somebody"},
		}},
		{"their bytes have gone stale", []Node{node("a/O"), node("b/O", "a")}, all, []scriptStep{
			{Started{Results: results(made("b", "1", "x"))}, "place b1, publish a..."},
			{Finished{made("a", "2")}, "forget b1, place a2, publish a copy:audit audit:2 avoid:w2, publish b"},
			{audited("b", "1", false), ""},
			{Finished{made("b", "3", "a")}, "place b3, publish b copy:audit audit:3 avoid:w3"},
		}},
	})
}

// The same tasks are audited by every coordinator, about as many as asked for.
func TestShareOfAudits(t *testing.T) {
	t.Parallel()
	a, b := &State{Options: Options{Audit: 0.01, AuditSeed: "run"}}, &State{Options: Options{Audit: 0.01, AuditSeed: "other"}}
	n, same := 0, 0
	for i := range 100_000 {
		id := letter(fmt.Sprint(i))
		if a.chosen(id) {
			n++
			if b.chosen(id) {
				same++
			}
		}
	}
	if n < 900 || n > 1100 || same > 40 {
		t.Errorf("%d of 100000 are audited, %d of them with another seed too", n, same)
	}
	if all := (&State{Options: Options{Audit: 1}}); !all.chosen(letter("a")) {
		t.Error("a share of 1 leaves tasks out")
	}
}
