// Package otlptest is a collector inside the test's process: it takes traces and
// metrics by OTLP over gRPC and HTTP and keeps them for the test to look at.
package otlptest

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	colmetric "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // exporters may be told to compress
	"google.golang.org/protobuf/proto"
)

// Protocols of the two addresses, as OTEL_EXPORTER_OTLP_PROTOCOL has them.
const (
	GRPC = "grpc"
	HTTP = "http/protobuf"
)

// maxBody bounds what is read of a request over HTTP.
const maxBody = 64 << 20

// Receiver is a collector.
type Receiver struct {
	grpc, http string

	mu      sync.Mutex
	changed chan struct{} // closed when more has come
	spans   []Span
	points  map[string]bool
}

// Span is one span as it was received.
type Span struct {
	Service      string
	Name         string
	Kind         string // PRODUCER, CONSUMER, INTERNAL
	Trace        string
	ID, Parent   string
	Links        []string // IDs of spans
	LinkTraces   []string
	Error        string
	Attributes   map[string]string
	Events       []string
	Started, End time.Time
}

// Start starts a collector on loopback for as long as the test lasts.
func Start(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{changed: make(chan struct{}), points: map[string]bool{}}
	open := func() net.Listener {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	r.grpc = "http://" + l.Addr().String()
	g := grpc.NewServer()
	coltrace.RegisterTraceServiceServer(g, traceService{r: r})
	colmetric.RegisterMetricsServiceServer(g, metricsService{r: r})
	go func() { _ = g.Serve(l) }() // Stop ends it
	t.Cleanup(g.Stop)

	web := open()
	r.http = "http://" + web.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, q *http.Request) {
		var m coltrace.ExportTraceServiceRequest
		if read(w, q, &m) {
			r.addSpans(m.GetResourceSpans())
		}
	})
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, q *http.Request) {
		var m colmetric.ExportMetricsServiceRequest
		if read(w, q, &m) {
			r.addPoints(&m)
		}
	})
	h := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = h.Serve(web) }() // Close ends it
	t.Cleanup(func() { _ = h.Close() })
	return r
}

func read(w http.ResponseWriter, q *http.Request, m proto.Message) bool {
	body := io.Reader(q.Body)
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return false
		}
		body = z
	}
	b, err := io.ReadAll(io.LimitReader(body, maxBody))
	if err == nil {
		err = proto.Unmarshal(b, m)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	return true
}

type traceService struct {
	coltrace.UnimplementedTraceServiceServer
	r *Receiver
}

func (s traceService) Export(_ context.Context, m *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	s.r.addSpans(m.GetResourceSpans())
	return &coltrace.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	colmetric.UnimplementedMetricsServiceServer
	r *Receiver
}

func (s metricsService) Export(_ context.Context, m *colmetric.ExportMetricsServiceRequest) (*colmetric.ExportMetricsServiceResponse, error) {
	s.r.addPoints(m)
	return &colmetric.ExportMetricsServiceResponse{}, nil
}

// Getenv is an environment that sends everything here over that protocol.
func (r *Receiver) Getenv(protocol string) func(string) string {
	url := r.http
	if protocol == GRPC {
		url = r.grpc
	}
	return func(name string) string {
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}[name]
	}
}

// Spans are those that have come so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Span(nil), r.spans...)
}

// Metrics reports which metrics have come so far.
func (r *Receiver) Metrics() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]bool{}
	for n := range r.points {
		names[n] = true
	}
	return names
}

// Wait waits until what has come is enough, for as long as the test may run.
func (r *Receiver) Wait(t testing.TB, enough func([]Span) bool) []Span {
	t.Helper()
	for {
		r.mu.Lock()
		spans, changed := append([]Span(nil), r.spans...), r.changed
		r.mu.Unlock()
		if enough(spans) {
			return spans
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("the spans never came; have %d", len(spans))
		}
	}
}

func (r *Receiver) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Receiver) addPoints(m *colmetric.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rm := range m.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, one := range sm.GetMetrics() {
				r.points[one.GetName()] = true
			}
		}
	}
	r.tell()
}

func (r *Receiver) addSpans(all []*tracepb.ResourceSpans) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range all {
		service := text(rs.GetResource().GetAttributes())["service.name"]
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				one := Span{
					Service: service, Name: s.GetName(), Kind: s.GetKind().String()[len("SPAN_KIND_"):],
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Attributes: text(s.GetAttributes()),
					Started:    time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
				}
				if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
					one.Error = s.GetStatus().GetMessage()
				}
				for _, l := range s.GetLinks() {
					one.Links = append(one.Links, hex.EncodeToString(l.GetSpanId()))
					one.LinkTraces = append(one.LinkTraces, hex.EncodeToString(l.GetTraceId()))
				}
				for _, e := range s.GetEvents() {
					line := e.GetName()
					for k, v := range text(e.GetAttributes()) {
						line += " " + k + "=" + v
					}
					one.Events = append(one.Events, line)
				}
				r.spans = append(r.spans, one)
			}
		}
	}
	r.tell()
}

func text(kvs []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range kvs {
		v := kv.GetValue()
		switch v.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.GetKey()] = v.GetStringValue()
		case *commonpb.AnyValue_IntValue:
			m[kv.GetKey()] = strconv.FormatInt(v.GetIntValue(), 10)
		default:
			m[kv.GetKey()] = v.String()
		}
	}
	return m
}
