package coordinator

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/task"
)

// A script is what happens to a run and what Step says to each: small stories, in
// which a node has one letter as its name.
type script struct {
	name    string
	nodes   []Node
	options Options // a window of 9 if none is given
	steps   []scriptStep
}

type scriptStep struct {
	event Event
	want  string // effects as tell writes them, in one line
}

func letter(name string) task.ID {
	var id task.ID
	copy(id[:], name)
	return id
}

// node is a node of that name and inputs. Letters behind a slash say what it is:
// Chain, Output, Expires, Decide.
func node(spec string, inputs ...string) Node {
	name, kind, _ := strings.Cut(spec, "/")
	n := Node{
		ID: letter(name), Memory: 10,
		Chain: strings.Contains(kind, "C"), Output: strings.Contains(kind, "O"),
		Expires: strings.Contains(kind, "E"), Decide: strings.Contains(kind, "D"),
	}
	for _, in := range inputs {
		n.Inputs = append(n.Inputs, letter(in))
	}
	return n
}

// made is a result: attempt 1 at a by worker w1 gives bytes "a". A name such as
// "a=x" gives other bytes; consumed are the bytes of its inputs.
func made(name, attempt string, consumed ...string) *task.Result {
	name, bytes, other := strings.Cut(name, "=")
	if !other {
		bytes = name
	}
	r := &task.Result{
		ID: letter(name), Attempt: attempt, Worker: "w" + attempt, Op: "encode@1",
		Outputs: []task.Written{{Name: "o", SHA256: bytes}},
		// A source is no input of a task and does not count.
		Consumed: []task.Consumed{{Source: &task.Source{Kind: "local", Value: "x"}}},
	}
	for _, c := range consumed {
		r.Consumed = append(r.Consumed, task.Consumed{SHA256: c})
	}
	return r
}

func results(all ...*task.Result) map[task.ID]*task.Result {
	m := map[task.ID]*task.Result{}
	for _, r := range all {
		m[r.ID] = r
	}
	return m
}

func broke(name, attempt string, kind task.Kind) Failed {
	return Failed{task.Failure{ID: letter(name), Attempt: attempt, Worker: "w", Kind: kind, Message: name + " broke"}}
}

func missedInput(name, attempt, producer, of string) Failed {
	f := broke(name, attempt, task.Lost)
	f.Failure.Producer = &task.Producer{ID: letter(producer), Attempt: of}
	return f
}

// tell writes effects as the scripts have them.
func tell(effects []Effect) string {
	name := func(id task.ID) string { return strings.TrimRight(string(id[:]), "\x00") }
	var all []string
	for _, e := range effects {
		var text string
		switch e := e.(type) {
		case Publish:
			text = "publish " + name(e.ID)
			for _, p := range []struct{ what, is string }{{"repair", e.Repair}, {"copy", e.Copy}, {"audit", e.Audit}, {"avoid", e.Avoid}} {
				if p.is != "" {
					text += " " + p.what + ":" + p.is
				}
			}
			if e.Escalate > 0 {
				text += fmt.Sprint(" up:", e.Escalate)
			}
		case Withdraw:
			text = "withdraw " + name(e.ID)
			if e.Copy != "" {
				text += " copy:" + e.Copy
			}
		case Noted:
			text = "noted"
			if e.Final {
				text += " final"
			}
		case Pause:
			text = "pause"
		case Look:
			text = "look " + name(e.ID)
		case Forget:
			text = "forget " + name(e.ID) + e.Attempt
		case Expire:
			text = "expire " + name(e.ID) + e.Attempt
		case Decide:
			text = "decide " + name(e.Result.ID) + e.Result.Attempt
		case Place:
			text = "place " + name(e.Result.ID) + e.Result.Attempt
		case Assemble:
			text = "assemble"
		case Finish:
			text = "finish"
			if e.Err != nil {
				text += ": " + e.Err.Error()
			}
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func play(t *testing.T, scripts []script) {
	t.Helper()
	for _, c := range scripts {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.options.Window == 0 {
				c.options.Window = 9
			}
			s := NewState(c.nodes, c.options)
			for i, step := range c.steps {
				got := tell(s.Step(step.event))
				want, whole := strings.CutSuffix(step.want, "...")
				if got != want && (!whole || !strings.HasPrefix(got, want)) {
					t.Fatalf("step %d, %T:\n got %s\nwant %s", i, step.event, got, step.want)
				}
			}
		})
	}
}
