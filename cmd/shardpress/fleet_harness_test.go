package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

const (
	// asCommand makes the test binary the command: what a fleet's processes are.
	asCommand = "SHARDPRESS_TEST_COMMAND"
	// poisonEnv names, by its short ID, a task that kills the worker that begins it.
	poisonEnv = "SHARDPRESS_TEST_POISON"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "" {
		// Tests of fleets wait for most of their time.
		flag.Parse()
		given := false
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
		if !given {
			if err := flag.Set("test.parallel", fmt.Sprint(max(6, runtime.GOMAXPROCS(0)))); err != nil {
				panic(err)
			}
		}
		os.Exit(m.Run())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test that started it
		os.Exit(1)
	}()
	var stderr io.Writer = os.Stderr
	if id := os.Getenv(poisonEnv); id != "" {
		stderr = &poisoned{os.Stderr, []byte("task=" + id)}
	}
	os.Exit(run(os.Args[1:], os.Stdout, stderr))
}

// poisoned is the log of a worker that dies, as by a bug that no recover helps
// against, when it says that it has begun a certain task.
type poisoned struct {
	io.Writer
	task []byte
}

func (p *poisoned) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(b)
	if bytes.Contains(b, []byte("attempt begins")) && bytes.Contains(b, p.task) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {} // the signal is on its way
	}
	return n, err
}

// patience is how long a fleet may take to do what a test waits for.
const patience = 5 * time.Minute

// until waits for what can be observed.
func until(t *testing.T, what string, seen func() bool) {
	t.Helper()
	if !within(t, patience, seen) {
		t.Fatalf("waited in vain: %s", what)
	}
}

// within waits for so long for what can be observed, and reports whether it was seen.
func within(t *testing.T, limit time.Duration, seen func() bool) bool {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond) // some of them ask by a process
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for !seen() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the test ended while it waited")
		case <-end.C:
			return false
		}
	}
	return true
}

// inquest tells of a fleet that stands still: what its runs and its queue are like,
// and, when that is known, what every goroutine of its processes is at. It ends them.
func (f *testFleet) inquest(runs ...string) {
	f.t.Helper()
	_, open, stderr := f.call("runs")
	f.t.Logf("runs:\n%s%s", open, stderr)
	for _, run := range runs {
		_, text, stderr := f.call("status", run, "--json")
		f.t.Logf("run %s:\n%s%s", run, text, stderr)
	}
	q := f.dial()
	for _, run := range runs {
		holder, err := q.Holder(f.t.Context(), run)
		f.t.Logf("run %s is leased by %q (%v)", run, holder, err)
	}
	for _, which := range []string{"", task.CopyTwin, task.CopyAudit} {
		left, err := q.OutstandingCopies(f.t.Context(), which)
		f.t.Logf("in the queue, copy %q: %d tasks (%v)", which, len(left), err)
	}
	backlog, err := q.Backlog(f.t.Context())
	f.t.Logf("backlog: %+v (%v)", backlog, err)
	dir := f.t.ArtifactDir()
	for i := len(f.members) - 1; i >= 0; i-- { // the broker last
		m := f.members[i]
		m.tell(f.t)
		m.end(syscall.SIGQUIT)
		write(f.t, dir, m.name+".log", []byte(m.log(f.t)))
	}
	f.t.Logf("whole logs, which end with all goroutines, are in %s (run with -artifacts to keep them)", dir)
}

// testFleet is a fleet whose every part is a process of its own, on loopback.
type testFleet struct {
	t     *testing.T
	s3    *s3test.Server
	store string // its URL
	nats  string // the broker's
	dir   string
	// more are flags of coordinators and workers alike.
	more    []string
	broker  *member
	members []*member
}

// newFleet starts an S3 server and a broker.
func newFleet(t *testing.T, more ...string) *testFleet {
	t.Helper()
	f := &testFleet{t: t, s3: s3test.Start(t), dir: t.TempDir(), more: more}
	f.store = f.s3.URL()
	f.broker = f.launch("broker", nil, "broker", "--dir", filepath.Join(f.dir, "state"), "--listen", "127.0.0.1:0")
	url := regexp.MustCompile(`broker listens on (nats://(\S+))`)
	until(t, "the broker listens", func() bool {
		m := url.FindStringSubmatch(f.broker.log(t))
		if m == nil {
			return false
		}
		f.nats = m[1]
		f.broker.args[len(f.broker.args)-1] = m[2] // and listens there again when it is started again
		return true
	})
	return f
}

// env is the environment of the fleet's processes.
func (f *testFleet) env() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "OTEL_") || strings.HasPrefix(v, "AWS_") })
	return append(append(env, f.s3.Env()...), asCommand+"=1", envStore+"="+f.store, envEndpoint+"="+f.s3.Endpoint(), envNATS+"="+f.nats)
}

// command is a process that is not started.
func (f *testFleet) command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(f.env(), env...)
	return cmd
}

func (f *testFleet) coordinator(name string) *member {
	return f.launch(name, nil, append([]string{"coordinator", "--name", name}, f.more...)...)
}

func (f *testFleet) worker(name, memory string, slots int, env ...string) *member {
	return f.launch(name, env, append([]string{"worker", "--name", name, "--memory", memory, "--slots", fmt.Sprint(slots)}, f.more...)...)
}

