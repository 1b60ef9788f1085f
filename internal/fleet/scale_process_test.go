package fleet_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

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
