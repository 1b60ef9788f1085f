package s3_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/faultproxy"
	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

// A server, or a proxy on the way, that quotes the whole request in its error: no
// credential gets into an error's text by that, nor anything that was signed with one.
func TestErrorsHoldNoCredentials(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	proxy := faultproxy.NewHTTP(t, server.Endpoint())
	o := server.Options()
	o.Endpoint, o.Retries = proxy.URL(), -1
	b := open(t, o)
	b.SetPause(time.Microsecond)
	c := server.Credentials()
	var authorization atomic.Value
	statuses := []int{400, 403, 404, 409, 412, 416, 500, 503, 507}
	if testing.Short() {
		statuses = []int{400, 403, 409, 500}
	}
	for _, status := range statuses {
		for _, code := range []string{"", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "NoSuchBucket", c.AccessKeyID} {
			proxy.Set(func(r *http.Request) faultproxy.Fault {
				authorization.Store(r.Header.Get("Authorization"))
				return faultproxy.Fault{Status: status, Code: code, Message: fmt.Sprintf("the key %s with %s sent %s", c.AccessKeyID, c.SecretAccessKey, r.Header.Get("Authorization")),
					Header: http.Header{"X-Amz-Bucket-Region": {c.SecretAccessKey}}}
			})
			_, perr := b.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{})
			_, ierr := b.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: true})
			_, serr := b.Stat(t.Context(), "a")
			_, gerr := b.Get(t.Context(), "a", 0, -1)
			_, cerr := b.Copy(t.Context(), "b", b, "a")
			derr := b.Delete(t.Context(), "a")
			_, werr := b.SweepUploads(t.Context(), 0)
			_, oerr := s3.Open(t.Context(), o)
			merr := s3.CreateBucket(t.Context(), o)
			var lerr error
			for _, err := range b.List(t.Context(), "") {
				lerr = err
			}
			_, signature, _ := strings.Cut(authorization.Load().(string), "Signature=")
			if signature == "" {
				t.Fatal("requests are not signed")
			}
			for op, err := range map[string]error{"put": perr, "if absent": ierr, "stat": serr, "get": gerr, "copy": cerr, "delete": derr, "sweep": werr, "open": oerr, "create": merr, "list": lerr} {
				if err == nil {
					continue // Delete of what is not there
				}
				for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
					for e := err; e != nil; e = errors.Unwrap(e) {
						text := fmt.Sprintf(verb, e)
						for _, secret := range []string{c.AccessKeyID, c.SecretAccessKey, signature} {
							if strings.Contains(text, secret) {
								t.Errorf("%d %s: %s: credentials in %s", status, code, op, text)
							}
						}
					}
				}
			}
		}
	}
	for _, text := range []string{b.String(), b.URL(), fmt.Sprint(b), fmt.Sprintf("%v %+v", b, b), fmt.Sprintf("%q", b.Notes())} {
		if strings.Contains(text, c.AccessKeyID) || strings.Contains(text, c.SecretAccessKey) {
			t.Errorf("credentials in %s", text)
		}
	}
}