// member is a process of a fleet.
type member struct {
	f    *testFleet
	name string
	env  []string
	args []string
	told sync.Once

	mu    sync.Mutex
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when cmd has ended
}

// launch starts a process that ends with the test at the latest.
func (f *testFleet) launch(name string, env []string, args ...string) *member {
	f.t.Helper()
	m := &member{f: f, name: name, env: env, args: args}
	if err := m.start(); err != nil {
		f.t.Fatal(err)
	}
	f.members = append(f.members, m)
	f.t.Cleanup(func() {
		m.kill()
		if f.t.Failed() {
			m.tell(f.t)
		}
	})
	return m
}

func (m *member) logFile() string { return filepath.Join(m.f.dir, m.name+".log") }

// log is what the process and those before it have said.
func (m *member) log(t *testing.T) string {
	b, err := os.ReadFile(m.logFile())
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// tell shows what the process has said last, the first time.
func (m *member) tell(t *testing.T) {
	t.Helper()
	m.told.Do(func() {
		text := m.log(t)
		t.Logf("%s said:\n%s", m.name, text[max(0, len(text)-3000):])
	})
}

// start starts the process, again if it has ended.
func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	cmd := m.f.command(m.env, m.args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed as often as not
		close(ended)
	}()
	m.cmd, m.stdin, m.ended = cmd, stdin, ended
	return nil
}

// end sends a signal and waits until the process has ended.
func (m *member) end(s os.Signal) {
	m.mu.Lock()
	cmd, ended := m.cmd, m.ended
	m.mu.Unlock()
	_ = cmd.Process.Signal(s) // it may have ended by itself
	<-ended
}

func (m *member) kill() { m.end(os.Kill) }

// over reports whether the process has ended.
func (m *member) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// call runs a command line of the fleet's user.
func (f *testFleet) call(args ...string) (code int, stdout, stderr string) {
	f.t.Helper()
	cmd := f.command(nil, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	stdin, perr := cmd.StdinPipe()
	if perr != nil {
		f.t.Fatal(perr)
	}
	defer stdin.Close()
	_ = cmd.Run() // its exit code says it
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

func (f *testFleet) mustCall(args ...string) string {
	f.t.Helper()
	code, out, stderr := f.call(args...)
	if code != 0 {
		f.t.Fatalf("shardpress %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, stderr)
	}
	return out
}

// submit hands a model to the fleet, to be compressed into the store, and returns the
// run.
func (f *testFleet) submit(model, out string, more ...string) string {
	f.t.Helper()
	args := []string{"compress", "--nats", f.nats, "--model", model, "--recipe", "w4a16-rtn", "--out", f.store + "/" + out, "--detach"}
	lines := strings.Fields(f.mustCall(append(args, more...)...))
	return lines[len(lines)-1]
}

// status is what `shardpress status` says of a run.
func (f *testFleet) status(run string) *status {
	f.t.Helper()
	var s status
	if err := json.Unmarshal([]byte(f.mustCall("status", run, "--json")), &s); err != nil {
		f.t.Fatal(err)
	}
	return &s
}

// bucket opens the fleet's store for the test itself.
func (f *testFleet) bucket() objstore.Bucket {
	f.t.Helper()
	b, err := s3.Open(f.t.Context(), s3.Options{URL: f.store, Endpoint: f.s3.Endpoint(), Region: "us-east-1", Credentials: f.s3.Credentials()})
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// dial connects the test itself to the broker.
func (f *testFleet) dial() *queue.Queue {
	f.t.Helper()
	q, err := queue.Dial(f.t.Context(), queue.Options{URL: f.nats, Name: "client"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(q.Close)
	return q
}

// stored reads what stands below a key of the store.
func (f *testFleet) stored(prefix string) map[string]string {
	f.t.Helper()
	b := f.bucket()
	all := map[string]string{}
	for info, err := range b.List(f.t.Context(), prefix+"/") {
		if err != nil {
			f.t.Fatal(err)
		}
		text, err := objstore.ReadAll(f.t.Context(), b, info.Key, 64<<20)
		if err != nil {
			f.t.Fatal(err)
		}
		all[strings.TrimPrefix(info.Key, prefix+"/")] = string(text)
	}
	return all
}

// alike compares files by name.
func alike(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for name, b := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%s has no %s", what, name)
		} else if g != b {
			t.Errorf("%s has another %s", what, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s has %s, too", what, name)
		}
	}
}

// alone is what one quiet process makes of a model.
func alone(t *testing.T, model string, more ...string) map[string]string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	mustCall(t, append([]string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out}, more...)...)
	return contents(t, out)
}

// blocks is a checkpoint of so many blocks of one small linear each, and no more:
// each a task of a moment.
func blocks(t *testing.T, n int) (model string) {
	t.Helper()
	arrays := make([]array, n)
	for b := range n {
		arrays[b] = weights(fmt.Sprintf("model.layers.%d.mlp.up_proj.weight", b), 16, tinyHidden)
	}
	_, model = checkpoint(t, safetensors(arrays...))
	write(t, model, "config.json", []byte(strings.Replace(tinyConfig, `"num_hidden_layers":2`, fmt.Sprintf(`"num_hidden_layers":%d`, n), 1)))
	return model
}
