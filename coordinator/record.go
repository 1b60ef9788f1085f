package coordinator

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/shardpress/shardpress/internal/task"
)

// RecordVersion is the version of the run report's schema, docs/report.md.
const RecordVersion = 1

// States in which a run ends.
const (
	StateDone        = "done"
	StateFailed      = "failed"
	StateCancelled   = "cancelled"
	StateInterrupted = "interrupted" // stopped from outside: the same command goes on
	StateComplete    = "complete"    // nothing ran, the result stood already
)

// Record says how a run went: runs/<run>/state.json in the store, and the file that
// --report names. docs/report.md explains every field, and a test of cmd/shardpress
// keeps it so.
type Record struct {
	Version int    `json:"version"`
	Run     string `json:"run"`
	State   string `json:"state"`
	Error   string `json:"error"`
	// Invalid says that the error is one of what was asked for: the same again will
	// fail again, on any machine.
	Invalid bool            `json:"invalid"`
	Model   string          `json:"model"`
	Out     string          `json:"out"`
	Recipe  json.RawMessage `json:"recipe"` // canonical
	Workers []string        `json:"workers"`
	Totals  RecordTotals    `json:"totals"`
	Tasks   []RecordTask    `json:"tasks"`
}

// RecordTotals sums up the tasks: run, reused and unfinished ones are all of them.
type RecordTotals struct {
	Tasks       int     `json:"tasks"`
	Run         int     `json:"run"`
	Reused      int     `json:"reused"`
	Unfinished  int     `json:"unfinished"`
	Repaired    int     `json:"repaired"`
	Failures    int     `json:"failures"`
	Audited     int     `json:"audited"`
	Skipped     int     `json:"audits_skipped"`
	SourceBytes int64   `json:"source_bytes"`
	ResultBytes int64   `json:"result_bytes"`
	Elapsed     float64 `json:"elapsed_seconds"`
}

// RecordTask is one task of the run.
type RecordTask struct {
	Task        string  `json:"task"`
	File        string  `json:"file"`
	State       string  `json:"state"`
	Worker      string  `json:"worker"`
	Attempt     string  `json:"attempt"`
	Elapsed     float64 `json:"elapsed_seconds"`
	SourceBytes int64   `json:"source_bytes"`
}

// States of a task in a record.
const (
	TaskRun        = "run"
	TaskReused     = "reused"
	TaskUnfinished = "unfinished"
)

// NewRecord describes a run in which nothing has happened.
func NewRecord(run, model, out string, recipe json.RawMessage) *Record {
	return &Record{
		Version: RecordVersion, Run: run, Model: model, Out: out, Recipe: recipe,
		Workers: []string{}, Tasks: []RecordTask{},
	}
}

// summarize counts the tasks by how they came to an end, and lists them. A task
// whose bytes were lost and made again was run, whoever ran it first.
func (d *driver) summarize(state string, err error, elapsed time.Duration) {
	o := &d.outcome
	o.Elapsed, o.Executed, o.Reused = elapsed, 0, 0
	asked := func(key string) string { s, _ := d.Request[key].(string); return s }
	r := NewRecord(o.Run, asked("model"), asked("out"), d.recipe)
	r.State = state
	if err != nil {
		r.Error, r.Invalid = err.Error(), invalid(err)
	}
	for i, u := range d.Plan.Units {
		t := RecordTask{Task: u.ID.String(), File: u.File, State: TaskUnfinished, SourceBytes: u.Layout.SourceBytes}
		if res := d.finished(u.ID); res != nil {
			t.State, t.Worker, t.Attempt, t.Elapsed = TaskReused, res.Worker, res.Attempt, seconds(res.Elapsed)
			o.Reused++
			if d.fresh[i] || d.own[res.Attempt] {
				t.State = TaskRun
				o.Reused--
				o.Executed++
				if !slices.Contains(r.Workers, res.Worker) {
					r.Workers = append(r.Workers, res.Worker)
				}
			}
		}
		r.Tasks = append(r.Tasks, t)
	}
	slices.Sort(r.Workers)
	r.Totals = RecordTotals{
		Tasks: o.Tasks, Run: o.Executed, Reused: o.Reused, Unfinished: o.Tasks - o.Executed - o.Reused,
		Repaired: o.Repaired, Failures: o.Failures, Audited: o.Audited, Skipped: o.Skipped,
		SourceBytes: d.Plan.SourceBytes(), ResultBytes: d.Plan.ResultBytes(), Elapsed: seconds(elapsed),
	}
	o.Record = r
}

// attempts finds the attempts of this run that an earlier coordinator of it saw end.
func (d *driver) attempts(ctx context.Context) map[string]bool {
	own := map[string]bool{}
	for info, err := range d.Store.List(ctx, RunKey(d.outcome.Run, "attempts/")) {
		if err != nil {
			d.Log.Warn("attempts of the run not counted", "err", err)
			break
		}
		if _, attempt, ok := strings.Cut(path.Base(info.Key), "-"); ok {
			own[strings.TrimSuffix(attempt, ".json")] = true
		}
	}
	return own
}

// finished is the result that a task has, nil if it has none yet.
func (d *driver) finished(id task.ID) *task.Result {
	if d.state == nil {
		return nil
	}
	return d.state.Result(id)
}

// seconds is a duration to the microsecond.
func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }
