package main

import (
	"context"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/internal/telemetry"
)

// telemetryFlags say how a process that runs on its own tells of itself. Where traces
// and metrics go by OTLP is OpenTelemetry's own environment's to say.
type telemetryFlags struct {
	metricsListen, logFormat, logLevel string
}

func (f *telemetryFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.metricsListen, "metrics-listen", "", "address for Prometheus, such as 127.0.0.1:9464: /metrics, and /healthz (default none)")
	c.Flags().StringVar(&f.logFormat, "log-format", telemetry.LogText, "format of the log on standard error: text or json")
	c.Flags().StringVar(&f.logLevel, "log-level", "info", "least level of records in the log: debug, info, warn or error")
}

// start begins to tell of a process called service. Whoever calls it calls Shutdown.
func (f *telemetryFlags) start(c *cobra.Command, service string) (*telemetry.Telemetry, error) {
	t, err := telemetry.Start(c.Context(), telemetry.Options{
		Service: service, Version: programVersion(), MetricsListen: f.metricsListen,
		LogFormat: f.logFormat, LogLevel: f.logLevel, Stderr: c.ErrOrStderr(),
	})
	if err != nil {
		return nil, &usageError{err}
	}
	return t, nil
}

// follow begins to tell of a command with a log for people, if the environment names
// a collector.
func follow(ctx context.Context, log *slog.Logger) (*telemetry.Telemetry, error) {
	t, err := telemetry.Start(ctx, telemetry.Options{Service: "shardpress", Version: programVersion(), Log: log})
	if err != nil {
		return nil, &usageError{err}
	}
	return t, nil
}

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown)"
}
