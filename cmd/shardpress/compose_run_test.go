package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/internal/telemetry/otlptest"
)

// composed runs the services of docker-compose.yml as processes on loopback: with
// their own command lines, environment and configuration, in which only addresses
// and directories are others. It stands in for an engine.
type composed struct {
	t        *testing.T
	dir      string
	project  *types.Project
	programs map[string]string // by the image's repository
	// addresses are what stands for a service's port, "nats:4222".
	addresses map[string]string
}

// process is a container that is none.
type process struct {
	name    string
	service types.ServiceConfig
	cmd     *exec.Cmd
	metrics string // address
	env     []string
	exited  chan struct{}
	log     *output
}

// output is what a process said.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// freeAddress is a port on loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program builds a command, once for each test.
func (c *composed) program(name, pkg string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	build := exec.CommandContext(c.t.Context(), "go", "build", "-o", path, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		c.t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// local rewrites what holds for containers into what holds here: addresses of other
// services, addresses to listen on, and directories that are mounted.
func (c *composed) local(s types.ServiceConfig, home string, text string, listen map[string]string) string {
	for name, address := range c.addresses {
		text = strings.ReplaceAll(text, name, address)
	}
	for port, address := range listen {
		text = regexp.MustCompile(`(^|[="\s])(0\.0\.0\.0|127\.0\.0\.1)?:`+port+`\b`).ReplaceAllString(text, "${1}"+address)
	}
	for _, target := range mounts(s) {
		text = regexp.MustCompile(`(^|[="\s])`+regexp.QuoteMeta(target)+`($|[/"\s])`).ReplaceAllString(text, "${1}"+filepath.Join(home, target)+"${2}")
	}
	return text
}

// mounts are the directories that a service gets.
func mounts(s types.ServiceConfig) []string {
	var all []string
	for _, v := range s.Volumes {
		all = append(all, v.Target)
	}
	for _, line := range s.Tmpfs {
		target, _, _ := strings.Cut(line, ":")
		all = append(all, target)
	}
	return slices.DeleteFunc(all, func(target string) bool { return target == "/tmp" })
}

func healthTest(s types.ServiceConfig) []string {
	if s.HealthCheck == nil {
		return nil
	}
	return s.HealthCheck.Test
}

// servedPorts are those that a service publishes, and the one that its health check asks.
func servedPorts(s types.ServiceConfig) []string {
	var all []string
	for _, port := range s.Ports {
		all = append(all, strconv.Itoa(int(port.Target)))
	}
	if m := regexp.MustCompile(`http://127\.0\.0\.1:(\d+)`).FindStringSubmatch(strings.Join(healthTest(s), " ")); m != nil {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// start runs one replica of a service.
func (c *composed) start(name string, replica int) *process {
	c.t.Helper()
	s := c.project.Services[name]
	home := filepath.Join(c.dir, name+strconv.Itoa(replica))
	for _, target := range mounts(s) {
		if err := os.MkdirAll(filepath.Join(home, target), 0o700); err != nil {
			c.t.Fatal(err)
		}
	}
	p := &process{name: name, service: s, exited: make(chan struct{}), log: &output{}, metrics: freeAddress(c.t)}
	listen := map[string]string{"9464": p.metrics}
	for _, port := range servedPorts(s) {
		listen[port] = c.addresses[name+":"+port]
	}
	for variable, value := range s.Environment {
		if value != nil {
			p.env = append(p.env, variable+"="+c.local(s, home, *value, listen))
		}
	}
	slices.Sort(p.env)
	args := make([]string, len(s.Command))
	for i, a := range s.Command {
		args[i] = c.local(s, home, a, listen)
	}
	for _, m := range s.Configs {
		path := filepath.Join(home, "config", filepath.Base(m.Target))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(c.local(s, home, configText(c.t, c.project.Configs[m.Source]), listen)), 0o600); err != nil {
			c.t.Fatal(err)
		}
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], m.Target, path)
		}
	}
	image, _, _ := strings.Cut(s.Image, ":")
	if image == "versity/versitygw" { // the image's entry point makes arguments of variables
		data := commandFlag(p.env, "VGW_BACKEND_ARG")
		if !s3test.HoldsAttributes(data) {
			sidecar := filepath.Join(home, "metadata")
			if err := os.MkdirAll(sidecar, 0o700); err != nil {
				c.t.Fatal(err)
			}
			p.env = append(p.env, "VGW_META_SIDECAR="+sidecar)
		}
		args = []string{commandFlag(p.env, "VGW_BACKEND"), data}
	}
	if c.programs[image] == "" {
		c.t.Fatalf("%s: nothing stands for image %s", name, s.Image)
	}
	p.cmd = exec.Command(c.programs[image], args...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = home, p.env, p.log, p.log
	if err := os.MkdirAll(home, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says it
	}()
	c.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // gone already, where all is well
		<-p.exited
		if c.t.Failed() {
			c.t.Logf("%s %d, %s %q, said:\n%s", name, replica, p.cmd.Path, p.cmd.Args[1:], tail(p.log.String(), 4000))
		}
	})
	return p
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// until asks again and again until the answer is yes, the process has ended, or a
// minute has gone by.
func (c *composed) until(p *process, what string, ask func(ctx context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for pause := time.NewTicker(20 * time.Millisecond); ; {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-p.exited:
			c.t.Fatalf("%s ended: %s", p.name, p.cmd.ProcessState)
		case <-ctx.Done():
			c.t.Fatalf("%s: %s: %v", p.name, what, err)
		case <-pause.C:
		}
	}
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return nil
}

