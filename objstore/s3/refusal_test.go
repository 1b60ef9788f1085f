package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
)

// count is a fault for the first n requests that a filter lets through.
func count(n int, only func(*http.Request) bool, f faultproxy.Fault) func(*http.Request) faultproxy.Fault {
	return func(r *http.Request) faultproxy.Fault {
		if n == 0 || only != nil && !only(r) {
			return faultproxy.Fault{}
		}
		n--
		return f
	}
}

func method(m string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == m }
}

func TestErrorsThatPass(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	tiny, large := noise(1, 1000), noise(2, 12*mib)
	for _, f := range []faultproxy.Fault{
		{Status: 500, Code: "InternalError"},
		{Status: 503, Code: "SlowDown"},
		{Status: 502},
		{Status: 429, Code: "TooManyRequests"},
		{Status: 408},
		{Break: true},
		{After: true},
		{After: true, Status: 500, Code: "InternalError"},
		{After: true, Status: 504},
	} {
		t.Run(fmt.Sprintf("%d%s%v", f.Status, f.Code, f.After), func(t *testing.T) {
			t.Parallel()
			proxy := faultproxy.NewHTTP(t, server.Endpoint())
			o := small(server)
			o.Endpoint = proxy.URL()
			b := open(t, o)
			b.SetPause(time.Millisecond)
			// Twice in everything.
			proxy.Set(count(2, method(http.MethodPut), f))
			info, err := b.Put(t.Context(), "once", bytes.NewReader(tiny), -1, objstore.PutOptions{IfAbsent: true})
			if err != nil {
				t.Errorf("Put if absent: %v", err)
			}
			if stat, err := b.Stat(t.Context(), "once"); err != nil || stat.Version != info.Version {
				t.Errorf("Put told %+v, Stat %+v, %v", info, stat, err)
			}
			proxy.Set(count(2, method(http.MethodPut), f))
			if _, err := b.Put(t.Context(), "once", bytes.NewReader(tiny), -1, objstore.PutOptions{IfAbsent: true}); !errors.Is(err, objstore.ErrExist) {
				t.Errorf("second Put if absent: %v", err)
			}
			// The beginning, a part, and the end of an upload.
			first := map[string]bool{}
			proxy.Set(func(r *http.Request) faultproxy.Fault {
				step := ""
				switch q := r.URL.Query(); {
				case q.Has("uploads"):
					step = "begin"
				case q.Has("partNumber"):
					step = "part"
				case q.Has("uploadId") && r.Method == http.MethodPost:
					step = "complete"
				}
				if step == "" || first[step] {
					return faultproxy.Fault{}
				}
				first[step] = true
				return f
			})
			if _, err := b.Put(t.Context(), "large", bytes.NewReader(large), -1, objstore.PutOptions{}); err != nil || len(first) != 3 {
				t.Errorf("Put of parts: %v, faults in %v", err, first)
			}
			proxy.Set(count(2, method(http.MethodGet), f))
			same(t, b, "large", large)
			proxy.Set(count(2, method(http.MethodGet), f))
			if got := keys(t, b); len(got) != 2 {
				t.Errorf("List gives %q", got)
			}
			proxy.Set(count(2, nil, f))
			if _, err := b.Copy(t.Context(), "copy", b, "large"); err != nil {
				t.Errorf("Copy: %v", err)
			}
			proxy.Set(count(1, nil, f))
			if err := b.Delete(t.Context(), "copy"); err != nil {
				t.Errorf("Delete: %v", err)
			}
			if _, err := b.Stat(t.Context(), "copy"); !errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("Stat after Delete: %v", err)
			}
		})
	}
}

