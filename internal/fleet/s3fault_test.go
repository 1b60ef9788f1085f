package fleet_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
	"github.com/shardpress/shardpress/worker"
)

// s3World is a world whose store is an S3 server. Its members reach it by endpoint.
func s3World(t *testing.T, endpoint func(*s3test.Server) string, change ...func(*s3.Options)) (*world, *s3test.Server) {
	t.Helper()
	server := s3test.Start(t)
	o := server.Options()
	open := func(endpoint string, change ...func(*s3.Options)) objstore.Bucket {
		o := o
		o.Endpoint = endpoint
		for _, f := range change {
			f(&o)
		}
		b, err := s3.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	far := endpoint(server)
	return newWorldOn(t, open(server.Endpoint()), func() objstore.Bucket { return open(far, change...) }), server
}

// TestS3Faults has members reach the store through a server that fails now and then.
func TestS3Faults(t *testing.T) {
	t.Parallel()
	weights := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".safetensors") }
	cases := map[string]struct {
		which func(*http.Request) bool
		times int // so many first ones, or every so manieth if negative
		fault faultproxy.Fault
		one   bool // only of one task
	}{
		"500 now and then":   {func(*http.Request) bool { return true }, -7, faultproxy.Fault{Status: 500, Code: "InternalError", Message: "again"}, false},
		"slow down":          {func(*http.Request) bool { return true }, -5, faultproxy.Fault{Status: 503, Code: "SlowDown", Message: "slow down"}, false},
		"uploads lost":       {func(r *http.Request) bool { return r.Method == http.MethodPut }, -4, faultproxy.Fault{Break: true}, false},
		"answers lost":       {func(r *http.Request) bool { return r.Method == http.MethodPut }, -3, faultproxy.Fault{After: true}, false},
		"bodies truncated":   {func(r *http.Request) bool { return r.Method == http.MethodGet }, -3, faultproxy.Fault{Truncate: 100}, false},
		"weights fail often": {weights, 12, faultproxy.Fault{Status: 500, Code: "InternalError", Message: "again"}, false},
		// More often than a task may fail.
		"uploads are denied": {func(r *http.Request) bool { return r.Method == http.MethodPut && weights(r) }, 4, faultproxy.Fault{Status: 403, Code: "AccessDenied", Message: "not now"}, true},
	}
	if testing.Short() {
		one := cases["bodies truncated"]
		clear(cases)
		cases["bodies truncated"] = one
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p *faultproxy.HTTP
			w, _ := s3World(t, func(s *s3test.Server) string { p = faultproxy.NewHTTP(t, s.Endpoint()); return p.URL() })
			var n, struck atomic.Int64
			p.Set(func(r *http.Request) faultproxy.Fault {
				if !c.which(r) || c.one && !strings.Contains(r.URL.Path, w.plan.Units[0].ID.String()) {
					return faultproxy.Fault{}
				}
				i := n.Add(1)
				if c.times > 0 && i <= int64(c.times) || c.times < 0 && i%int64(-c.times) == 0 {
					struck.Add(1)
					return c.fault
				}
				return faultproxy.Fault{}
			})
			w.coordinator("c1")
			w.worker("w1")
			w.worker("w2")
			w.submit().well()
			if struck.Load() == 0 {
				t.Error("nothing went wrong")
			}
		})
	}
}

// TestS3Killed kills the S3 server in mid-run and starts it again.
func TestS3Killed(t *testing.T) {
	t.Parallel()
	// Nothing is asked twice at once: it is the members who go on, for longer than any
	// number of tries.
	w, server := s3World(t, (*s3test.Server).Endpoint, func(o *s3.Options) { o.Retries = -1 })
	g := newGate()
	var down atomic.Bool
	var refused, waiting atomic.Int64 // what worker and coordinator asked meanwhile
	count := func(m *member, n *atomic.Int64) {
		m.store.set(func(string, string) error {
			if down.Load() {
				n.Add(1)
			}
			return nil
		})
	}
	w.coordinator("c1", func(_ *coordinator.Service, m *member) { count(m, &waiting) })
	w.worker("w1", g.hold, func(_ *worker.Worker, m *member) { count(m, &refused) })
	f := w.submit()
	g.held(t)
	server.Kill()
	down.Store(true)
	close(g.open)
	until(t, "worker and coordinator find no store", func() bool { return refused.Load() > 20 && waiting.Load() > 5 })
	down.Store(false)
	server.Restart()
	f.well()
}

