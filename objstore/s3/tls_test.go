package s3_test

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/s3test"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	target, err := url.Parse(server.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // which is signed
	}})
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	front.StartTLS()
	t.Cleanup(front.Close)

	o := server.Options()
	o.Endpoint = front.URL
	if _, err := s3.Open(t.Context(), o); !errors.Is(err, objstore.ErrRoot) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("certificate of a stranger: %v", err)
	}
	o.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(o.CAFile, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s3.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.CAFile) {
		t.Errorf("file without a certificate: %v", err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	if err := os.WriteFile(o.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	o.PartSize = 5 * mib
	b := open(t, o)
	for _, size := range []int{0, 1000, 11 * mib} {
		data := noise(1, size)
		mustPut(t, b, "a", data)
		same(t, b, "a", data)
	}
	if _, err := b.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: true}); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("if absent: %v", err)
	}
	if _, err := b.Copy(t.Context(), "b", b, "a"); err != nil {
		t.Error(err)
	}
	if got := keys(t, b); len(got) != 2 || len(b.Notes()) > 0 {
		t.Errorf("%q, notes %q", got, b.Notes())
	}
}