// What lasts ends in an error, after a bounded number of requests.
func TestErrorsThatLast(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	o.Endpoint, o.Retries = proxy.URL(), 2
	b := open(t, o)
	b.SetPause(time.Microsecond)
	mustPut(t, b, "old", []byte("as it was"))
	unnamed := errors.New("any, but no sentinel")
	for _, test := range []struct {
		fault         faultproxy.Fault
		write, read   error
		text          string
		requestsAMost int
	}{
		{faultproxy.Fault{Status: 500, Code: "InternalError", Message: "we are sorry"}, unnamed, unnamed, "we are sorry", 3},
		{faultproxy.Fault{Status: 503, Code: "SlowDown"}, unnamed, unnamed, "SlowDown", 3},
		{faultproxy.Fault{Status: 507, Code: "Whatever"}, objstore.ErrFull, objstore.ErrFull, "free space", 1},
		{faultproxy.Fault{Status: 403, Code: "QuotaExceeded"}, objstore.ErrFull, objstore.ErrFull, "quota", 1},
		{faultproxy.Fault{Status: 507, Code: "XMinioStorageFull"}, objstore.ErrFull, objstore.ErrFull, "", 1},
		{faultproxy.Fault{Status: 409, Code: "InsufficientCapacity"}, objstore.ErrFull, objstore.ErrFull, "", 1},
		{faultproxy.Fault{Status: 403, Code: "AccessDenied"}, objstore.ErrReadOnly, objstore.ErrRoot, "policy", 1},
		{faultproxy.Fault{Status: 405, Code: "MethodNotAllowed"}, objstore.ErrReadOnly, unnamed, "", 1},
		{faultproxy.Fault{Status: 404, Code: "NoSuchBucket"}, objstore.ErrRoot, objstore.ErrRoot, "doctor --create", 1},
		{faultproxy.Fault{Status: 403, Code: "SignatureDoesNotMatch"}, objstore.ErrRoot, objstore.ErrRoot, "AWS_SECRET_ACCESS_KEY", 1},
		{faultproxy.Fault{Status: 403, Code: "InvalidAccessKeyId"}, objstore.ErrRoot, objstore.ErrRoot, "AWS_ACCESS_KEY_ID", 1},
		{faultproxy.Fault{Status: 403, Code: "RequestTimeTooSkewed", Header: http.Header{"Date": {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}}}, objstore.ErrRoot, objstore.ErrRoot, "behind the server's", 1},
		{faultproxy.Fault{Status: 400, Code: "ExpiredToken"}, objstore.ErrRoot, objstore.ErrRoot, "credentials", 3},
		{faultproxy.Fault{Status: 301, Code: "PermanentRedirect"}, objstore.ErrRoot, objstore.ErrRoot, "region", 1},
		{faultproxy.Fault{Status: 400, Code: "EntityTooLarge"}, unnamed, unnamed, "so large", 1},
		{faultproxy.Fault{Status: 400, Code: "KeyTooLongError"}, objstore.ErrKey, objstore.ErrKey, "", 1},
		{faultproxy.Fault{Status: 418, Code: "\x1b[31mStrange", Message: "many\nlines\x00" + strings.Repeat("long ", 1000)}, unnamed, unnamed, "418", 1},
	} {
		proxy.Set(func(*http.Request) faultproxy.Fault { return test.fault })
		before := proxy.Requests()
		_, perr := b.Put(t.Context(), "new", strings.NewReader("x"), 1, objstore.PutOptions{})
		if n := proxy.Requests() - before; n > test.requestsAMost && !strings.Contains(perr.Error(), "InternalError") {
			t.Errorf("%s: Put made %d requests, want at most %d", test.fault.Code, n, test.requestsAMost)
		}
		_, aerr := b.Put(t.Context(), "new", strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: true})
		derr := b.Delete(t.Context(), "old")
		_, gerr := objstore.ReadAll(t.Context(), b, "old", 100)
		var lerr error
		for _, err := range b.List(t.Context(), "") {
			lerr = err
		}
		for op, err := range map[string]error{"Put new": perr, "Put new if absent": aerr, "Delete old": derr, "Get old": gerr, "List ": lerr} {
			want := test.write
			if op[0] == 'G' || op[0] == 'L' {
				want = test.read
			}
			switch {
			case err == nil:
				t.Errorf("%s: %s succeeded", test.fault.Code, op)
				continue
			case errors.Is(want, unnamed):
				for _, sentinel := range []error{objstore.ErrNotExist, objstore.ErrExist, objstore.ErrFull, objstore.ErrKey, objstore.ErrReadOnly, objstore.ErrRoot, objstore.ErrChanged} {
					if errors.Is(err, sentinel) {
						t.Errorf("%s: %s: %v", test.fault.Code, op, err)
					}
				}
			case !errors.Is(err, want):
				t.Errorf("%s: %s: %v, want %v", test.fault.Code, op, err, want)
			}
			text := err.Error()
			if !strings.Contains(text, test.text) || !strings.HasPrefix(strings.ToLower(text), strings.Fields(strings.ToLower(op))[0]) ||
				len(text) > 1000 || strings.ContainsAny(text, "\n\x00\x1b") {
				t.Errorf("%s: %s says %q", test.fault.Code, op, text)
			}
		}
	}
	proxy.Set(nil)
	if got := keys(t, b); len(got) != 1 || got[0] != "old" {
		t.Errorf("listing has %q after failed operations", got)
	}
}

// A server that asks for it gets fewer requests at once.
func TestSlowDown(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	o.Endpoint, o.MaxConcurrency = proxy.URL(), 32
	b := open(t, o)
	b.SetPause(time.Millisecond)
	if b.Limit() != 32 {
		t.Fatalf("limit %d", b.Limit())
	}
	proxy.Set(count(4, nil, faultproxy.Fault{Status: 503, Code: "SlowDown"}))
	mustPut(t, b, "a", []byte("x"))
	if n := b.Limit(); n > 4 {
		t.Errorf("limit %d after asking four times to slow down", n)
	}
	for range 100 {
		same(t, b, "a", []byte("x"))
	}
	if n := b.Limit(); n < 10 {
		t.Errorf("limit %d after 100 good requests", n)
	}
}
