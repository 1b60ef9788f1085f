package telemetry

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shardpress/shardpress/internal/redact"
)

// Protocols of OTLP.
const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// signal is what leaves the process: traces or metrics.
type signal string

const (
	traces  signal = "traces"
	metrics signal = "metrics"
)

// target says where a signal goes. Whatever else the standard environment can say
// (headers, certificates, time limits, compression) the exporters read themselves.
type target struct {
	protocol string
	url      string // empty: the exporter's default, on this machine
}

// targetOf reads the standard environment of OpenTelemetry. nil means that the
// signal does not leave the process, which it does only when it is asked to.
func targetOf(getenv func(string) string, s signal) (*target, error) {
	upper := strings.ToUpper(string(s))
	if off, _ := strconv.ParseBool(getenv("OTEL_SDK_DISABLED")); off {
		return nil, nil
	}
	first := func(names ...string) (string, string) {
		for _, n := range names {
			if v := strings.TrimSpace(getenv(n)); v != "" {
				return n, v
			}
		}
		return "", ""
	}
	own := "OTEL_EXPORTER_OTLP_" + upper + "_"
	endpointName, endpoint := first(own+"ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	switch name, v := first("OTEL_" + upper + "_EXPORTER"); v {
	case "":
		if endpoint == "" {
			return nil, nil
		}
	case "none":
		return nil, nil
	case "prometheus": // --metrics-listen does that
		if s == metrics {
			return nil, nil
		}
		return nil, fmt.Errorf("%s=%s: want otlp or none", name, v)
	case "otlp":
	default:
		return nil, fmt.Errorf("%s=%s: want otlp or none", name, v)
	}
	t := &target{protocol: protocolHTTP, url: endpoint}
	if name, v := first(own+"PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); v != "" {
		if v != protocolGRPC && v != protocolHTTP {
			return nil, fmt.Errorf("%s=%s: want %s or %s", name, v, protocolGRPC, protocolHTTP)
		}
		t.protocol = v
	}
	if t.url == "" {
		return t, nil
	}
	scheme, _, ok := strings.Cut(t.url, "://")
	switch {
	case !ok && t.protocol == protocolGRPC: // the one form without a scheme that the convention allows
		t.url = "https://" + t.url
		if _, v := first(own+"INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"); strings.EqualFold(v, "true") {
			t.url = "http://" + endpoint
		}
	case scheme != "http" && scheme != "https":
		return nil, fmt.Errorf("%s=%s: want a URL with http:// or https://", endpointName, redact.Text(endpoint))
	}
	if t.protocol == protocolHTTP && endpointName == "OTEL_EXPORTER_OTLP_ENDPOINT" {
		t.url = strings.TrimSuffix(t.url, "/") + "/v1/" + string(s)
	}
	return t, nil
}
