package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	answer := func(code int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				code = http.StatusNotFound
			}
			w.WriteHeader(code)
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for address, want := range map[string]int{
		answer(http.StatusOK): 0, answer(http.StatusServiceUnavailable): exitFailed, strings.TrimPrefix(gone.URL, "http://"): exitFailed, "%": exitInvalid,
	} {
		if got := run([]string{"health", "--metrics", address}, io.Discard, io.Discard); got != want {
			t.Errorf("%s: exit code %d, want %d", address, got, want)
		}
	}
}
