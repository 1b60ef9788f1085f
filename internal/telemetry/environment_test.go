package telemetry

import (
	"strings"
	"testing"
)

func TestTargetOf(t *testing.T) {
	t.Parallel()
	type env = map[string]string
	const endpoint, protocol = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"
	for name, c := range map[string]struct {
		env    env
		signal signal
		want   *target
		err    string
	}{
		"nothing said":       {signal: traces},
		"http by default":    {env{endpoint: "http://c:4318/"}, traces, &target{protocolHTTP, "http://c:4318/v1/traces"}, ""},
		"metrics":            {env{endpoint: "https://c/base"}, metrics, &target{protocolHTTP, "https://c/base/v1/metrics"}, ""},
		"grpc":               {env{endpoint: "http://c:4317", protocol: "grpc"}, traces, &target{protocolGRPC, "http://c:4317"}, ""},
		"grpc, no scheme":    {env{endpoint: "c:4317", protocol: "grpc"}, traces, &target{protocolGRPC, "https://c:4317"}, ""},
		"grpc, insecure":     {env{endpoint: "c:4317", protocol: "grpc", "OTEL_EXPORTER_OTLP_INSECURE": "true"}, traces, &target{protocolGRPC, "http://c:4317"}, ""},
		"own endpoint as is": {env{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x", endpoint: "http://d"}, traces, &target{protocolHTTP, "http://c/x"}, ""},
		"only traces":        {env{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, metrics, nil, ""},
		"own protocol":       {env{endpoint: "http://c", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, metrics, &target{protocolGRPC, "http://c"}, ""},
		"none":               {env{endpoint: "http://c", "OTEL_METRICS_EXPORTER": "none"}, metrics, nil, ""},
		"prometheus":         {env{endpoint: "http://c", "OTEL_METRICS_EXPORTER": "prometheus"}, metrics, nil, ""},
		"otlp at its place":  {env{"OTEL_TRACES_EXPORTER": "otlp"}, traces, &target{protocolHTTP, ""}, ""},
		"disabled":           {env{endpoint: "http://c", "OTEL_SDK_DISABLED": "true"}, traces, nil, ""},
		"other exporter":     {env{"OTEL_TRACES_EXPORTER": "zipkin"}, traces, nil, "OTEL_TRACES_EXPORTER=zipkin"},
		"other protocol":     {env{endpoint: "http://c", protocol: "http/json"}, traces, nil, "want grpc or http/protobuf"},
		"no URL":             {env{endpoint: "c:4318"}, traces, nil, "want a URL"},
		"secret not told":    {env{endpoint: "ftp://u:secret@c"}, traces, nil, "ftp://c"},
	} {
		got, err := targetOf(func(n string) string { return c.env[n] }, c.signal)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: error %v, want %q", name, err, c.err)
			}
		case err != nil || (got == nil) != (c.want == nil) || got != nil && *got != *c.want:
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}
