package coordinator

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/shardpress/shardpress/internal/task"
)

// live is what can be seen of a run while it goes on. It is made of hints, and
// decides nothing but what is shown and which task is given to a second worker.
type live struct {
	d       *driver
	begin   time.Time
	phase   string
	reason  string
	offered map[task.ID]bool      // published by this process and not finished
	at      map[task.ID]*liveTask // being worked on
	pace    pace
	rate    meter
	fleet   []*task.WorkerInfo
	seen    time.Time // when the fleet was asked
	asking  bool
	alone   time.Time // since when no other worker could make the audits
}

type liveTask struct {
	worker string
	since  time.Time
	bytes  int64
	slow   bool // said so
}

func newLive(d *driver) *live {
	return &live{d: d, begin: time.Now(), phase: PhaseRunning, offered: map[task.ID]bool{}, at: map[task.ID]*liveTask{}}
}

func (l *live) published(p Publish) {
	if p.Copy == "" {
		l.offered[p.ID] = true
	}
}

func (l *live) began(n *task.Notice) { l.task(n) }

func (l *live) progress(n *task.Notice) {
	t := l.task(n)
	if n.Bytes > t.bytes {
		t.bytes = n.Bytes
	}
}

// task is what is known of the task that a notice is about. Of several workers at
// it the first counts.
func (l *live) task(n *task.Notice) *liveTask {
	t := l.at[n.ID]
	if t == nil {
		t = &liveTask{worker: n.Worker, since: time.Now()}
		l.at[n.ID] = t
	}
	return t
}

func (l *live) finished(n *task.Notice) { delete(l.at, n.ID) }

// gone forgets an attempt; of any worker if none is named.
func (l *live) gone(id task.ID, worker string) {
	if t := l.at[id]; t != nil && (worker == "" || t.worker == worker) {
		delete(l.at, id)
	}
	if worker == "" {
		delete(l.offered, id)
	}
}

func (l *live) took(id task.ID, r *task.Result) {
	l.pace.add(l.d.Plan.Units[l.d.index[id]].Layout.SourceBytes, r.Elapsed)
	delete(l.at, id)
	delete(l.offered, id)
}

// meter is a rate over the last while.
type meter struct {
	times []time.Time
	bytes []int64
}

// meterSpan is how far back a rate looks.
const meterSpan = 30 * time.Second

func (m *meter) add(now time.Time, total int64) (rate float64) {
	m.times, m.bytes = append(m.times, now), append(m.bytes, total)
	for len(m.times) > 2 && now.Sub(m.times[0]) > meterSpan {
		m.times, m.bytes = m.times[1:], m.bytes[1:]
	}
	if s := now.Sub(m.times[0]).Seconds(); s > 0 {
		return float64(max(total-m.bytes[0], 0)) / s
	}
	return 0
}

// second does what is done every second: it shows the run, looks for stragglers,
// and fits the window to the fleet.
func (d *driver) second(ctx context.Context) []Effect {
	l := d.live
	var effects []Effect
	for id, t := range l.at { //nolint:gocritic // order decides nothing: each is judged for itself
		if !t.slow && l.pace.straggles(d.Plan.Units[d.index[id]].Layout.SourceBytes, time.Since(t.since)) {
			t.slow = true
			effects = append(effects, d.state.Step(Slow{ID: id, Worker: t.worker})...)
		}
	}
	if d.board == nil {
		return effects
	}
	effects = append(effects, d.lonely()...)
	if !l.asking && time.Since(l.seen) > 2*time.Second {
		l.asking = true
		d.spawn(func() func(context.Context) []Effect {
			fleet, err := d.board.queue.Workers(ctx)
			return func(context.Context) []Effect {
				l.asking, l.seen = false, time.Now()
				if err != nil {
					return nil
				}
				l.fleet = fleet
				return d.state.Step(Resized{Window: d.window(slots(fleet))})
			}
		})
	}
	s := l.snapshot()
	d.spawn(func() func(context.Context) []Effect {
		d.board.post(ctx, s)
		return nothing
	})
	return effects
}

// meet asks who is there before the first task is published, so that a large fleet
// does not begin with a small window.
func (l *live) meet(ctx context.Context) {
	if l.d.board == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, meetWithin)
	defer stop()
	if fleet, err := l.d.board.queue.Workers(ctx); err == nil { // else it is asked again soon
		l.fleet, l.seen = fleet, time.Now()
	}
}

// meetWithin bounds what a run waits for at its beginning that it could do without.
const meetWithin = 2 * time.Second

func slots(fleet []*task.WorkerInfo) (n int) {
	for _, w := range fleet {
		n += min(w.Slots, 1<<12)
	}
	return n
}

// Bounds of the messages of a run that are queued or in flight, so that a run of
// 100 000 tasks neither fills the queue nor starves other runs.
const (
	minOutstanding = 256
	maxOutstanding = 1 << 14
)

