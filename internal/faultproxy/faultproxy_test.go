package faultproxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/faultproxy"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// talk sends a text and reads as much as comes back.
func talk(t *testing.T, addr, text string) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	return string(got), err
}

func TestTCP(t *testing.T) {
	t.Parallel()
	p := faultproxy.NewTCP(t, echo(t))
	text := strings.Repeat("some text ", 20_000)
	if got, err := talk(t, p.Addr(), text); err != nil || got != text {
		t.Fatalf("%d bytes came back of %d, %v", len(got), len(text), err)
	}
	const latency = 30 * time.Millisecond
	p.SetLatency(latency)
	start := time.Now()
	if got, err := talk(t, p.Addr(), text); err != nil || got != text || time.Since(start) < 2*latency {
		t.Errorf("%d bytes came back after %v, %v", len(got), time.Since(start), err)
	}
	p.SetLatency(0)
	p.Cut(1000, -1)
	if got, err := talk(t, p.Addr(), text); err == nil && got == text {
		t.Error("not cut on the way up")
	}
	<-p.Cuts()
	p.Cut(-1, 1000)
	if got, err := talk(t, p.Addr(), text); len(got) > 1000 {
		t.Errorf("%d bytes came down, %v", len(got), err)
	}
	<-p.Cuts()
	if got, err := talk(t, p.Addr(), text); err != nil || got != text {
		t.Errorf("after the cuts: %d bytes came back, %v", len(got), err)
	}
	p.Refuse(true)
	if got, err := talk(t, p.Addr(), text); err == nil && got != "" {
		t.Error("not refused")
	}
	p.Refuse(false)
	if p.Served() == 0 {
		t.Error("counted no connection")
	}
}

func TestTCPStall(t *testing.T) {
	t.Parallel()
	p := faultproxy.NewTCP(t, echo(t))
	p.Stall()
	got := make(chan string)
	go func() {
		text, _ := talk(t, p.Addr(), "hello")
		got <- text
	}()
	select {
	case text := <-got:
		t.Errorf("%q came through", text)
	case <-time.After(20 * time.Millisecond): // if nothing comes for ever there is nothing to wait for
	}
	p.Resume()
	if text := <-got; text != "hello" {
		t.Errorf("%q came back", text)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("0123456789"), 10_000)
	done := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done++
		w.Header().Set("Seen-Host", r.Host)
		w.Write(body)
	}))
	t.Cleanup(server.Close)
	p := faultproxy.NewHTTP(t, server.URL)
	get := func() (status int, host string, got []byte, err error) {
		resp, err := http.Get(p.URL() + "/x")
		if err != nil {
			return 0, "", nil, err
		}
		defer resp.Body.Close()
		got, err = io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header.Get("Seen-Host"), got, err
	}
	_, host, got, err := get()
	if err != nil || !bytes.Equal(got, body) || "http://"+host != p.URL() {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for _, test := range []struct {
		name   string
		fault  faultproxy.Fault
		status int
		calls  int // of the server
	}{
		{"slow down", faultproxy.Fault{Status: 503, Code: "SlowDown"}, 503, 0},
		{"answer lost", faultproxy.Fault{After: true}, 0, 1},
		{"done and failed", faultproxy.Fault{After: true, Status: 500}, 500, 1},
		{"break", faultproxy.Fault{Break: true}, 0, 0},
	} {
		before := done
		p.Set(func(*http.Request) faultproxy.Fault { return test.fault })
		status, _, got, err := get()
		switch {
		case test.status == 0 && err == nil:
			t.Errorf("%s: %d", test.name, status)
		case test.status != 0 && (err != nil || status != test.status || !strings.Contains(string(got), "<Code>"+test.fault.Code)):
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
		// The transport may send a GET whose connection broke a second time.
		if calls := done - before; calls < test.calls || test.calls == 0 && calls > 0 {
			t.Errorf("%s: the server was asked %d times, want %d", test.name, calls, test.calls)
		}
	}
	p.Set(func(*http.Request) faultproxy.Fault { return faultproxy.Fault{Truncate: 50_000} })
	if _, _, got, err := get(); !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 50_000 {
		t.Errorf("truncated: %d bytes, %v", len(got), err)
	}
	p.Set(nil)
	if _, _, got, err := get(); err != nil || len(got) != len(body) || p.Requests() < 7 {
		t.Errorf("after the faults: %d bytes, %v", len(got), err)
	}
}
