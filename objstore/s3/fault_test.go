package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

// at calls do once, when so many bytes have been read.
type at struct {
	r  io.Reader
	n  int
	do func()
}

func (a *at) Read(p []byte) (int, error) {
	if a.n == 0 && a.do != nil {
		a.do()
		a.do = nil
	}
	if a.do != nil {
		p = p[:min(len(p), a.n)]
	}
	k, err := a.r.Read(p)
	if a.do != nil {
		a.n -= k
	}
	return k, err
}

// small asks for parts of the least size.
func small(server *s3test.Server) s3.Options {
	o := server.Options()
	o.PartSize, o.UploadThreads = 5*mib, 2
	return o
}

// The server is killed in the middle and comes back: it costs time.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	b := open(t, small(server))
	data := noise(1, 24*mib)
	back := make(chan struct{})
	restart := func() {
		server.Kill()
		go func() {
			server.Restart()
			back <- struct{}{}
		}()
	}
	info, err := b.Put(t.Context(), "a", &at{r: bytes.NewReader(data), n: 12 * mib, do: restart}, -1, objstore.PutOptions{})
	<-back
	if err != nil || info.Size != int64(len(data)) {
		t.Fatalf("Put: %+v, %v", info, err)
	}
	same(t, b, "a", data)
	r, err := b.Get(t.Context(), "a", 5, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(&at{r: r, n: 3 * mib, do: restart})
	<-back
	if err != nil || !bytes.Equal(got, data[5:]) {
		t.Errorf("Get: %d bytes, %v", len(got), err)
	}
	r.Close()
	restart()
	if _, err := b.Put(t.Context(), "c", strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: true}); err != nil {
		t.Errorf("Put if absent: %v", err)
	}
	<-back
	noUploads(t, b)
}

// A server that is not there, and a caller with less patience than this package: the
// error is the context's, and says why.
func TestOutOfTime(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, err = s3.Open(ctx, s3.Options{URL: "s3://bucket", Endpoint: "http://" + l.Addr().String(), Credentials: &s3.Credentials{AccessKeyID: "AKtopsecret", SecretAccessKey: "topsecret"}})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want the context's error", err)
	}
	for _, says := range []string{l.Addr().String() + " cannot be reached", "connection refused"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want it to say %q", err, says)
		}
	}
	if err != nil && strings.Contains(err.Error(), "topsecret") {
		t.Errorf("credentials in %v", err)
	}
}

// The server is killed and does not come back: an error, and later nothing that could be
// taken for an object.
func TestServerDies(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	o := small(server)
	o.Retries = 1
	b := open(t, o)
	b.SetPause(time.Millisecond)
	mustPut(t, b, "old", []byte("as it was"))
	data := noise(1, 12*mib)
	mustPut(t, b, "large", data)
	r, err := b.Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.CopyN(io.Discard, r, 1000)
	_, perr := b.Put(t.Context(), "old", &at{r: bytes.NewReader(data), n: 11 * mib, do: server.Kill}, -1, objstore.PutOptions{})
	_, rerr := io.Copy(io.Discard, r)
	_, serr := b.Stat(t.Context(), "old")
	_, gerr := b.Get(t.Context(), "old", 0, -1)
	derr := b.Delete(t.Context(), "old")
	var lerr error
	for _, err := range b.List(t.Context(), "") {
		lerr = err
	}
	for op, err := range map[string]error{"Put": perr, "Read": rerr, "Stat": serr, "Get": gerr, "Delete": derr, "List": lerr} {
		if err == nil || errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrRoot) || errors.Is(err, context.Canceled) {
			t.Errorf("%s from a dead server: %v", op, err)
		}
	}
	server.Restart()
	same(t, b, "old", []byte("as it was"))
	if n, err := b.SweepUploads(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("young uploads swept: %d, %v", n, err)
	}
	if n, err := b.SweepUploads(t.Context(), -time.Hour); n != 1 || err != nil {
		t.Errorf("swept %d uploads, want the one that was cut, %v", n, err)
	}
	noUploads(t, b)
	// What another store has under way is its own.
	other := server.Open(t)
	noUploads(t, other)
}

