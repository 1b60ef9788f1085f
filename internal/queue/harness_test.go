package queue

import (
	"context"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/shardpress/shardpress/internal/task"
)

// asBroker makes the test binary a broker: STATE DIRECTORY;HOST:PORT;FILE TO CREATE
// WHEN READY. It is killed by who started it.
const asBroker = "SHARDPRESS_TEST_BROKER"

func TestMain(m *testing.M) {
	if args := os.Getenv(asBroker); args != "" {
		part := strings.Split(args, ";")
		b, err := StartBroker(BrokerOptions{Dir: part[0], Listen: part[1], hasty: true})
		if err == nil {
			_, err = os.Stdout.WriteString(b.URL() + "\n")
		}
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		os.Exit(0)
	}
	// These tests wait, for disks, brokers and times to live: many at a time are quicker
	// than one for each core.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// process is a broker in a process of its own.
type process struct {
	cmd *exec.Cmd
	url string
}

func startProcess(t testing.TB, dir, listen string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asBroker+"="+dir+";"+listen)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // ends it when this test ends in whatever way
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
	p := &process{cmd: cmd}
	t.Cleanup(func() { in.Close(); p.kill() })
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		t.Fatalf("broker did not start: %v", err)
	}
	p.url = strings.TrimSpace(string(line[:n]))
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // may have ended
	_ = p.cmd.Wait()         // it was killed
}

// scratch is a directory for a broker, in memory where there is such a place: a broker
// makes many small files, and waits for the disk at each.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shardpress-test-") //nolint:usetesting // t.TempDir is on disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func broker(t *testing.T, o BrokerOptions) *Broker {
	t.Helper()
	if o.Dir == "" {
		o.Dir = scratch(t)
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	o.hasty = true
	b, err := StartBroker(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// patience bounds what a test waits for; nothing waits for it in a test that passes.
const patience = 20 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	t.Cleanup(stop)
	return ctx
}

func connect(t testing.TB, o Options) *Queue {
	t.Helper()
	q, err := Dial(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

// ready is a connection with everything set up.
func ready(t testing.TB, o Options) *Queue {
	t.Helper()
	q := connect(t, o)
	if err := q.Setup(within(t), class); err != nil {
		t.Fatal(err)
	}
	return q
}

func publish(t testing.TB, q *Queue, ms ...*task.Message) {
	t.Helper()
	for _, m := range ms {
		if err := q.Publish(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
}

func next(t *testing.T, q *Queue, memory int64) Delivery {
	t.Helper()
	d, err := q.Next(within(t), fits(memory))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func id(t *testing.T, d Delivery) byte {
	t.Helper()
	m, err := d.Message()
	if err != nil {
		t.Fatal(err)
	}
	return m.ID[0]
}

func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// idle waits until n calls of Next of a queue do nothing but wait for wake-ups, and
// the broker knows.
func idle(t testing.TB, q *Queue, n int) {
	t.Helper()
	until(t, "workers are idle", func() bool {
		q.idle.mu.Lock()
		defer q.idle.mu.Unlock()
		rest := 0
		for _, w := range q.idle.waiters {
			if w.rests {
				rest++
			}
		}
		return rest == n
	})
	if err := q.nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
}

// proxy is a network that can be slow, cut and frozen.
type proxy struct {
	l      net.Listener
	target string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	delay  time.Duration
	frozen chan struct{} // nil, or closed when the ice melts
	refuse bool
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: strings.TrimPrefix(target, "nats://"), conns: map[net.Conn]bool{}}
	t.Cleanup(func() { l.Close(); p.melt(); p.cut(true) })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			refuse := p.refuse
			p.mu.Unlock()
			out, err := net.Dial("tcp", p.target)
			if refuse || err != nil {
				in.Close()
				if err == nil {
					out.Close()
				}
				continue
			}
			p.mu.Lock()
			p.conns[in], p.conns[out] = true, true
			p.mu.Unlock()
			go p.pump(in, out)
			go p.pump(out, in)
		}
	}()
	return p
}

func (p *proxy) url() string { return "nats://" + p.l.Addr().String() }

func (p *proxy) pump(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		delay, frozen := p.delay, p.frozen
		p.mu.Unlock()
		if delay > 0 {
			<-time.After(delay)
		}
		if frozen != nil {
			<-frozen
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) slow(d time.Duration) { p.mu.Lock(); p.delay = d; p.mu.Unlock() }

func (p *proxy) freeze() { p.mu.Lock(); p.frozen = make(chan struct{}); p.mu.Unlock() }

func (p *proxy) melt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

// cut breaks all connections, and with refuse those to come.
func (p *proxy) cut(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

func (p *proxy) mend() { p.mu.Lock(); p.refuse = false; p.mu.Unlock() }

// raw is a connection that does what no Queue does.
func raw(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// foreign is a server that was not set up for a fleet.
func foreign(t *testing.T, payload int32) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxPayload: payload, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the broker is not ready")
	}
	return srv.ClientURL()
}
