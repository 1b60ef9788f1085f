package faultproxy

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// Fault is what happens to one request. The zero value lets it pass.
type Fault struct {
	// Status, if not 0, is answered in the server's place, with an error document as
	// S3 sends it, of this Code and Message.
	Status        int
	Code, Message string
	Header        http.Header
	// After lets the server do the request first, and then loses its answer: the
	// client hears Status, or if that is 0 that the connection broke.
	After bool
	// Truncate, if positive, breaks the connection after so many bytes of the answer's body.
	Truncate int64
	// Break ends the connection at once, without asking the server.
	Break bool
}

// HTTP is a reverse proxy that asks a function what to do with each request.
type HTTP struct {
	server *httptest.Server

	mu       sync.Mutex
	fault    func(*http.Request) Fault
	requests int
}

// NewHTTP stands before the server at endpoint, a URL.
func NewHTTP(t testing.TB, endpoint string) *HTTP {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &HTTP{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(proxy, w, r) }))
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	return p
}

// URL is where clients connect to.
func (p *HTTP) URL() string { return p.server.URL }

// Set has fault decide about every request from now on, one at a time; nil lets
// all pass.
func (p *HTTP) Set(fault func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// Requests is the number of requests so far.
func (p *HTTP) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

func (p *HTTP) serve(proxy http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests++
	var f Fault
	if p.fault != nil {
		f = p.fault(r)
	}
	p.mu.Unlock()
	switch {
	case f.Break:
		panic(http.ErrAbortHandler)
	case f.After:
		proxy.ServeHTTP(httptest.NewRecorder(), r)
		if f.Status == 0 {
			panic(http.ErrAbortHandler)
		}
	case f.Status == 0 && f.Truncate > 0:
		proxy.ServeHTTP(&short{ResponseWriter: w, left: f.Truncate}, r)
		return
	case f.Status == 0:
		proxy.ServeHTTP(w, r)
		return
	}
	io.Copy(io.Discard, r.Body)
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>%s</Code><Message>%s</Message><RequestId>1</RequestId></Error>", f.Code, f.Message)
	}
}

// short breaks the connection within the body.
type short struct {
	http.ResponseWriter
	left int64
}

func (s *short) Write(p []byte) (int, error) {
	if int64(len(p)) >= s.left {
		s.ResponseWriter.Write(p[:s.left])
		http.NewResponseController(s.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	s.left -= int64(len(p))
	return s.ResponseWriter.Write(p)
}

// Unwrap lets the proxy flush.
func (s *short) Unwrap() http.ResponseWriter { return s.ResponseWriter }
