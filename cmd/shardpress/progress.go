package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/shardpress/shardpress/coordinator"
)

// view shows a run while it goes on.
type view interface {
	planned(p *coordinator.Outline)
	update(u coordinator.Update)
	close()
}

// isTerminal reports whether bars can be drawn on w: on a terminal that says how
// high it is.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	_, height, err := term.GetSize(int(f.Fd()))
	return err == nil && height > 0
}

// tally counts bytes of source that are worked through, over attempts that may
// start again.
type tally struct {
	plan   *coordinator.Outline
	units  []int64 // bytes so far of each unit
	placed []bool  // by unit
	total  int64
	done   int // units that are placed
}

func (t *tally) start(p *coordinator.Outline) {
	t.plan, t.units, t.placed = p, make([]int64, len(p.Units)), make([]bool, len(p.Units))
}

func (t *tally) note(u coordinator.Update) {
	switch u.Kind {
	case coordinator.UpdateProgress:
		if n := min(u.Bytes, t.plan.Units[u.Unit].Source); n > t.units[u.Unit] {
			t.total += n - t.units[u.Unit]
			t.units[u.Unit] = n
		}
	case coordinator.UpdatePlaced:
		full := t.plan.Units[u.Unit].Source
		t.total += full - t.units[u.Unit]
		t.units[u.Unit] = full
		if !t.placed[u.Unit] {
			t.placed[u.Unit] = true
			t.done++
		}
	case coordinator.UpdateRepair:
		if t.placed[u.Unit] {
			t.placed[u.Unit] = false
			t.done--
		}
		t.total -= t.units[u.Unit]
		t.units[u.Unit] = 0
	}
}

// lines prints a line a task, for logs and files.
type lines struct {
	tally
	w     io.Writer
	begin time.Time
}

func newLines(w io.Writer) *lines { return &lines{w: w} }

func (l *lines) planned(p *coordinator.Outline) {
	l.start(p)
	fmt.Fprintf(l.w, "plan: %d tasks, %s of source, result %s in %d files, recipe %s as %s\n",
		len(p.Units), formatBytes(p.SourceBytes()), formatBytes(p.ResultBytes()), len(p.Units), p.Recipe, p.Format)
	for _, n := range p.Notes {
		fmt.Fprintf(l.w, "note: %s\n", n)
	}
}

func (l *lines) update(u coordinator.Update) {
	l.note(u)
	switch u.Kind {
	case coordinator.UpdateStarted:
		l.begin = time.Now()
		fmt.Fprintf(l.w, "run %s: %s\n", u.Run, outset(u))
	case coordinator.UpdatePlaced:
		left := ""
		if s := time.Since(l.begin).Seconds(); s > 1 && l.total > 0 && l.done < len(l.plan.Units) {
			rate := float64(l.total) / s
			left = fmt.Sprintf(", %s/s, %.0f s left", formatBytes(int64(rate)), float64(l.plan.SourceBytes()-l.total)/rate)
		}
		fmt.Fprintf(l.w, "[%d/%d] %s%s\n", l.done, len(l.plan.Units), l.plan.Units[u.Unit].File, left)
	case coordinator.UpdateFailed:
		if u.Final {
			return
		}
		fmt.Fprintf(l.w, "attempt at %s failed on worker %s: %s\n", l.plan.Units[u.Unit].File, u.Worker, u.Message)
	case coordinator.UpdateRepair:
		fmt.Fprintf(l.w, "making %s again: %s\n", l.plan.Units[u.Unit].File, u.Message)
	case coordinator.UpdatePaused:
		fmt.Fprintf(l.w, "paused until the store works again: %s\n", u.Message)
	case coordinator.UpdateResumed:
		fmt.Fprintln(l.w, "the store works again")
	}
}

func (l *lines) close() {}

// outset says what there is to do. Results that are there already may be of this
// very command, which was interrupted, or of another one that shares work with it.
func outset(u coordinator.Update) string {
	switch u.Reused {
	case 0:
		return fmt.Sprintf("%d tasks", u.Tasks)
	case u.Tasks:
		return fmt.Sprintf("%d of %d tasks are in the store already, none left to do", u.Reused, u.Tasks)
	}
	return fmt.Sprintf("%d of %d tasks are in the store already, %d left to do", u.Reused, u.Tasks, u.Tasks-u.Reused)
}

// bars draws a progress bar, for people who watch.
type bars struct {
	lines
	progress *mpb.Progress
	bar      *mpb.Bar
	tasks    atomic.Int64 // placed ones, for the bar, which is drawn by a goroutine of its own
}

func newBars(w io.Writer) *bars { return &bars{lines: lines{w: w}} }

func (b *bars) update(u coordinator.Update) {
	switch u.Kind {
	case coordinator.UpdateStarted:
		b.lines.update(u)
		tasks := len(b.plan.Units)
		b.progress = mpb.New(mpb.WithOutput(b.w), mpb.WithWidth(40))
		// A bar that is made with its total ends when its bytes are there, before the
		// last task is placed.
		b.bar = b.progress.AddBar(0,
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
				return fmt.Sprintf("%d/%d tasks ", b.tasks.Load(), tasks)
			})),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f / % .1f "),
				decor.AverageSpeed(decor.SizeB1024(0), "% .1f "),
				decor.Name("left "), decor.AverageETA(decor.ET_STYLE_GO),
			))
		b.bar.SetTotal(b.plan.SourceBytes(), false)
	case coordinator.UpdateFailed, coordinator.UpdateRepair, coordinator.UpdatePaused, coordinator.UpdateResumed:
		above := b.lines
		above.w = b.progress
		above.update(u)
		b.tally = above.tally
		b.draw()
	case coordinator.UpdateProgress, coordinator.UpdatePlaced:
		b.note(u)
		b.draw()
	case coordinator.UpdateFinished:
		if b.bar != nil && u.Message == "" {
			b.bar.SetTotal(-1, true)
		}
	}
}

func (b *bars) draw() {
	b.tasks.Store(int64(b.done))
	b.bar.SetCurrent(b.total)
}

func (b *bars) close() {
	if b.bar == nil {
		return
	}
	b.bar.Abort(false) // leaves the line as it is; that of a run that ended well is full already
	b.progress.Wait()
}

// jsonLines prints every update as a line of JSON, for programs.
type jsonLines struct{ e *json.Encoder }

func newJSONLines(w io.Writer) *jsonLines { return &jsonLines{json.NewEncoder(w)} }

func (j *jsonLines) print(v any) {
	// A reader that went away must not stop the run.
	_ = j.e.Encode(v)
}

func (j *jsonLines) planned(p *coordinator.Outline) {
	j.print(map[string]any{"kind": "planned", "tasks": len(p.Units), "source_bytes": p.SourceBytes(), "result_bytes": p.ResultBytes(), "notes": p.Notes})
}

func (j *jsonLines) update(u coordinator.Update) { j.print(u) }

func (j *jsonLines) close() {}
