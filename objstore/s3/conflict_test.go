package s3_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
)

// A gateway that takes folders that come and go for objects in the way is asked again, and
// is right if there is one.
func TestInTheWay(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := small(server)
	o.Endpoint, o.Retries = proxy.URL(), 3
	b := open(t, o)
	b.SetPause(time.Millisecond)
	conflict := faultproxy.Fault{Status: 409, Code: "ExistingObjectIsDirectory"}
	proxy.Set(count(2, method(http.MethodPut), conflict))
	for _, ifAbsent := range []bool{false, true} {
		if _, err := b.Put(t.Context(), "a/b", strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: ifAbsent}); ifAbsent != errors.Is(err, objstore.ErrExist) {
			t.Errorf("if absent %v: %v", ifAbsent, err)
		}
	}
	proxy.Set(count(-1, method(http.MethodPut), conflict))
	for _, key := range []string{"a", "a/b/c"} {
		if _, err := b.Put(t.Context(), key, strings.NewReader("x"), 1, objstore.PutOptions{}); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("%s: %v, want ErrKey", key, err)
		}
	}
	if _, err := b.Put(t.Context(), "c", strings.NewReader("x"), 1, objstore.PutOptions{}); err == nil || errors.Is(err, objstore.ErrKey) {
		t.Errorf("nothing is in the way: %v", err)
	}
}

// A conflict of two conditional puts says nothing of how the other one ends.
func TestConditionalConflict(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	o.Endpoint = proxy.URL()
	b := open(t, o)
	b.SetPause(time.Millisecond)
	conflict := faultproxy.Fault{Status: 409, Code: "ConditionalRequestConflict"}
	put := func() error {
		_, err := b.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: true})
		return err
	}
	proxy.Set(count(2, method(http.MethodPut), conflict))
	if err := put(); err != nil {
		t.Errorf("the other one came to nothing: %v", err)
	}
	proxy.Set(count(1, method(http.MethodPut), conflict))
	if err := put(); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("the other one won: %v", err)
	}
}

// The end of an upload whose answer was lost: the server does not know the upload any
// more, and the object tells that it was ours.
func TestUploadCompletedUnheard(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := small(server)
	o.Endpoint = proxy.URL()
	b := open(t, o)
	b.SetPause(time.Millisecond)
	completes := 0
	lose := func(r *http.Request) (f faultproxy.Fault) {
		if r.Method != http.MethodPost || !r.URL.Query().Has("uploadId") {
			return f
		}
		if completes++; completes == 1 {
			return faultproxy.Fault{After: true}
		}
		return faultproxy.Fault{Status: http.StatusNotFound, Code: "NoSuchUpload"}
	}
	proxy.Set(lose)
	data := noise(1, 6*mib)
	info := mustPut(t, b, "a", data)
	same(t, b, "a", data)
	if stat, err := b.Stat(t.Context(), "a"); err != nil || stat.Version != info.Version || completes != 2 {
		t.Errorf("Put told %+v, Stat %+v, %v, after %d tries", info, stat, err, completes)
	}
	// But what somebody else put there does not count.
	completes = 1
	if _, err := b.Put(t.Context(), "a", bytes.NewReader(noise(2, 6*mib)), -1, objstore.PutOptions{}); err == nil || !strings.Contains(err.Error(), "aborted") {
		t.Errorf("upload that was aborted: %v", err)
	}
	same(t, b, "a", data)
}

// A source that is overwritten between the question for its size and the copy.
func TestCopyOfWhatChanges(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	direct := open(t, o)
	o.Endpoint = proxy.URL()
	b := open(t, o)
	b.SetPause(time.Millisecond)
	for _, most := range []int64{1 << 40, 5 * mib} { // in one request, and in parts
		b.SetMaxCopy(most)
		mustPut(t, direct, "a", noise(1, 6*mib))
		proxy.Set(func(r *http.Request) faultproxy.Fault {
			if r.Header.Get("X-Amz-Copy-Source") != "" {
				mustPut(t, direct, "a", noise(2, 6*mib))
			}
			return faultproxy.Fault{}
		})
		if _, err := b.Copy(t.Context(), "b", b, "a"); !errors.Is(err, objstore.ErrChanged) {
			t.Errorf("%v, want ErrChanged", err)
		}
		if _, err := direct.Stat(t.Context(), "b"); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("copied all the same: %v", err)
		}
	}
}
