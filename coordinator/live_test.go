package coordinator

import (
	"slices"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/task"
)

func TestMeter(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		seconds []int
		totals  []int64
		want    float64
	}{
		"one reading":          {[]int{0}, []int64{100}, 0},
		"two at once":          {[]int{0, 0}, []int64{0, 100}, 0},
		"steady":               {[]int{0, 10, 20}, []int64{0, 100, 200}, 10},
		"what was long ago":    {[]int{0, 100, 110, 120}, []int64{0, 10_000, 10_100, 10_200}, 10},
		"bytes that were lost": {[]int{0, 10}, []int64{100, 0}, 0},
		"a clock that stepped": {[]int{10, 0}, []int64{0, 100}, 0},
		"rare readings":        {[]int{0, 1000}, []int64{0, 1000}, 1},
	} {
		var m meter
		var got float64
		for i, s := range c.seconds {
			got = m.add(at(s), c.totals[i])
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var m meter
	for s := range 10_000 {
		m.add(at(s), int64(s))
	}
	if len(m.times) > 32 || len(m.bytes) != len(m.times) {
		t.Errorf("it keeps %d readings", len(m.times))
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		slots, workers int
		priority       string
		want           int
	}{
		"nobody there":          {0, 0, "", minOutstanding},
		"a small fleet":         {10, 0, PriorityNormal, minOutstanding},
		"a large fleet":         {1000, 0, PriorityNormal, 2000},
		"a huge fleet":          {1 << 20, 0, PriorityNormal, maxOutstanding},
		"low":                   {0, 0, PriorityLow, minOutstanding / 4},
		"high":                  {0, 0, PriorityHigh, 4 * minOutstanding},
		"high on a huge fleet":  {1 << 30, 0, PriorityHigh, maxOutstanding},
		"few workers":           {1000, 3, PriorityHigh, 3},
		"more workers than are": {0, 1 << 30, "", minOutstanding},
	} {
		d := &driver{Run: &Run{Weight: (&Submission{Priority: c.priority}).weight(), MaxWorkers: c.workers}}
		if got := d.window(c.slots); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := (&driver{Run: &Run{}}).window(0); got != minOutstanding {
		t.Errorf("a run without weight: %d", got)
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	fleet := []*task.WorkerInfo{{Slots: 2}, {Slots: 3}, {Slots: 1 << 40}} // the last one boasts
	if got := slots(fleet); got != 5+1<<12 {
		t.Errorf("%d slots", got)
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	need := func(op, class string, memory int64) *task.Message {
		return &task.Message{Op: op, Class: class, Memory: memory}
	}
	info := func(memory int64, draining bool, ops ...string) *task.WorkerInfo {
		return &task.WorkerInfo{Memory: memory, Classes: []string{"f32@1"}, Ops: ops, Draining: draining}
	}
	small, large := need("encode@1", "f32@1", gib), need("encode@1", "f32@1", 8*gib)
	for name, c := range map[string]struct {
		need    []*task.Message
		workers []*task.WorkerInfo
		want    []SnapshotWait
	}{
		"nothing to do":      {nil, nil, nil},
		"nobody there":       {[]*task.Message{small, small}, nil, []SnapshotWait{{"f32@1", "encode@1", gib, 2}}},
		"somebody can":       {[]*task.Message{small}, []*task.WorkerInfo{info(gib, false, "encode@1")}, nil},
		"too small":          {[]*task.Message{small, large}, []*task.WorkerInfo{info(gib, false, "encode@1")}, []SnapshotWait{{"f32@1", "encode@1", 8 * gib, 1}}},
		"about to leave":     {[]*task.Message{small}, []*task.WorkerInfo{info(gib, true, "encode@1")}, []SnapshotWait{{"f32@1", "encode@1", gib, 1}}},
		"another program":    {[]*task.Message{small}, []*task.WorkerInfo{info(gib, false, "encode@2")}, []SnapshotWait{{"f32@1", "encode@1", gib, 1}}},
		"another class":      {[]*task.Message{need("encode@1", "bf16@1", gib)}, []*task.WorkerInfo{info(gib, false, "encode@1")}, []SnapshotWait{{"bf16@1", "encode@1", gib, 1}}},
		"no operation named": {[]*task.Message{need("", "f32@1", gib)}, []*task.WorkerInfo{info(gib, false)}, nil},
		"in order":           {[]*task.Message{large, small}, nil, []SnapshotWait{{"f32@1", "encode@1", gib, 1}, {"f32@1", "encode@1", 8 * gib, 1}}},
		"no message":         {[]*task.Message{need("encode@1", "f 32", gib)}, nil, nil},
	} {
		if got := waits(c.need, c.workers); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
