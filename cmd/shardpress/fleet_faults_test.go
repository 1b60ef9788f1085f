package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/worker"
)

// record is how a run ended; nil if it is not over.
func (f *testFleet) record(store objstore.Bucket, run string) *coordinator.Record {
	f.t.Helper()
	r, err := coordinator.ReadRecord(f.t.Context(), store, run)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// ends waits for the end of a run.
func (f *testFleet) ends(store objstore.Bucket, run string) (r *coordinator.Record) {
	f.t.Helper()
	until(f.t, "run "+run+" ends", func() bool { r = f.record(store, run); return r != nil })
	return r
}

// placed waits until so many weight files of a result stand in the store.
func (f *testFleet) placed(store objstore.Bucket, out string, least int) {
	f.t.Helper()
	until(f.t, fmt.Sprintf("%d files of %s are placed", least, out), func() bool {
		n := 0
		for info, err := range store.List(f.t.Context(), out+"/") {
			if err == nil && strings.HasSuffix(info.Key, ".safetensors") {
				n++
			}
		}
		return n >= least
	})
}

// clean waits until nothing of any run is left in the queue or on the list of runs.
func (f *testFleet) clean(store objstore.Bucket, q *queue.Queue) {
	f.t.Helper()
	until(f.t, "nothing is left of the runs", func() bool {
		left, err := q.Outstanding(f.t.Context())
		open, oerr := coordinator.OpenRuns(f.t.Context(), store)
		return err == nil && oerr == nil && len(left)+len(open) == 0
	})
}

func fewer(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

// TestFleetBrokerLosesItsStore: what the broker held is made again from the store.
func TestFleetBrokerLosesItsStore(t *testing.T) {
	t.Parallel()
	n := fewer(160)
	model := blocks(t, n)
	f := newFleet(t)
	f.coordinator("c1")
	f.worker("w1", "256M", 2)
	store := f.bucket()
	run := f.submit(model, "results/a")
	f.placed(store, "results/a", n/4)
	f.broker.kill()
	if err := os.RemoveAll(filepath.Join(f.dir, "state")); err != nil {
		t.Fatal(err)
	}
	if err := f.broker.start(); err != nil {
		t.Fatal(err)
	}
	if r := f.ends(store, run); r.State != coordinator.StateDone || r.Totals.Run+r.Totals.Reused != n {
		t.Errorf("run %+v", r.Totals)
	}
	alike(t, "the result", f.stored("results/a"), alone(t, model))
	f.clean(store, f.dial())
}

// TestFleetOfTwoVersions: a worker that lacks an operation leaves its tasks to others,
// and a run that only such workers could serve says so.
func TestFleetOfTwoVersions(t *testing.T) {
	t.Parallel()
	n := fewer(60)
	model := blocks(t, n)
	f := newFleet(t)
	f.coordinator("c1")
	store, q := f.bucket(), f.dial()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := q.Setup(ctx, operation.ClassF32); err != nil {
		t.Fatal(err)
	}
	old := &worker.Worker{
		Name: "old", Queue: q, Registry: q, Store: store, Sources: &source.Opener{Store: store}, Classes: []string{operation.ClassF32}, Slots: 1, Memory: 1 << 30,
		Operations: map[string]operation.Operation{"encode@0": operation.All()[operation.EncodeOp]}, Log: slog.New(slog.DiscardHandler),
	}
	ended := make(chan error, 1)
	go func() { ended <- old.Run(ctx) }()
	run := f.submit(model, "results/a")
	until(t, "status says for which operation the run waits", func() bool {
		s := f.status(run)
		return slices.ContainsFunc(s.Fleet, func(w *task.WorkerInfo) bool { return w.Name == "old" }) &&
			s.Snapshot != nil && len(s.Snapshot.Waits) == 1 && s.Snapshot.Waits[0].Op == operation.EncodeOp
	})
	f.worker("new", "256M", 2)
	if r := f.ends(store, run); r.State != coordinator.StateDone || fmt.Sprint(r.Workers) != "[new]" || r.Totals.Failures != 0 {
		t.Errorf("run %s: %s: by %v, %+v", r.State, r.Error, r.Workers, r.Totals)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	alike(t, "the result", f.stored("results/a"), alone(t, model))
}