func TestLatency(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewTCP(t, server.Addr())
	o := small(server)
	o.Endpoint = "http://" + proxy.Addr()
	b := open(t, o)
	proxy.SetLatency(100 * time.Millisecond) // 200 ms there and back
	start := time.Now()
	data := noise(1, 1000)
	if _, err := b.Put(t.Context(), "a", bytes.NewReader(data), 1000, objstore.PutOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	same(t, b, "a", data)
	if took := time.Since(start); took < 400*time.Millisecond || took > 5*time.Second {
		t.Errorf("a Put and a Get took %s: each should be one round trip", took)
	}
	// Parts are on their way together.
	large := noise(2, 12*mib)
	if _, err := b.Put(t.Context(), "b", bytes.NewReader(large), -1, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	same(t, b, "b", large)
}

func TestCutOff(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewTCP(t, server.Addr())
	o := small(server)
	o.Endpoint = "http://" + proxy.Addr()
	b := open(t, o)
	b.SetPause(time.Millisecond)
	for _, size := range []int{4 * mib, 11 * mib} { // one PUT, and parts
		data := noise(uint64(size), size)
		for _, up := range []int64{100, 3 * mib, int64(size)} {
			proxy.Cut(up, -1)
			_, err := b.Put(t.Context(), "a", bytes.NewReader(data), -1, objstore.PutOptions{})
			if err != nil {
				t.Fatalf("Put of %d bytes cut after %d: %v", size, up, err)
			}
			<-proxy.Cuts()
			same(t, b, "a", data)
		}
		for _, down := range []int64{50, 2 * mib, int64(size)} {
			proxy.Cut(-1, down)
			same(t, b, "a", data)
			<-proxy.Cuts()
		}
	}
	noUploads(t, b)
}

// Overwritten between a connection that broke and the next one: the read fails.
func TestOverwrittenWhileResumed(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	direct := open(t, o)
	o.Endpoint = proxy.URL()
	b := open(t, o)
	b.SetPause(time.Millisecond)
	old := noise(1, 4*mib)
	for _, test := range []struct {
		name string
		do   func()
		want error
	}{
		{"overwritten", func() { mustPut(t, direct, "a", noise(2, 4*mib)) }, objstore.ErrChanged},
		{"overwritten by less", func() { mustPut(t, direct, "a", noise(2, 100)) }, objstore.ErrChanged},
		{"deleted", func() { direct.Delete(t.Context(), "a") }, objstore.ErrNotExist},
		{"overwritten by the same", func() { mustPut(t, direct, "a", old) }, nil},
	} {
		info := mustPut(t, direct, "a", old)
		first := true
		proxy.Set(func(*http.Request) (f faultproxy.Fault) {
			if first {
				f.Truncate = mib
			}
			first = false
			return f
		})
		r, err := b.GetIf(t.Context(), "a", info.Version, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		test.do()
		got, err := io.ReadAll(r)
		if !errors.Is(err, test.want) || !bytes.Equal(got, old[:len(got)]) || test.want == nil && len(got) != len(old) {
			t.Errorf("%s: %d bytes, %v, want %v", test.name, len(got), err, test.want)
		}
		r.Close()
	}
}

// Bodies that end early are never taken for short objects.
func TestTruncatedBodies(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	o.Endpoint, o.Retries = proxy.URL(), 3
	b := open(t, o)
	b.SetPause(time.Millisecond)
	data := noise(1, mib)
	mustPut(t, b, "a", data)
	// Every answer is cut, but each brings some more.
	proxy.Set(func(*http.Request) faultproxy.Fault { return faultproxy.Fault{Truncate: 100_000} })
	before := proxy.Requests()
	same(t, b, "a", data)
	if n := proxy.Requests() - before; n < 10 {
		t.Errorf("%d requests for 11 pieces", n)
	}
	r, err := b.Get(t.Context(), "a", 300_000, 250_000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[300_000:550_000]) {
		t.Errorf("range: %d bytes, %v", len(got), err)
	}
	// Nothing comes any more: an error, after a bounded number of tries.
	var broken atomic.Bool
	proxy.Set(func(*http.Request) faultproxy.Fault {
		if broken.Swap(true) {
			return faultproxy.Fault{Break: true}
		}
		return faultproxy.Fault{Truncate: 100_000}
	})
	got, err := objstore.ReadAll(t.Context(), b, "a", mib)
	if err == nil || errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Of many who put at once, through connections that lose every other answer, one wins,
// and knows it.
func TestIfAbsentRaceWithLostAnswers(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	o.Endpoint = proxy.URL()
	b := open(t, o)
	b.SetPause(time.Millisecond)
	n := 0
	proxy.Set(func(r *http.Request) (f faultproxy.Fault) {
		if r.Method == http.MethodPut {
			n++
			f.After = n%2 == 0
		}
		return f
	})
	for round := range 5 {
		key := fmt.Sprintf("r/%d", round)
		var wg sync.WaitGroup
		var won atomic.Int64
		for i := range 16 {
			wg.Go(func() {
				data := noise(uint64(i), 100+i)
				_, err := b.Put(t.Context(), key, bytes.NewReader(data), -1, objstore.PutOptions{IfAbsent: true})
				switch {
				case err == nil:
					won.Add(1)
					same(t, b, key, data)
				case !errors.Is(err, objstore.ErrExist):
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("round %d: %d winners", round, won.Load())
		}
	}
}

// A connection that falls silent is given up.
func TestStall(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewTCP(t, server.Addr())
	o := server.Options()
	data := noise(1, 12*mib)
	mustPut(t, open(t, o), "a", data)
	var stalled, resumed atomic.Bool
	o.Endpoint = "http://" + proxy.Addr()
	o.Stall = 100 * time.Millisecond
	o.Transport = func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if stalled.Load() { // so the connection that is silent was given up
				proxy.Resume()
				resumed.Store(true)
			}
			return next.RoundTrip(r)
		})
	}
	b := open(t, o)
	r, err := b.Get(t.Context(), "a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(&at{r: r, n: mib, do: func() {
		proxy.Stall()
		stalled.Store(true)
	}})
	if err != nil || !bytes.Equal(got, data) || !resumed.Load() {
		t.Errorf("%d bytes, %v, resumed: %v", len(got), err, resumed.Load())
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCancelInTheMiddle(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	b := open(t, small(server))
	mustPut(t, b, "old", []byte("as it was"))
	for _, key := range []string{"old", "new"} {
		for _, n := range []int{100, 6 * mib, 18 * mib} {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := b.Put(ctx, key, &at{r: bytes.NewReader(make([]byte, 20*mib)), n: n, do: cancel}, -1, objstore.PutOptions{})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled after %d bytes: %v", n, err)
			}
			cancel()
		}
	}
	same(t, b, "old", []byte("as it was"))
	if got := keys(t, b); len(got) != 1 {
		t.Errorf("listing has %q", got)
	}
	// A part that arrived whole as it was given up may come to lie there after all.
	if _, err := b.SweepUploads(t.Context(), -time.Hour); err != nil {
		t.Error(err)
	}
	noUploads(t, b)
}

// Whatever ends an upload in the middle, its parts are given up too.
func TestFailedUploadsAreAborted(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := small(server)
	o.Endpoint, o.Retries = proxy.URL(), 1
	b := open(t, o)
	b.SetPause(time.Millisecond)
	data := noise(1, 11*mib)
	failed := errors.New("reader failed")
	refuse := func(is func(r *http.Request) bool) func(*http.Request) faultproxy.Fault {
		return func(r *http.Request) (f faultproxy.Fault) {
			if is(r) {
				f = faultproxy.Fault{Status: 500, Code: "InternalError"}
			}
			return f
		}
	}
	never := func(*http.Request) bool { return false }
	for name, test := range map[string]struct {
		r     io.Reader
		size  int64
		fault func(*http.Request) bool
	}{
		"the reader fails": {io.MultiReader(bytes.NewReader(data), iotest.ErrReader(failed)), -1, never},
		"too few bytes":    {bytes.NewReader(data), 12 * mib, never},
		"too many bytes":   {struct{ io.Reader }{bytes.NewReader(data)}, 10*mib + 5, never},
		"a part fails":     {bytes.NewReader(data), -1, func(r *http.Request) bool { return r.URL.Query().Get("partNumber") == "2" }},
		"the end fails":    {bytes.NewReader(data), -1, func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }},
	} {
		aborts := 0
		proxy.Set(func(r *http.Request) faultproxy.Fault {
			if r.Method == http.MethodDelete && r.URL.Query().Has("uploadId") {
				aborts++
			}
			return refuse(test.fault)(r)
		})
		if _, err := b.Put(t.Context(), "a", test.r, test.size, objstore.PutOptions{}); err == nil {
			t.Errorf("%s: stored", name)
		}
		proxy.Set(nil)
		if aborts == 0 {
			t.Errorf("%s: not aborted", name)
		}
	}
	if got := keys(t, b); len(got) > 0 {
		t.Errorf("listing has %q", got)
	}
}
