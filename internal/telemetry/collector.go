package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An export is given up after giveUp, so that the log tells of a collector that is
// down while somebody may still look.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 3 * time.Second
	giveUp     = 8 * time.Second
)

// collector keeps what goes wrong on the way to a collector off everybody's way:
// it is logged once for each time that the collector fails, and the data is dropped.
type collector struct {
	log *slog.Logger

	mu   sync.Mutex
	down bool
}

// report takes note of an export and says whether the collector will never take
// such data.
func (c *collector) report(s signal, err error) (refused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		if c.down {
			c.down = false
			c.log.Info("the OpenTelemetry collector answers again")
		}
	case refusesSignal(err):
		c.log.Warn("the OpenTelemetry collector does not take "+string(s)+", none are sent any more; OTEL_"+
			strings.ToUpper(string(s))+"_EXPORTER=none says so beforehand", "err", err)
		return true
	case !c.down:
		c.down = true
		c.log.Warn("the OpenTelemetry collector cannot be reached: the run goes on, what it would have told is dropped", "signal", string(s), "err", err)
	}
	return false
}

func (c *collector) isDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// refusesSignal reports whether the error says that there is a collector, but none
// for this signal: Jaeger, for one, takes no metrics.
func refusesSignal(err error) bool {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if st, ok := status.FromError(e); ok && st.Code() == codes.Unimplemented {
			return true
		}
	}
	return strings.Contains(err.Error(), ": 404 Not Found") || strings.Contains(err.Error(), ": 405 Method Not Allowed")
}

// spans sends spans and reports to the collector instead of to the SDK.
type spans struct {
	sdktrace.SpanExporter
	to  *collector
	off atomic.Bool
}

// ExportSpans never fails: nobody behind it could do anything about it.
func (e *spans) ExportSpans(ctx context.Context, s []sdktrace.ReadOnlySpan) error {
	if !e.off.Load() && e.to.report(traces, e.SpanExporter.ExportSpans(ctx, s)) {
		e.off.Store(true)
	}
	return nil
}

// points sends metrics likewise.
type points struct {
	sdkmetric.Exporter
	to  *collector
	off atomic.Bool
}

// Export never fails.
func (e *points) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	if !e.off.Load() && e.to.report(metrics, e.Exporter.Export(ctx, m)) {
		e.off.Store(true)
	}
	return nil
}

// newSpans opens an exporter, which connects when there is something to send.
func newSpans(ctx context.Context, t *target, to *collector) (*spans, error) {
	var e sdktrace.SpanExporter
	var err error
	switch t.protocol {
	case protocolGRPC:
		o := []otlptracegrpc.Option{otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: giveUp,
		})}
		if t.url != "" {
			o = append(o, otlptracegrpc.WithEndpointURL(t.url))
		}
		e, err = otlptracegrpc.New(ctx, o...)
	default:
		o := []otlptracehttp.Option{otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: giveUp,
		})}
		if t.url != "" {
			o = append(o, otlptracehttp.WithEndpointURL(t.url))
		}
		e, err = otlptracehttp.New(ctx, o...)
	}
	if err != nil {
		return nil, fmt.Errorf("open the exporter of traces: %w", err)
	}
	return &spans{SpanExporter: e, to: to}, nil
}

// newPoints opens an exporter, which connects when there is something to send.
func newPoints(ctx context.Context, t *target, to *collector) (*points, error) {
	var e sdkmetric.Exporter
	var err error
	switch t.protocol {
	case protocolGRPC:
		o := []otlpmetricgrpc.Option{otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: giveUp,
		})}
		if t.url != "" {
			o = append(o, otlpmetricgrpc.WithEndpointURL(t.url))
		}
		e, err = otlpmetricgrpc.New(ctx, o...)
	default:
		o := []otlpmetrichttp.Option{otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: lastRetry, MaxElapsedTime: giveUp,
		})}
		if t.url != "" {
			o = append(o, otlpmetrichttp.WithEndpointURL(t.url))
		}
		e, err = otlpmetrichttp.New(ctx, o...)
	}
	if err != nil {
		return nil, fmt.Errorf("open the exporter of metrics: %w", err)
	}
	return &points{Exporter: e, to: to}, nil
}