// healthy waits for what the service's health check asks for.
func (c *composed) healthy(p *process) {
	c.t.Helper()
	test := p.service.HealthCheck.Test
	if ours(p.service) {
		c.until(p, "health check", func(ctx context.Context) error {
			args := append(slices.Clone(test[2:]), "--metrics", p.metrics)
			check := exec.CommandContext(ctx, p.cmd.Path, args...)
			check.Env, check.Dir = p.env, p.cmd.Dir
			out, err := check.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		c.until(p, "metrics", func(ctx context.Context) error {
			return errors.Join(get(ctx, "http://"+p.metrics+"/healthz"), get(ctx, "http://"+p.metrics+"/metrics"))
		})
		return
	}
	url := test[len(test)-1]
	for _, port := range servedPorts(p.service) {
		url = strings.Replace(url, "127.0.0.1:"+port, c.addresses[p.name+":"+port], 1)
	}
	c.until(p, "health check", func(ctx context.Context) error { return get(ctx, url) })
}

// stop ends a process as an engine would.
func (c *composed) stop(p *process) {
	c.t.Helper()
	grace := 10 * time.Second
	if g := p.service.StopGracePeriod; g != nil {
		grace = time.Duration(*g)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Errorf("stop %s: %v", p.name, err)
		return
	}
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			c.t.Errorf("%s ended with %d when it was told to stop", p.name, code)
		}
	case <-time.After(grace):
		c.t.Errorf("%s did not stop within %s", p.name, grace)
	}
}

// client is the environment that deploy/compose/client.sh makes.
func (c *composed) client() []string {
	c.t.Helper()
	var env []string
	for line := range strings.Lines(readRepository(c.t, "deploy/compose/client.sh")) {
		if exports, ok := strings.CutPrefix(line, "export "); ok {
			env = append(env, strings.Fields(exports)...)
		}
	}
	for i := range env {
		for _, service := range []string{"nats:4222", "s3:7070"} {
			_, port, _ := strings.Cut(service, ":")
			env[i] = strings.Replace(env[i], "127.0.0.1:"+port, c.addresses[service], 1)
		}
	}
	return env
}

// TestComposeRun brings docker-compose.yml up without an engine: the real NATS server,
// versitygw and our program, each with the command line, the environment, the
// configuration and the health check that stand in the file, and a collector in
// Jaeger's place. A run submitted to it gives the bytes of a single process.
func TestComposeRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs five programs")
	}
	t.Parallel()
	project, err := parseCompose(t, readRepository(t, composeFile), map[string]string{"WORKERS": "2"})
	if err != nil {
		t.Fatal(err)
	}
	c := &composed{t: t, dir: t.TempDir(), project: project, addresses: map[string]string{}}
	c.programs = map[string]string{
		"nats":              c.program("nats-server", "github.com/nats-io/nats-server/v2"),
		"versity/versitygw": s3test.Program(t),
		"shardpress":        c.program("shardpress", "."),
	}
	collector := otlptest.Start(t)
	for _, name := range []string{"nats", "s3"} {
		for _, port := range servedPorts(project.Services[name]) {
			c.addresses[name+":"+port] = freeAddress(t)
		}
	}
	c.addresses["jaeger:4318"] = strings.TrimPrefix(collector.Getenv(otlptest.HTTP)("OTEL_EXPORTER_OTLP_ENDPOINT"), "http://")

	servers := []*process{c.start("nats", 1), c.start("s3", 1)}
	for _, p := range servers {
		c.healthy(p)
	}
	init := c.start("init", 1)
	select {
	case <-init.exited:
	case <-time.After(time.Minute):
		t.Fatal("init does not end")
	}
	if code := init.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("init ended with %d", code)
	}
	fleet := []*process{c.start("coordinator", 1)}
	for i := range *project.Services["worker"].Deploy.Replicas {
		fleet = append(fleet, c.start("worker", i+1))
	}
	for _, p := range fleet {
		c.healthy(p)
	}

	// From outside, with what docs/deploy.md tells to export.
	model := filepath.Join(repository(t), "testdata/models/story")
	alone, together := filepath.Join(c.dir, "alone"), filepath.Join(c.dir, "together")
	mustCall(t, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", alone, "--store", filepath.Join(c.dir, "store"))
	env := c.client()
	client := exec.CommandContext(t.Context(), c.programs["shardpress"], "compress", "--nats", commandFlag(env, "NATS_URL"),
		"--model", model, "--recipe", "w4a16-rtn", "--out", together)
	client.Env = append(env, "HOME="+c.dir, "TMPDIR="+c.dir)
	if out, err := client.CombinedOutput(); err != nil {
		t.Fatalf("compress: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(alone, "*.safetensors"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d weight files, %v", len(files), err)
	}
	for _, name := range files {
		want, err1 := os.ReadFile(name)
		got, err2 := os.ReadFile(filepath.Join(together, filepath.Base(name)))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from the single process's: %v", filepath.Base(name), err)
		}
	}
	mustCall(t, "verify", "--model", model, together)
	for _, p := range slices.Concat(fleet, servers) {
		c.stop(p)
	}
	services := map[string]bool{}
	for _, s := range collector.Spans() { // they are flushed at the end
		services[s.Service] = true
	}
	if len(services) < 2 {
		t.Errorf("traces of %v only", services)
	}
	for _, p := range slices.Concat(fleet, servers, []*process{init}) {
		for _, secret := range []string{"objects-on-loopback", "coordinators-on-loopback", "workers-on-loopback", "clients-on-loopback"} {
			if strings.Contains(p.log.String(), secret) {
				t.Errorf("%s prints %s", p.name, secret)
			}
		}
	}
}
