package telemetry

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/telemetry/otlptest"
)

// TestJaeger sends a run with a killed worker's redelivery to a real Jaeger and asks
// its API what it makes of it.
func TestJaeger(t *testing.T) {
	t.Parallel()
	program := os.Getenv("SHARDPRESS_TEST_JAEGER")
	if program == "" {
		t.Skip("SHARDPRESS_TEST_JAEGER names no program")
	}
	grpc, web, query := startJaeger(t, program)
	for protocol, endpoint := range map[string]string{otlptest.GRPC: grpc, otlptest.HTTP: web} {
		run := playRun(t, env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL", protocol, "OTEL_METRICS_EXPORTER", "none"))
		spans := traceOf(t, query, RunTraceID(run).String(), 10)
		t.Logf("run %s over %s:\n%s", run, protocol, draw(spans, "", 0))
		byID := map[string]jaegerSpan{}
		count := map[string]int{}
		for _, s := range spans {
			byID[s.ID] = s
			count[s.Name]++
		}
		for name, want := range map[string]int{"run": 1, "run started": 2, "plan": 1, "send task.encode": 1, "claimed task.encode": 2, "process task.encode": 1} {
			if count[name] != want {
				t.Errorf("%s: %d spans %q, want %d", protocol, count[name], name, want)
			}
		}
		for _, s := range spans {
			if s.parent() == "" != (s.Name == "run") {
				t.Errorf("%s: %q has the parent %q", protocol, s.Name, s.parent())
			}
			if strings.HasPrefix(s.Name, "process") || strings.HasPrefix(s.Name, "claimed") {
				if p := byID[s.parent()].Name; p != "send task.encode" {
					t.Errorf("%s: %q is below %q", protocol, s.Name, p)
				}
			}
		}
	}
}

type jaegerSpan struct {
	ID   string `json:"spanID"`
	Name string `json:"operationName"`
	Refs []struct {
		Span string `json:"spanID"`
	} `json:"references"`
	Tags []struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	} `json:"tags"`
	Duration int64 `json:"duration"` // µs
}

func (s jaegerSpan) parent() string {
	if len(s.Refs) == 0 {
		return ""
	}
	return s.Refs[0].Span
}

// draw writes the tree below a span.
func draw(spans []jaegerSpan, parent string, depth int) string {
	var b strings.Builder
	for _, s := range spans {
		if s.parent() != parent {
			continue
		}
		fmt.Fprintf(&b, "%s%s %dµs", strings.Repeat("  ", depth), s.Name, s.Duration)
		for _, tag := range s.Tags {
			switch tag.Key {
			case "worker.name", "messaging.nats.delivery_count", "outcome":
				fmt.Fprintf(&b, " %s=%v", tag.Key, tag.Value)
			}
		}
		b.WriteString("\n" + draw(spans, s.ID, depth+1))
	}
	return b.String()
}

// startJaeger starts it on free ports of loopback and waits until it is ready.
func startJaeger(t *testing.T, program string) (grpc, web, query string) {
	t.Helper()
	free := func() string {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	grpc, web, query = free(), free(), free()
	config := filepath.Join(t.TempDir(), "jaeger.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}
  telemetry:
    metrics: {level: none}
extensions:
  jaeger_storage: {backends: {here: {memory: {max_traces: 100}}}}
  jaeger_query:
    storage: {traces: here}
    http: {endpoint: "%s"}
    grpc: {endpoint: "%s"}
receivers:
  otlp:
    protocols: {grpc: {endpoint: "%s"}, http: {endpoint: "%s"}}
exporters:
  jaeger_storage_exporter: {trace_storage: here}
`, query, free(), grpc, web), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "--config", config)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		said := bufio.NewScanner(log)
		var last string
		for said.Scan() {
			last = said.Text()
			if strings.Contains(last, "Everything is ready") {
				ready <- true
				_, _ = io.Copy(io.Discard, log) // it must not wait for us
				return
			}
		}
		t.Logf("jaeger: %s", last)
		ready <- false
	}()
	t.Cleanup(func() {
		<-ended
		_ = cmd.Wait() // it was killed
	})
	if !<-ready {
		t.Fatal("jaeger did not start")
	}
	return grpc, web, "http://" + query
}

// traceOf asks for a trace until it has that many spans: Jaeger takes a moment.
func traceOf(t *testing.T, query, id string, spans int) []jaegerSpan {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		var answer struct {
			Data []struct{ Spans []jaegerSpan }
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, query+"/api/traces/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(b, &answer) == nil && len(answer.Data) == 1 && len(answer.Data[0].Spans) >= spans {
			return answer.Data[0].Spans
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("trace %s did not come: %s", id, b)
		}
	}
}
