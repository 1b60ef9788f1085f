package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
	"github.com/shardpress/shardpress/worker"
)

// What BenchmarkFleet runs. The defaults are 20,000 tasks of 10 s at twice their speed.
var (
	scaleTasks       = flag.Int("scale.tasks", 20_000, "tasks of the fleet benchmark")
	scaleWorkers     = flag.Int("scale.workers", 1000, "workers of the fleet benchmark, of one slot each")
	scaleConnections = flag.Int("scale.connections", 1000, "connections to the broker that the workers share")
	scaleSleep       = flag.Duration("scale.sleep", 5*time.Second, "length of a task")
	scaleMemory      = flag.Int64("scale.memory", 1<<30, "memory of a worker, in bytes: the more it has, the more cells it asks")
	scaleProgress    = flag.Duration("scale.progress", time.Second, "how often a task tells of its progress, 0 for never")
	scaleProfile     = flag.String("scale.profile", "", "directory for CPU and heap profiles of broker and coordinator")
)

// fleetSize is one measurement.
type fleetSize struct {
	tasks, workers, connections int
	sleep, progress             time.Duration
	memory                      int64
}

// BenchmarkFleet measures a fleet of workers that only sleep: a broker on disk that
// syncs always, a coordinator (a Service, with everything that it tells) and the
// workers are three processes. The store is a directory in memory: its cost is not
// what is measured.
//
//	go test -run - -bench Fleet -benchtime 1x -timeout 30m ./internal/fleet
func BenchmarkFleet(b *testing.B) {
	for range b.N {
		f := runFleet(b, fleetSize{*scaleTasks, *scaleWorkers, *scaleConnections, *scaleSleep, *scaleProgress, *scaleMemory})
		for name, v := range f {
			b.ReportMetric(v, name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// TestFleetKeepsItsWorkersBusy is the benchmark in small, without times that a busy
// machine would spoil: every task is run, and once.
func TestFleetKeepsItsWorkersBusy(t *testing.T) {
	t.Parallel()
	f := runFleet(t, fleetSize{tasks: 200, workers: 20, connections: 4, sleep: 100 * time.Millisecond, memory: 256 << 20})
	if f["runs/task"] != 1 {
		t.Errorf("%v executions for each task", f["runs/task"])
	}
}

// sleeper is an operation that writes what its plan says, and takes its time for it.
type sleeper struct {
	sleep, progress time.Duration

	mu   sync.Mutex
	runs []nap
}

type nap struct {
	id         task.ID
	worker     string
	begin, end time.Time
}

type sleeperOf struct {
	*sleeper
	worker string
}

func (s sleeperOf) Run(ctx context.Context, spec *task.Spec, env *operation.Env) ([]task.Consumed, error) {
	n := nap{id: env.Message.ID, worker: s.worker, begin: time.Now()}
	p, err := operation.ParseEncodeParams(spec.Params)
	if err != nil {
		return nil, err
	}
	layout, err := p.Layout()
	if err != nil {
		return nil, err
	}
	end := time.NewTimer(s.sleep)
	defer end.Stop()
	var tick <-chan time.Time
	if s.progress > 0 {
		t := time.NewTicker(s.progress)
		defer t.Stop()
		tick = t.C
	}
	for asleep := true; asleep; {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick:
			env.Progress(1)
		case <-end.C:
			asleep = false
		}
	}
	n.end = time.Now()
	var stats []operation.LinearStats
	for _, l := range p.Linears {
		stats = append(stats, operation.LinearStats{Name: l.Name})
	}
	text, err := json.Marshal(stats)
	if err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{operation.ShardOutput: make([]byte, layout.Size()), operation.LinearsOutput: text} {
		if err := env.Put(ctx, name, bytes.NewReader(b), int64(len(b))); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, n)
	var consumed []task.Consumed
	for _, in := range spec.Inputs {
		consumed = append(consumed, task.Consumed{Source: in.Source})
	}
	return consumed, nil
}

// blocks writes a checkpoint of so many blocks of one small linear, whose weights are
// a hole in the file: each block is a task.
func blocks(t testing.TB, n int) string {
	t.Helper()
	specs := make([]shard.TensorSpec, n)
	for i := range specs {
		specs[i] = shard.TensorSpec{Name: fmt.Sprintf("model.layers.%d.mlp.down_proj.weight", i), DType: shard.BF16, Shape: []int64{8, 128}}
	}
	shard.SortSpecs(specs)
	layout, err := shard.NewLayout(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "model.safetensors")
	err = os.WriteFile(file, layout.Header, 0o600)
	if err == nil {
		err = os.Truncate(file, layout.Total)
	}
	if err == nil {
		config := fmt.Sprintf(`{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":128,"num_hidden_layers":%d,"torch_dtype":"bfloat16"}`, n)
		err = os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// inMemory is a directory that no disk holds, where there is such a place.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shardpress-scale-") //nolint:usetesting // t.TempDir is on disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// runFleet carries out one run and says what it took.
func runFleet(t testing.TB, size fleetSize) map[string]float64 {
	t.Helper()
	model, dir := blocks(t, size.tasks), inMemory(t)
	store, err := objstore.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	broker, url := startPart(t, "broker", t.TempDir())
	coord, _ := startPart(t, "coordinator", url, dir, strconv.Itoa(size.tasks))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s := &sleeper{sleep: size.sleep, progress: size.progress, runs: make([]nap, 0, size.tasks)}
	queues := make([]*queue.Queue, size.connections)
	for i := range queues {
		if queues[i], err = queue.Dial(ctx, queue.Options{URL: url}); err != nil {
			t.Fatal(err)
		}
		defer queues[i].Close()
	}
	if err := queues[0].Setup(ctx, operation.ClassF32); err != nil {
		t.Fatal(err)
	}
	var working sync.WaitGroup
	for i := range size.workers {
		name := fmt.Sprintf("w%04d", i)
		q := queues[i%len(queues)]
		w := &worker.Worker{
			Name: name, Version: "scale", Queue: q, Registry: q, Store: store, Classes: []string{operation.ClassF32}, Slots: 1, Memory: size.memory,
			Operations: map[string]operation.Operation{operation.EncodeOp: sleeperOf{s, name}}, Log: slog.New(slog.DiscardHandler),
		}
		working.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for registered := 0; registered < size.workers; { // the fleet is there before the run
		<-time.After(200 * time.Millisecond)
		all, err := queues[0].Workers(ctx)
		if err != nil {
			t.Fatal(err)
		}
		registered = len(all)
	}
	r, err := recipe.Preset("w8a16-rtn")
	if err == nil {
		err = r.Set("group", "128")
	}
	if err != nil {
		t.Fatal(err)
	}
	canonical, err := r.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	coord.ask()
	broker.ask()
	own, begin, run := cpuTime(), time.Now(), coordinator.NewRun()
	err = coordinator.Submit(ctx, store, &coordinator.Submission{Run: run, Recipe: canonical, Source: model, Out: coordinator.ResultPrefix(run)})
	if err == nil {
		err = queues[0].Hint(ctx, queue.HintSubmitted, run)
	}
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var record *coordinator.Record
	for record == nil {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-tick.C:
		}
		if record, err = coordinator.ReadRecord(ctx, store, run); err != nil {
			t.Fatal(err)
		}
	}
	whole := time.Since(begin)
	c, b := coord.ask(), broker.ask()
	own = cpuTime() - own
	stop()
	working.Wait()
	if record.State != coordinator.StateDone || record.Totals.Run != size.tasks {
		t.Fatalf("run ended as %s with %+v: %s", record.State, record.Totals, record.Error)
	}
	f := s.figures(size, c.Published)
	n := float64(size.tasks)
	f["s/run"] = whole.Seconds()
	f["coord-ms/task"] = float64(c.CPU.Microseconds()) / 1000 / n
	f["coord-heldB/task"] = float64(c.Held) / n
	f["coord-liveB/task"] = float64(c.Live) / n
	f["coord-rssB/task"] = float64(c.Resident) / n
	f["broker-ms/task"] = float64(b.CPU.Microseconds()) / 1000 / n
	f["broker-rssMiB"] = float64(b.Resident) / (1 << 20)
	f["workers-ms/task"] = float64(own.Microseconds()) / 1000 / n
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range f {
			if !yield(name) {
				return
			}
		}
	}) {
		t.Logf("%-18s %10.3f", name, f[name])
	}
	return f
}

// figures are what the tasks themselves tell.
func (s *sleeper) figures(size fleetSize, published map[string]int64) map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first int64
	for _, at := range published {
		if first == 0 || at < first {
			first = at
		}
	}
	var last, ramp time.Time
	var queued, between []float64
	before := map[string]time.Time{}
	for _, n := range s.runs { // in the order in which they ended
		if n.end.After(last) {
			last = n.end
		}
		if at := published[n.id.String()]; at != 0 {
			queued = append(queued, float64(n.begin.UnixNano()-at)/1e6)
		}
		if end, ok := before[n.worker]; ok {
			between = append(between, float64(n.begin.Sub(end).Microseconds())/1000)
		} else if n.begin.After(ramp) {
			ramp = n.begin
		}
		before[n.worker] = n.end
	}
	actual := float64(last.UnixNano()-first) / 1e9
	ideal := float64((size.tasks+size.workers-1)/size.workers) * size.sleep.Seconds()
	f := map[string]float64{
		"efficiency": ideal / actual, "s/tasks": actual, "runs/task": float64(len(s.runs)) / float64(size.tasks),
		"s/ramp": float64(ramp.UnixNano()-first) / 1e9,
	}
	quantiles := func(name string, v []float64) {
		slices.Sort(v)
		if len(v) > 0 {
			f[name+"-p50-ms"], f[name+"-p99-ms"] = v[len(v)/2], v[len(v)*99/100]
		}
	}
	quantiles("queued", queued)   // from publish to begin: behind others, but for the first
	quantiles("between", between) // from the end of a task to the begin of the worker's next
	return f
}