// TestS3Slow has every byte wait for 200 ms, and connections that are cut in the
// middle of an upload.
func TestS3Slow(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for what is slow")
	}
	var p *faultproxy.TCP
	w, _ := s3World(t, func(s *s3test.Server) string { p = faultproxy.NewTCP(t, s.Addr()); return "http://" + p.Addr() })
	p.SetLatency(100 * time.Millisecond) // each way
	w.coordinator("c1")
	w.worker("w1")
	w.worker("w2")
	f := w.submit()
	f.await(coordinator.UpdateStarted)
	p.Cut(150<<10, -1) // the largest weight file has 300 KiB
	<-p.Cuts()
	f.well()
}

// TestStoredBytesDamaged damages what the store holds between its commit and its
// use: it is made again.
func TestStoredBytesDamaged(t *testing.T) {
	t.Parallel()
	put := func(t *testing.T, w *world, key string, b []byte) {
		if _, err := w.store.Put(t.Context(), key, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
			t.Error(err)
		}
	}
	read := func(t *testing.T, w *world, key string) []byte {
		b, err := objstore.ReadAll(t.Context(), w.store, key, 1<<30)
		if err != nil {
			t.Error(err)
		}
		return b
	}
	damages := map[string]func(t *testing.T, w *world, key string){
		"equal size": func(t *testing.T, w *world, key string) {
			b := read(t, w, key)
			b[len(b)/2] ^= 1
			put(t, w, key, b)
		},
		"truncated": func(t *testing.T, w *world, key string) { b := read(t, w, key); put(t, w, key, b[:len(b)/2]) },
		"empty":     func(t *testing.T, w *world, key string) { put(t, w, key, nil) },
		"gone": func(t *testing.T, w *world, key string) {
			if err := w.store.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
		},
	}
	// Where it is when the coordinator looks at it for the first time.
	places := map[string]func(op, key string) bool{
		"committed": func(op, key string) bool {
			return op == "stat" && strings.HasPrefix(key, "tasks/") && strings.HasSuffix(key, "/"+operation.ShardOutput)
		},
		"placed": func(op, key string) bool {
			return op == "stat" && strings.Contains(key, "/result/model-") && strings.HasSuffix(key, ".safetensors")
		},
		"result.json": func(op, key string) bool { return op == "get" && strings.HasSuffix(key, "/result.json") },
	}
	for _, kind := range []string{"directory", "S3"} {
		for place, here := range places {
			for damage, do := range damages {
				if testing.Short() && (kind == "S3" || damage != "truncated") || kind == "S3" && place == "result.json" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", kind, place, damage), func(t *testing.T) {
					t.Parallel()
					var w *world
					if kind == "S3" {
						w, _ = s3World(t, (*s3test.Server).Endpoint)
					} else {
						w = newWorld(t)
					}
					var once sync.Once
					struck := false
					w.coordinator("c1", func(_ *coordinator.Service, m *member) {
						m.store.set(func(op, key string) error {
							if here(op, key) {
								if _, err := w.store.Stat(t.Context(), key); err == nil {
									once.Do(func() { struck = true; do(t, w, key) })
								}
							}
							return nil
						})
					})
					w.worker("w1")
					w.worker("w2")
					r := w.submit().well()
					if !struck {
						t.Error("nothing was damaged")
					}
					if place == "committed" && r.Totals.Repaired == 0 {
						t.Errorf("totals %+v: nothing was made again", r.Totals)
					}
					for _, u := range w.plan.Units {
						b := read(t, w, task.ResultKey(u.ID))
						if _, err := task.ParseResult(u.ID, b); err != nil {
							t.Errorf("the store is left damaged: %v", err)
						}
					}
				})
			}
		}
	}
}
