package coordinator

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
)

// Phases of a live run.
const (
	PhasePlanning   = "planning"
	PhaseRunning    = "running"
	PhasePaused     = "paused"
	PhaseAssembling = "assembling"
)

// Board is where a coordinator tells of its runs, for whoever watches.
type Board interface {
	Announce(ctx context.Context, run string, event []byte) error
	PutSnapshot(ctx context.Context, run string, b []byte) error
	Workers(ctx context.Context) ([]*task.WorkerInfo, error)
}

// Snapshot is what a live run looks like just now.
type Snapshot struct {
	Run         string `json:"run"`
	Phase       string `json:"phase"`
	Reason      string `json:"reason,omitempty"` // of a pause
	Coordinator string `json:"coordinator"`
	Recipe      string `json:"recipe"`
	Model       string `json:"model"`
	Out         string `json:"out"`

	Tasks       SnapshotTasks `json:"tasks"`
	SourceBytes int64         `json:"source_bytes"`
	DoneBytes   int64         `json:"done_bytes"` // of source, reused ones and parts of running tasks included
	Elapsed     float64       `json:"elapsed_seconds"`
	Rate        float64       `json:"rate"`         // bytes of source a second, over the last while
	Left        float64       `json:"left_seconds"` // at that rate; -1 if nothing can be said

	Workers []SnapshotWorker `json:"workers"` // live ones that are at tasks of the run, by name
	Slowest []SnapshotTask   `json:"slowest"` // of the running tasks
	Waits   []SnapshotWait   `json:"waits"`   // what no live worker can take
	Updated time.Time        `json:"updated"` // by the coordinator's clock
}

// SnapshotTasks counts the tasks by where they are.
type SnapshotTasks struct {
	Total    int `json:"total"`
	Waiting  int `json:"waiting"` // for inputs, or for room in the queue
	Queued   int `json:"queued"`
	Running  int `json:"running"`
	Placing  int `json:"placing"` // have a result that is not in its place yet
	Done     int `json:"done"`    // output placed
	Reused   int `json:"reused"`
	Failures int `json:"failures"` // attempts
	Repaired int `json:"repaired"`
	Twins    int `json:"twins"`
	Audits   int `json:"audits"` // to come
}

// SnapshotWorker is a worker's part in a run.
type SnapshotWorker struct {
	Name     string  `json:"name"`
	Tasks    int     `json:"tasks"`
	Rate     float64 `json:"rate"` // bytes of source a second
	Memory   int64   `json:"memory"`
	Slots    int     `json:"slots"`
	Draining bool    `json:"draining,omitempty"`
}

// SnapshotTask is a task that is being worked on.
type SnapshotTask struct {
	Task    string  `json:"task"`
	File    string  `json:"file"`
	Worker  string  `json:"worker"`
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
	Of      int64   `json:"of"`
}

// SnapshotWait is tasks that wait for a kind of worker that is not there.
type SnapshotWait struct {
	Class  string `json:"class"`
	Op     string `json:"op"`
	Memory int64  `json:"memory"` // bytes that a worker must have for tasks
	Tasks  int    `json:"tasks"`
}

// board tells of one run. A board that nobody can reach is no failure of the run.
type board struct {
	queue Board
	name  string // of the coordinator
	run   string
	sub   *Submission
}

func (b *board) announce(ctx context.Context, u Update) {
	if b == nil {
		return
	}
	if text, err := json.Marshal(u); err == nil {
		_ = b.queue.Announce(ctx, b.run, text) // a hint: the store says it too
	}
}

// phase puts a snapshot that says nothing but the phase.
func (b *board) phase(ctx context.Context, phase string) {
	if b == nil {
		return
	}
	s := b.empty()
	s.Phase, s.Left = phase, -1
	b.post(ctx, s)
}

func (b *board) empty() Snapshot {
	asked := func(key string) string { v, _ := b.sub.Request[key].(string); return v }
	return Snapshot{
		Run: b.run, Coordinator: b.name, Recipe: asked("recipe"), Model: asked("model"), Out: asked("out"),
		Workers: []SnapshotWorker{}, Slowest: []SnapshotTask{}, Waits: []SnapshotWait{},
	}
}

func (b *board) post(ctx context.Context, s Snapshot) {
	s.Updated = time.Now()
	if text, err := json.Marshal(s); err == nil {
		_ = b.queue.PutSnapshot(ctx, b.run, text) // likewise
	}
}

// maxSlowest bounds the running tasks that a snapshot lists.
const maxSlowest = 8

// slowest lists the tasks that have been running for longest.
func slowest(tasks []SnapshotTask) []SnapshotTask {
	slices.SortFunc(tasks, func(a, b SnapshotTask) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Task, b.Task))
	})
	return tasks[:min(len(tasks), maxSlowest)]
}

// waits says which of the tasks that nobody is at no live worker can take. need is
// what they are offered as.
func waits(need []*task.Message, workers []*task.WorkerInfo) []SnapshotWait {
	counts := map[SnapshotWait]int{}
	for _, m := range need {
		cell, err := queue.CellOf(m)
		if err != nil {
			continue // refused when the plan was made
		}
		counts[SnapshotWait{Class: m.Class, Op: m.Op, Memory: cell.Memory}]++
	}
	var list []SnapshotWait
	for w, n := range counts {
		if !slices.ContainsFunc(workers, func(i *task.WorkerInfo) bool { return w.suits(i) }) {
			w.Tasks = n
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b SnapshotWait) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Op, b.Op), cmp.Compare(a.Memory, b.Memory))
	})
	return list
}

// suits reports whether a worker can take such tasks, now or when it has finished
// what it is at.
func (w SnapshotWait) suits(i *task.WorkerInfo) bool {
	return !i.Draining && i.Memory >= w.Memory && slices.Contains(i.Classes, w.Class) && (w.Op == "" || slices.Contains(i.Ops, w.Op))
}
