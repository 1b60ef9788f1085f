package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// scope names this program's instrumentation in what it exports.
const scope = "github.com/shardpress/shardpress"

// Options say what a process tells of itself. Where traces and metrics go is said
// by OpenTelemetry's standard environment.
type Options struct {
	// Service names the process for people: "shardpress-worker".
	Service string
	Version string
	// MetricsListen is the address at which Prometheus may ask; empty for none.
	MetricsListen string
	LogFormat     string // LogText or LogJSON
	LogLevel      string // see ParseLevel
	Stderr        io.Writer
	// Log is the log of a program that has one already; the three above are not used then.
	Log *slog.Logger
	// Getenv reads the environment; nil means the process's.
	Getenv func(string) string
}

// Telemetry is what a process tells of itself. Its methods may be called at any
// time from any goroutine, also after Shutdown.
type Telemetry struct {
	log       *slog.Logger
	tracing   bool // traces go somewhere
	measuring bool // metrics go somewhere
	tracer    trace.Tracer
	metrics   *instruments
	collector *collector

	traces *sdktrace.TracerProvider
	meters *sdkmetric.MeterProvider
	server *server
}

// Off is a Telemetry that tells nothing and logs nothing.
func Off() *Telemetry {
	t := &Telemetry{log: slog.New(slog.DiscardHandler), tracer: tracenoop.NewTracerProvider().Tracer(scope)}
	t.metrics, _ = newInstruments(metricnoop.NewMeterProvider().Meter(scope)) // without a collector nothing can fail
	return t
}

// Start opens what the options and the environment ask for. A collector need not
// be there.
func Start(ctx context.Context, o Options) (*Telemetry, error) {
	t := Off()
	level, err := ParseLevel(o.LogLevel)
	if err != nil {
		return nil, err
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if t.log = o.Log; t.log == nil {
		if t.log, err = NewLogger(o.Stderr, o.LogFormat, level); err != nil {
			return nil, err
		}
	}
	spansTo, err := targetOf(o.Getenv, traces)
	if err != nil {
		return nil, err
	}
	pointsTo, err := targetOf(o.Getenv, metrics)
	if err != nil {
		return nil, err
	}
	if spansTo == nil && pointsTo == nil && o.MetricsListen == "" {
		return t, nil
	}
	res, err := describe(ctx, o)
	if err != nil {
		return nil, err
	}
	t.collector = &collector{log: t.log}
	if err := t.startTraces(ctx, o, res, spansTo); err != nil {
		return nil, err
	}
	if err := t.startMetrics(ctx, o, res, pointsTo); err != nil {
		t.Shutdown(ctx)
		return nil, err
	}
	return t, nil
}

// describe says which process this is.
func describe(ctx context.Context, o Options) (*resource.Resource, error) {
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithProcessPID(),
		resource.WithAttributes(
			semconv.ServiceName(o.Service),
			semconv.ServiceNamespace("shardpress"),
			semconv.ServiceVersion(o.Version),
			semconv.ServiceInstanceID(ulid.Make().String()),
		),
		resource.WithFromEnv(), // last: what the user says goes first
	)
	if err != nil {
		return nil, fmt.Errorf("describe the process for OpenTelemetry: is OTEL_RESOURCE_ATTRIBUTES a list of key=value? %w", err)
	}
	return res, nil
}

// soon bounds how long a span that has ended waits to be sent. What a worker says
// at the start of a task must be out before the task kills it.
const soon = time.Second

func (t *Telemetry) startTraces(ctx context.Context, o Options, res *resource.Resource, to *target) error {
	if to == nil {
		return nil
	}
	e, err := newSpans(ctx, to, t.collector)
	if err != nil {
		return err
	}
	var batch []sdktrace.BatchSpanProcessorOption
	if o.Getenv("OTEL_BSP_SCHEDULE_DELAY") == "" {
		batch = append(batch, sdktrace.WithBatchTimeout(soon))
	}
	if o.Getenv("OTEL_BSP_MAX_QUEUE_SIZE") == "" {
		batch = append(batch, sdktrace.WithMaxQueueSize(16<<10)) // a coordinator publishes some thousand tasks at once
	}
	t.traces = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithIDGenerator(ids{}), sdktrace.WithBatcher(e, batch...))
	t.tracer = t.traces.Tracer(scope, trace.WithInstrumentationVersion(o.Version), trace.WithSchemaURL(semconv.SchemaURL))
	t.tracing = true
	return nil
}

func (t *Telemetry) startMetrics(ctx context.Context, o Options, res *resource.Resource, to *target) error {
	options := []sdkmetric.Option{sdkmetric.WithResource(res)}
	if to != nil {
		e, err := newPoints(ctx, to, t.collector)
		if err != nil {
			return err
		}
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(e)))
	}
	if o.MetricsListen != "" {
		s, reader, err := listen(ctx, o.MetricsListen, t.log)
		if err != nil {
			return err
		}
		t.server = s
		options = append(options, sdkmetric.WithReader(reader))
	}
	if len(options) == 1 {
		return nil
	}
	t.meters = sdkmetric.NewMeterProvider(options...)
	meter := t.meters.Meter(scope, metric.WithInstrumentationVersion(o.Version), metric.WithSchemaURL(semconv.SchemaURL))
	m, err := newInstruments(meter)
	if err != nil {
		return err
	}
	t.metrics, t.measuring = m, true
	return m.observeProcess(o.Service, o.Version, time.Now())
}

// Logger writes the process's log.
func (t *Telemetry) Logger() *slog.Logger { return t.log }

// MetricsAddr is where Prometheus may ask, empty if nowhere.
func (t *Telemetry) MetricsAddr() string {
	if t.server == nil {
		return ""
	}
	return t.server.addr
}

// Bounds of what flushing and stopping may take, the second if the collector is
// known not to answer.
const (
	patience     = 5 * time.Second
	noPatience   = 500 * time.Millisecond
	serverCloses = time.Second
)

// Flush sends what has not been sent yet. It takes some seconds at most, and goes
// on when ctx ends.
func (t *Telemetry) Flush(ctx context.Context) {
	t.bounded(ctx, (*sdktrace.TracerProvider).ForceFlush, (*sdkmetric.MeterProvider).ForceFlush)
}

// Shutdown sends what has not been sent yet and ends. It takes some seconds at
// most, and goes on when ctx ends: it is called when things end.
func (t *Telemetry) Shutdown(ctx context.Context) {
	t.bounded(ctx, (*sdktrace.TracerProvider).Shutdown, (*sdkmetric.MeterProvider).Shutdown)
	if t.server != nil {
		t.server.close(context.WithoutCancel(ctx))
	}
}

func (t *Telemetry) bounded(ctx context.Context, spans func(*sdktrace.TracerProvider, context.Context) error,
	points func(*sdkmetric.MeterProvider, context.Context) error,
) {
	if t.collector == nil {
		return
	}
	limit := patience
	if t.collector.isDown() {
		limit = noPatience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	// What an export meets is reported there; here only time can run out.
	late := func(s signal, err error) {
		if errors.Is(err, context.DeadlineExceeded) {
			t.collector.report(s, fmt.Errorf("not everything was sent within %s: %w", limit, err))
		}
	}
	var wg sync.WaitGroup
	if t.traces != nil {
		wg.Go(func() { late(traces, spans(t.traces, ctx)) })
	}
	if t.meters != nil {
		wg.Go(func() { late(metrics, points(t.meters, ctx)) })
	}
	wg.Wait()
}
