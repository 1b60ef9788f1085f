package s3_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

// fake opens a store on a server that answers as it likes, but for the listing at
// the beginning.
func fake(t *testing.T, answer http.HandlerFunc) *s3.Bucket {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Query().Has("list-type") && r.URL.Query().Get("prefix") == "x/" {
			io.WriteString(w, "<ListBucketResult><Name>abc</Name></ListBucketResult>")
			return
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	b := open(t, s3.Options{URL: "s3://abc/x", Endpoint: server.URL, Region: "eu-somewhere-1", Retries: 1, Credentials: &s3.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}})
	b.SetPause(time.Microsecond)
	return b
}

// head writes what every answer about an object has.
func head(w http.ResponseWriter, etag string) {
	w.Header().Set("Last-Modified", "Mon, 02 Nov 2026 15:04:05 GMT")
	if etag != "" {
		w.Header().Set("ETag", `"`+etag+`"`)
	}
}

// Servers that do not keep to HTTP are found out: never other bytes than asked for.
func TestGetFromStrangeServers(t *testing.T) {
	t.Parallel()
	data := noise(1, 1000)
	send := func(w http.ResponseWriter, status int, contentRange string, body []byte) {
		head(w, "e")
		if contentRange != "" {
			w.Header().Set("Content-Range", contentRange)
		}
		w.WriteHeader(status)
		w.Write(body)
	}
	for _, test := range []struct {
		name   string
		off, n int64
		answer http.HandlerFunc
		want   []byte // nil: an error
	}{
		{"a range", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "bytes 10-29/1000", data[10:30]) }, data[10:30]},
		{"everything from the beginning, cut here", 0, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 200, "", data) }, data[:20]},
		{"everything instead of a range", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 200, "", data) }, nil},
		{"another range", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "bytes 11-30/1000", data[11:31]) }, nil},
		{"a shorter range", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "bytes 10-19/1000", data[10:20]) }, nil},
		{"a shorter rest", 10, -1, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "bytes 10-19/1000", data[10:20]) }, nil},
		{"a range without saying which", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "", data[10:30]) }, nil},
		{"a range with nonsense", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "bytes 10-29/x", data[10:30]) }, nil},
		{"other length than range", 10, 20, func(w http.ResponseWriter, _ *http.Request) { send(w, 206, "bytes 10-29/1000", data[10:31]) }, nil},
		{"no length", 0, -1, func(w http.ResponseWriter, _ *http.Request) {
			head(w, "e")
			w.Write(data[:500])
			http.NewResponseController(w).Flush()
			w.Write(data[500:])
		}, nil},
		{"no ETag, broken off", 0, -1, func(w http.ResponseWriter, _ *http.Request) {
			head(w, "")
			w.Header().Set("Content-Length", "1000")
			w.Write(data[:500])
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, nil},
		{"another object after it broke off, If-Match ignored", 0, -1, func() http.HandlerFunc {
			var n atomic.Int64
			return func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) > 1 {
					head(w, "other")
					w.Header().Set("Content-Range", "bytes 500-999/1000")
					w.WriteHeader(http.StatusPartialContent)
					w.Write(data[500:])
					return
				}
				head(w, "e")
				w.Header().Set("Content-Length", "1000")
				w.Write(data[:500])
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}(), nil},
		{"redirected", 0, -1, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, nil},
		{"a web page", 0, -1, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>please log in</html>") }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := fake(t, test.answer)
			r, err := b.Get(t.Context(), "a", test.off, test.n)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
				r.Close()
			}
			if test.want == nil && err == nil || test.want != nil && (err != nil || !bytes.Equal(got, test.want)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("taken for an object that is not there: %v", err)
			}
		})
	}
}

// The version asked for is compared here too, in case the server ignores If-Match.
func TestGetIfFromStrangeServer(t *testing.T) {
	t.Parallel()
	b := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		head(w, "other")
		w.Write([]byte("bytes"))
	})
	if _, err := b.GetIf(t.Context(), "a", "this", 0, -1); !errors.Is(err, objstore.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
}

func TestListFromStrangeServers(t *testing.T) {
	t.Parallel()
	page := func(keys ...string) string {
		s := "<ListBucketResult><Name>abc</Name>"
		for _, k := range keys {
			s += "<Contents><Key>" + k + "</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-11-02T15:04:05.000Z</LastModified></Contents>"
		}
		return s + "</ListBucketResult>"
	}
	for _, test := range []struct {
		name, page string
		want       string // the keys, or nothing for an error
	}{
		{"in order", page("x/a/a", "x/a/b"), "a/a a/b"},
		{"with folders and files of the server's own", page("x/a/", "x/a/.b.sgwtmp.123", "x/a//c", "x/a/b", "x/a/d/"), "a/b"},
		{"what is not below the prefix", page("w/a", "x/a/b", "x/b", "y"), "a/b"},
		{"out of order", page("x/a/b", "x/a/a"), ""},
		{"twice", page("x/a/b", "x/a/b"), ""},
		{"no listing", "<html>please log in</html>", ""},
		{"cut off", page("x/a/b")[:60], ""},
		{"nothing", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := fake(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, test.page) })
			var got []string
			var failed error
			for info, err := range b.List(t.Context(), "a/") {
				if failed = err; err == nil {
					got = append(got, info.Key)
				}
			}
			if (failed != nil) != (test.want == "") || failed == nil && strings.Join(got, " ") != test.want {
				t.Errorf("%q, %v", got, failed)
			}
		})
	}
}

// A PUT that a server takes without a Date or an ETag is asked about.
func TestPutToModestServer(t *testing.T) {
	t.Parallel()
	b := fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		if r.Method == http.MethodHead {
			head(w, "version")
			w.Header().Set("Content-Length", "1")
		}
	})
	info, err := b.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{})
	if err != nil || info.Version != "version" || info.ModTime.Year() != 2026 || info.Size != 1 || info.Key != "a" {
		t.Errorf("%+v, %v", info, err)
	}
}
