package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/shardpress/shardpress/internal/redact"
)

// server answers Prometheus, and whoever asks whether the process is well.
type server struct {
	addr string
	http *http.Server
	done chan struct{}

	mu     sync.Mutex
	checks []check
}

type check struct {
	name string
	well func(context.Context) error
}

// healthWithin bounds the answer to a question for health.
const healthWithin = 2 * time.Second

// listen opens the address and returns the reader that feeds what is asked there.
func listen(ctx context.Context, addr string, log *slog.Logger) (*server, sdkmetric.Reader, error) {
	registry := prometheus.NewRegistry()
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, nil, fmt.Errorf("open the exporter for Prometheus: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for Prometheus on %s: %w", addr, err)
	}
	s := &server{addr: l.Addr().String(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
		ErrorHandling:       promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", s.health)
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are no longer served", "err", err)
		}
	}()
	return s, reader, nil
}

func (s *server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthWithin)
	defer cancel()
	s.mu.Lock()
	checks := append([]check(nil), s.checks...)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, c := range checks {
		if err := c.well(ctx); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "%s: %s\n", c.name, redact.Text(err.Error()))
			return
		}
	}
	fmt.Fprintln(w, "ok")
}

// CheckHealth has /healthz answer 503 with the name and the error for as long as
// well reports one.
func (t *Telemetry) CheckHealth(name string, well func(context.Context) error) {
	if t.server == nil {
		return
	}
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	t.server.checks = append(t.server.checks, check{name, well})
}

func (s *server) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, serverCloses)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // whoever still asks is cut off
	}
	<-s.done
}
