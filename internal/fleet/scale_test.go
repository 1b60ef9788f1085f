package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// TestFleetProcess is no test: it makes this binary a part of the fleet.
func TestFleetProcess(t *testing.T) { //nolint:paralleltest // it is the only one of its process
	role, args, found := strings.Cut(os.Getenv(asProcess), " ")
	if !found {
		return
	}
	p := &part{out: json.NewEncoder(os.Stdout)}
	p.baseline()
	if *scaleProfile != "" {
		f, err := os.Create(filepath.Join(*scaleProfile, role+".cpu"))
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	switch role {
	case "broker":
		err = p.broker(args)
	case "coordinator":
		err = p.coordinate(t.Context(), args)
	}
	pprof.StopCPUProfile()
	if err != nil {
		t.Fatal(err)
	}
}

const asProcess = "SHARDPRESS_FLEET_PROCESS"

// usage is what a part of the fleet has used by now. Bytes are above those before the
// run.
type usage struct {
	Ready     string           // where it can be reached
	CPU       time.Duration    // since the last time it said so
	Held      int64            // bytes in use when all tasks were done
	Live      int64            // most bytes in use, as the collector found them
	Resident  int64            // most bytes of memory
	Published map[string]int64 // when the queue had taken a task, in Unix nanoseconds
}

// part is a process of the fleet. It tells its usage for every line that it reads, and
// ends with its input.
type part struct {
	out       *json.Encoder
	cpu       time.Duration
	live, rss int64 // before the run

	mu        sync.Mutex
	held      int64
	mostLive  int64
	published []publication
}

type publication struct {
	id task.ID
	at int64
}

func (p *part) baseline() {
	runtime.GC()
	runtime.GC()
	p.live, p.rss, p.cpu = liveBytes(), resident("VmRSS"), cpuTime()
}

func liveBytes() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

func resident(field string) int64 {
	b, _ := os.ReadFile("/proc/self/status") // 0 where there is none
	_, rest, _ := strings.Cut(string(b), field+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[0], 10, 64)
	return n << 10
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (p *part) usage() usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := cpuTime()
	u := usage{CPU: now - p.cpu, Held: p.held - p.live, Live: p.mostLive - p.live, Resident: resident("VmHWM") - p.rss, Published: map[string]int64{}}
	p.cpu = now
	for _, x := range p.published {
		if _, again := u.Published[x.id.String()]; !again {
			u.Published[x.id.String()] = x.at
		}
	}
	return u
}

// serve answers until the input ends, or the run does.
func (p *part) serve(ready string) error {
	if err := p.out.Encode(usage{Ready: ready}); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				p.mu.Lock()
				p.mostLive = max(p.mostLive, liveBytes())
				p.mu.Unlock()
			}
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := p.out.Encode(p.usage()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (p *part) broker(dir string) error {
	b, err := queue.StartBroker(queue.BrokerOptions{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer b.Close()
	return p.serve(b.URL())
}

// coordinate drives what is submitted to a store.
func (p *part) coordinate(ctx context.Context, args string) error {
	url, rest, _ := strings.Cut(args, " ")
	dir, tasks, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(tasks)
	if err != nil {
		return err
	}
	store, err := objstore.OpenDir(dir)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	q, err := queue.Dial(ctx, queue.Options{URL: url, Name: "coordinator", Log: log})
	if err != nil {
		return err
	}
	defer q.Close()
	p.published = make([]publication, 0, n+n/10) // not the coordinator's own
	p.baseline()
	s := &coordinator.Service{
		Name: "coordinator", Store: store, Queue: q, Sources: directories{}, Log: log,
		Observe: func(string) coordinator.Observer { return &observer{p: p} },
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	err = p.serve("coordinator")
	stop()
	if serr := <-served; err == nil {
		err = serr
	}
	return err
}

// directories opens checkpoints that lie on this machine.
type directories struct{}

func (directories) Open(ctx context.Context, dir string) (*shard.Checkpoint, error) {
	return shard.Open(ctx, dir, shard.OpenOptions{})
}

// observer notes when tasks were published.
type observer struct {
	p    *part
	once sync.Once
}

func (o *observer) Context(ctx context.Context) context.Context { return ctx }

func (o *observer) Began(context.Context, int, int, ...slog.Attr) {}

func (o *observer) Phase(ctx context.Context, _ string, _ ...slog.Attr) (context.Context, func(error, ...slog.Attr)) {
	o.once.Do(func() { // the first is that of putting the result together
		runtime.GC()
		o.p.mu.Lock()
		o.p.held = liveBytes()
		o.p.mu.Unlock()
		if *scaleProfile == "" {
			return
		}
		if f, err := os.Create(filepath.Join(*scaleProfile, "coordinator.heap")); err == nil {
			_ = pprof.WriteHeapProfile(f) // a run without it is as good
			f.Close()
		}
	})
	return ctx, func(error, ...slog.Attr) {}
}

func (o *observer) Published(ctx context.Context, m *task.Message, _ string) (context.Context, func(bool, error)) {
	return ctx, func(taken bool, _ error) {
		if taken {
			o.p.mu.Lock()
			o.p.published = append(o.p.published, publication{m.ID, time.Now().UnixNano()})
			o.p.mu.Unlock()
		}
	}
}

func (o *observer) Placed(ctx context.Context, _ task.ID, _ int64) (context.Context, func(error)) {
	return ctx, func(error) {}
}

func (o *observer) Counted(func() (string, map[string]int64)) {}

func (o *observer) Repaired(context.Context) {}

func (o *observer) Retried(context.Context, task.Kind) {}

func (o *observer) Audited(context.Context, string) {}

func (o *observer) Finished(context.Context, string, error, ...slog.Attr) {}

func (o *observer) Left() {}

// process is another part of the fleet, as it is seen from here.
type process struct {
	t   testing.TB
	in  io.WriteCloser
	out *json.Decoder
}

func startPart(t testing.TB, role string, args ...string) (p *process, ready string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFleetProcess$", "-test.timeout=1h", "-scale.profile="+*scaleProfile)
	cmd.Env = append(os.Environ(), asProcess+"="+role+" "+strings.Join(args, " "))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p = &process{t, in, json.NewDecoder(out)}
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out) // what testing says at the end
		_ = cmd.Wait()                  // has told its errors
	})
	var u usage
	if err := p.out.Decode(&u); err != nil {
		t.Fatalf("%s did not start: %v", role, err)
	}
	return p, u.Ready
}

// ask returns what the part has used since the last time.
func (p *process) ask() (u usage) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		p.t.Fatal(err)
	}
	if err := p.out.Decode(&u); err != nil {
		p.t.Fatal(err)
	}
	return u
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
