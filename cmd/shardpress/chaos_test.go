package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

var (
	chaosSeeds = flag.Int("chaos.seeds", 1, "TestChaos: schedules of kills to play, one after another")
	chaosFirst = flag.Uint64("chaos.first", 1, "TestChaos: seed of the first one")
	chaosTime  = flag.Duration("chaos.time", 0, "TestChaos: go on with further seeds for so long")
	chaosWait  = flag.Duration("chaos.wait", patience, "TestChaos: how long the runs of one schedule may take")
)

// TestChaos kills the processes of a fleet while it works, by a schedule that a seed
// makes, and wants the bytes of one quiet process, nothing left over, and hardly
// anything done twice.
func TestChaos(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	for n := 0; n < *chaosSeeds || time.Since(begin) < *chaosTime; n++ {
		c := chaos{seed: *chaosFirst + uint64(n), tasks: 640, workers: 20, coordinators: 2, brokers: 2, stores: 2, ackWait: "3s"}
		if testing.Short() {
			c.tasks, c.workers, c.coordinators, c.brokers, c.stores, c.ackWait = 80, 4, 1, 1, 1, "1s"
		}
		if !t.Run(fmt.Sprintf("seed %d", c.seed), c.play) { //nolint:paralleltest // one after another: each is as many processes as there are
			return
		}
	}
}

// chaos is one run that is disturbed.
type chaos struct {
	seed                                   uint64
	tasks                                  int
	workers, coordinators, brokers, stores int // kills
	ackWait                                string
}

// kill is one blow: it falls when so many tasks are done.
type kill struct {
	done int
	what string
	hit  func()
}

func (c chaos) play(t *testing.T) {
	begin := time.Now()
	model, sick := blocks(t, c.tasks), blocks(t, 12)
	// Beside the fleet, for it waits for disks.
	wanted, wantedSick := beside(t, model), beside(t, sick)
	f := newFleet(t, "--ack-wait", c.ackWait)
	poison := unitOf(t, sick, 5)
	coordinators := []*member{f.coordinator("c1"), f.coordinator("c2")}
	var workers []*member
	for i, memory := range []string{"256M", "512M", "128M", "1G", "256M"} {
		workers = append(workers, f.worker(fmt.Sprintf("w%d", i+1), memory, 1+i%2, poisonEnv+"="+poison.ID.Short()))
	}
	run := f.submit(model, "results/a")
	ill := f.submit(sick, "results/b", "--keep-going")

	submitted := time.Now()
	random := rand.New(rand.NewPCG(c.seed, c.seed))
	again := func(m *member) {
		m.kill()
		if err := m.start(); err != nil {
			t.Error(err)
		}
	}
	var kills []kill
	add := func(n int, what string, hit func()) {
		for range n {
			kills = append(kills, kill{c.tasks/20 + random.IntN(c.tasks*8/10), what, hit})
		}
	}
	add(c.workers, "worker", func() { again(workers[random.IntN(len(workers))]) })
	add(c.coordinators, "coordinator", func() { again(coordinators[random.IntN(len(coordinators))]) })
	add(c.brokers, "broker", func() { again(f.broker) })
	add(c.stores, "S3 server", f.s3.Restart)
	slices.SortFunc(kills, func(a, b kill) int { return a.done - b.done })

	store, q := f.bucket(), f.dial()
	died := 0
	ended := func(run string) bool {
		r, err := coordinator.ReadRecord(t.Context(), store, run)
		return err == nil && r != nil
	}
	finished := func() (n int) {
		// By the result's files: what a snapshot says is up to seconds old.
		for info, err := range store.List(t.Context(), "results/a/") {
			if err == nil && strings.HasSuffix(info.Key, ".safetensors") {
				n++
			}
		}
		return n
	}
	played := 0
	over := within(t, *chaosWait, func() bool {
		for _, w := range workers {
			if w.over() { // the poison's
				died++
				if err := w.start(); err != nil {
					t.Error(err)
				}
			}
		}
		if played == len(kills) {
			return ended(run) && ended(ill)
		}
		for n := finished(); played < len(kills) && kills[played].done <= n; played++ {
			kills[played].hit()
		}
		return false
	})
	if !over {
		f.inquest(run, ill)
		t.Fatalf("the runs %s and %s did not both end; %d of %d kills were played", run, ill, played, len(kills))
	}
	elapsed := time.Since(submitted)
	want, wantSick := wanted(), wantedSick()

	record, err := coordinator.ReadRecord(t.Context(), store, run)
	if err != nil || record.State != coordinator.StateDone {
		t.Fatalf("run %+v, %v", record, err)
	}
	alike(t, "the result", f.stored("results/a"), want)
	illRecord, err := coordinator.ReadRecord(t.Context(), store, ill)
	if err != nil || illRecord.State != coordinator.StateFailed || illRecord.Totals.Unfinished != 1 || !strings.Contains(illRecord.Error, poison.ID.Short()) {
		t.Errorf("the poisoned run %+v, %v", illRecord, err)
	}
	others := 0
	for name, b := range f.stored("results/b") {
		if strings.HasSuffix(name, ".safetensors") {
			if others++; wantSick[name] != b {
				t.Errorf("the poisoned run has another %s", name)
			}
		}
	}
	if others != 11 {
		t.Errorf("of the poisoned run's 11 other tasks %d are done", others)
	}
	until(t, "the queue is empty", func() bool {
		left, err := q.Outstanding(t.Context())
		return err == nil && len(left) == 0
	})
	attempts, err := fleet.Attempts(t.Context(), store, run)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, a := range attempts {
		count[a.State]++
	}
	executions := count[task.AttemptDone] + count[task.AttemptLate] + count[task.AttemptFailed]
	stranded := 0
	for _, m := range coordinators {
		stranded += strings.Count(m.log(t), "queue held a task that it would never have offered")
	}
	t.Logf("seed %d: %.1f s from the submission to the end, %.1f s in all, %d tasks, %d kills, %d workers died of the poison, the broker stranded %d tasks; attempts %v", c.seed, elapsed.Seconds(), time.Since(begin).Seconds(),
		c.tasks, len(kills), died, stranded, count)
	if most := c.tasks * 11 / 10; executions+count[task.AttemptStarted] > most+len(kills) {
		t.Errorf("%d attempts ended and %d died, want at most %d and %d", executions, count[task.AttemptStarted], most, len(kills))
	}
}

// beside starts what one quiet process makes of a model, and gives a function that
// waits for it.
func beside(t *testing.T, model string) func() map[string]string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	ended := make(chan string, 1)
	go func() {
		code, _, stderr := call("compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out)
		if code == 0 {
			stderr = ""
		}
		ended <- stderr
	}()
	return func() map[string]string {
		if stderr := <-ended; stderr != "" {
			t.Fatal(stderr)
		}
		return contents(t, out)
	}
}

// unitOf is a unit of the plan for a model.
func unitOf(t *testing.T, model string, i int) coordinator.Unit {
	t.Helper()
	ck, err := shard.Open(t.Context(), model, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	r, err := recipe.Preset("w4a16-rtn")
	if err != nil {
		t.Fatal(err)
	}
	s, err := salt()
	if err != nil {
		t.Fatal(err)
	}
	p, err := coordinator.NewPlan(ck.Manifest, r, coordinator.PlanOptions{Config: ck.Config, Salt: s})
	if err != nil {
		t.Fatal(err)
	}
	return p.Units[i]
}