// window is how many messages of the run may be outstanding: enough that no worker
// waits for the coordinator, and a share beside other runs, since a queue's cells
// are served in the order of publication.
func (d *driver) window(slots int) int {
	weight := d.Weight
	if weight <= 0 {
		weight = 1
	}
	n := min(maxOutstanding, int(float64(max(minOutstanding, 2*slots))*weight))
	if d.MaxWorkers > 0 {
		n = min(n, d.MaxWorkers)
	}
	return n
}

// lonelyFor is how long an audit waits for a second worker, unless the run says.
const lonelyFor = 15 * time.Second

// lonely gives up the audits that no other worker can make, when only they are left.
func (d *driver) lonely() []Effect {
	l := d.live
	var audits []Publish
	for _, p := range d.state.Outstanding() {
		if p.Copy != task.CopyAudit {
			l.alone = time.Time{}
			return nil
		}
		audits = append(audits, p)
	}
	if len(audits) == 0 {
		return nil
	}
	if l.alone.IsZero() {
		l.alone = time.Now()
	}
	if time.Since(l.alone) < cmp.Or(d.AuditWait, lonelyFor) {
		return nil
	}
	var effects []Effect
	for _, p := range audits {
		if l.other(p.Avoid) {
			continue
		}
		d.outcome.Skipped++
		d.observe.Audited(context.Background(), "skipped")
		effects = append(effects, d.state.Step(Audited{ID: p.ID, Attempt: p.Audit, Skipped: true})...)
	}
	return effects
}

// other reports whether there is a worker beside the one of that name.
func (l *live) other(name string) bool {
	for _, w := range l.fleet {
		if w.Name != name && !w.Draining {
			return true
		}
	}
	return false
}

// snapshot is what the run looks like now.
func (l *live) snapshot() Snapshot {
	d, now := l.d, time.Now()
	s := d.board.empty()
	s.Phase, s.Reason, s.Elapsed = l.phase, l.reason, now.Sub(l.begin).Seconds()
	c := d.state.Counts()
	running := len(l.at)
	s.Tasks = SnapshotTasks{
		Total: len(d.Plan.Units), Waiting: c.Waiting + c.Ready, Queued: max(c.Queued-running, 0), Running: running, Placing: c.Done - c.Placed, Done: c.Placed,
		Failures: d.outcome.Failures, Repaired: d.outcome.Repaired, Twins: c.Twins, Audits: c.Audits,
	}
	var need []*task.Message
	for i, u := range d.Plan.Units {
		s.SourceBytes += u.Layout.SourceBytes
		if d.state.Result(u.ID) != nil {
			s.DoneBytes += u.Layout.SourceBytes
			if !d.fresh[i] {
				s.Tasks.Reused++
			}
		} else if t := l.at[u.ID]; t != nil {
			s.DoneBytes += min(t.bytes, u.Layout.SourceBytes)
		}
	}
	s.Rate, s.Left = l.rate.add(now, s.DoneBytes), -1
	if s.Rate > 0 {
		s.Left = float64(s.SourceBytes-s.DoneBytes) / s.Rate
	}
	for _, p := range d.state.Outstanding() {
		if l.at[p.ID] != nil || p.Copy != "" {
			continue
		}
		if m, err := d.message(p); err == nil {
			need = append(need, m)
		}
	}
	if !l.seen.IsZero() { // before, nobody knows who is there
		s.Waits = append(s.Waits, waits(need, l.fleet)...)
	}
	var tasks []SnapshotTask
	for id, t := range l.at {
		u := &d.Plan.Units[d.index[id]]
		tasks = append(tasks, SnapshotTask{
			Task: id.Short(), File: u.File, Worker: t.worker, Seconds: now.Sub(t.since).Seconds(), Bytes: t.bytes, Of: u.Layout.SourceBytes,
		})
	}
	s.Slowest = append(s.Slowest, slowest(tasks)...)
	s.Workers = append(s.Workers, l.workers(now)...)
	return s
}

// workers is who works on the run. What their notices said of a task is newer than
// what they say of themselves, which tells of the second worker at a task.
func (l *live) workers(now time.Time) []SnapshotWorker {
	all := map[string]*SnapshotWorker{}
	add := func(worker string, bytes int64, since time.Time) {
		x := all[worker]
		if x == nil {
			x = &SnapshotWorker{Name: worker}
			all[worker] = x
		}
		x.Tasks++
		if age := now.Sub(since).Seconds(); age > 0.1 {
			x.Rate += float64(bytes) / age
		}
	}
	for _, t := range l.at {
		add(t.worker, t.bytes, t.since)
	}
	for _, w := range l.fleet {
		for _, t := range w.Tasks {
			if at := l.at[t.ID]; t.Run == l.d.outcome.Run && t.Copy != "" && (at == nil || at.worker != w.Name) {
				add(w.Name, t.Bytes, t.Since)
			}
		}
		if x := all[w.Name]; x != nil {
			x.Memory, x.Slots, x.Draining = w.Memory, w.Slots, w.Draining
		}
	}
	var list []SnapshotWorker
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[name])
	}
	return list
}
