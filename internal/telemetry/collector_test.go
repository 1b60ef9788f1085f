package telemetry

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/task"
)

// safe is a buffer that several goroutines write to.
type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safe) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), what)
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// TestNothingConfigured costs nothing and hides nothing.
func TestNothingConfigured(t *testing.T) {
	t.Parallel()
	for _, getenv := range []func(string) string{env(), env("OTEL_SDK_DISABLED", "true", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")} {
		tel, err := Start(t.Context(), Options{Getenv: getenv, Stderr: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		if tel.tracing || tel.measuring || tel.MetricsAddr() != "" {
			t.Error("something is collected")
		}
		b := spy{}
		if tel.Bucket(b) != b {
			t.Error("a bucket is measured for nobody")
		}
		r, m := tel.Run("R"), message("R", 1)
		w, err := tel.Worker("w", 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, ended := w.Attempt(t.Context(), m, 1)
		ended(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1})
		r.Began(t.Context(), 1, 0)
		ctx, end := r.Published(t.Context(), m, ReasonFirst)
		end(true, nil)
		if _, has := ctx.Deadline(); has {
			t.Error("the context has changed")
		}
		r.Finished(t.Context(), "done", nil)
		if err := tel.ObserveBacklog(nil); err != nil {
			t.Error(err)
		}
		tel.Flush(t.Context())
		tel.Shutdown(t.Context())
	}
}

// TestCollectorDown has a fleet that goes on as if there were a collector, and a log
// that says once that there is none.
func TestCollectorDown(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close() // and now nobody listens there
	for _, protocol := range []string{protocolGRPC, protocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			var log safe
			tel, err := Start(t.Context(), Options{Stderr: &log, Getenv: env(
				"OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+nobody, "OTEL_EXPORTER_OTLP_PROTOCOL", protocol)})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			w, err := tel.Worker("w", 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			for range 200 {
				_, end := w.Attempt(t.Context(), message("R", 1), 1)
				end(AttemptEnd{Attempt: "A", Outcome: task.AttemptDone, Err: nil, Bytes: 1})
			}
			if took := time.Since(begin); took > giveUp {
				t.Errorf("attempts waited for the collector: %s", took)
			}
			tel.collector.mu.Lock()
			tel.collector.down = true // as if an export had failed before: then stopping is quick
			tel.collector.mu.Unlock()
			begin = time.Now()
			tel.Flush(t.Context())
			tel.Shutdown(t.Context())
			if took := time.Since(begin); took >= patience {
				t.Errorf("stopping took %s", took)
			}
		})
	}
}

// TestCollectorIsReportedOnce covers what the log says of a collector.
func TestCollectorIsReportedOnce(t *testing.T) {
	t.Parallel()
	var log safe
	logger, err := NewLogger(&log, LogText, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{log: logger}
	bad := errors.New("dial http://u:secret@c: refused")
	for _, e := range []error{bad, bad, nil, nil, bad} {
		if c.report(traces, e) {
			t.Error("a collector that is down is taken for one that refuses traces")
		}
	}
	if n := log.count("cannot be reached"); n != 2 {
		t.Errorf("%d reports of two outages", n)
	}
	if n := log.count("answers again"); n != 1 {
		t.Errorf("%d reports of one recovery", n)
	}
	if log.count("secret") != 0 {
		t.Error("the log tells a password")
	}
}

// TestCollectorWithoutMetrics is like Jaeger, which takes traces only.
func TestCollectorWithoutMetrics(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		if r.URL.Path != "/v1/traces" {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	var log safe
	tel, err := Start(t.Context(), Options{Stderr: &log, Getenv: env("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tel.Run("R").Began(t.Context(), 1, 1)
		tel.Flush(t.Context())
	}
	tel.Shutdown(t.Context())
	mu.Lock()
	defer mu.Unlock()
	if asked["/v1/metrics"] != 1 || asked["/v1/traces"] < 3 {
		t.Errorf("asked for %v", asked)
	}
	if log.count("does not take metrics") != 1 || log.count("OTEL_METRICS_EXPORTER=none") != 1 || log.count("cannot be reached") != 0 {
		t.Errorf("log: %s", log.b.String())
	}
}
