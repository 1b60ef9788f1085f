package queue

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// authority issues certificates.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), next: 1}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.file = a.write(t, "ca.crt", "CERTIFICATE", a.sign(t, a.cert, &key.PublicKey))
	return a
}

func (a *authority) sign(t *testing.T, cert *x509.Certificate, key *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// issue makes a certificate for 127.0.0.1 and for clients.
func (a *authority) issue(t *testing.T, name string, hosts ...net.IP) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.next++
	der := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, IPAddresses: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &k.PublicKey)
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return a.write(t, name+".crt", "CERTIFICATE", der), a.write(t, name+".key", "PRIVATE KEY", b)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	cert, key := a.issue(t, "broker", net.IPv4(127, 0, 0, 1))
	elsewhere, elsewhereKey := a.issue(t, "elsewhere", net.IPv4(192, 0, 2, 1))
	mine, myKey := a.issue(t, "client")
	foreign, foreignKey := other.issue(t, "client")
	b := broker(t, BrokerOptions{TLSCert: cert, TLSKey: key})
	strict := broker(t, BrokerOptions{TLSCert: cert, TLSKey: key, TLSCA: a.file, Users: users()})
	wrong := broker(t, BrokerOptions{TLSCert: elsewhere, TLSKey: elsewhereKey})
	plain := broker(t, BrokerOptions{})
	if !strings.HasPrefix(b.URL(), "tls://") {
		t.Errorf("URL %s", b.URL())
	}
	for _, c := range []struct {
		name string
		o    Options
		want string // in the error
	}{
		{"known CA", Options{URL: b.URL(), CA: a.file}, ""},
		{"known CA by a URL without tls", Options{URL: strings.Replace(b.URL(), "tls:", "nats:", 1), CA: a.file}, ""},
		{"unknown CA", Options{URL: b.URL()}, "name the CA's file"},
		{"other CA", Options{URL: b.URL(), CA: other.file}, "name the CA's file"},
		{"other host", Options{URL: wrong.URL(), CA: a.file}, "check the certificate of the broker"},
		{"client certificate and user", Options{URL: as("client", strict.URL()), CA: a.file, Cert: mine, Key: myKey}, ""},
		{"no client certificate", Options{URL: as("client", strict.URL()), CA: a.file}, "wants a client certificate"},
		{"client certificate of another CA", Options{URL: as("client", strict.URL()), CA: a.file, Cert: foreign, Key: foreignKey}, "wants a client certificate"},
		{"no user", Options{URL: strict.URL(), CA: a.file, Cert: mine, Key: myKey}, "check user, password"},
		{"TLS to a broker without", Options{URL: strings.Replace(plain.URL(), "nats:", "tls:", 1), CA: a.file}, "one side wants TLS"},
		{"certificate without key", Options{URL: b.URL(), CA: a.file, Cert: mine}, "belong together"},
		{"no certificates in the file", Options{URL: b.URL(), CA: key}, "holds none in PEM form"},
		{"no such file", Options{URL: b.URL(), CA: filepath.Join(a.dir, "none")}, "read certificates"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q, err := Dial(within(t), c.o)
			if err == nil {
				defer q.Close()
				err = q.Setup(within(t), class)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want an error with %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), password):
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	if q, err := strict.Connect(); err != nil {
		t.Errorf("the broker's own process: %v", err)
	} else {
		q.Close()
	}
	for name, o := range map[string]BrokerOptions{
		"key only": {TLSKey: key}, "CA only": {TLSCA: a.file}, "wrong key": {TLSCert: cert, TLSKey: myKey}, "no host": {Listen: "4222"},
		"no port": {Listen: "127.0.0.1:x"}, "port in use": {Listen: strings.TrimPrefix(plain.URL(), "nats://")},
		"monitor in use": {Listen: "127.0.0.1:0", Monitor: strings.TrimPrefix(plain.URL(), "nats://")},
	} {
		o.Dir = t.TempDir()
		if b, err := StartBroker(o); err == nil {
			b.Close()
			t.Errorf("%s: the broker starts", name)
		}
	}
}

func TestNKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, seed := keys(t, kp)
	file := filepath.Join(dir, "w1.nk")
	if err := os.WriteFile(file, []byte(seed), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := ParseUsers([]byte("w1 worker " + public + "\nc1 coordinator plain:" + password))
	if err != nil {
		t.Fatal(err)
	}
	b := broker(t, BrokerOptions{Users: list})
	c := ready(t, Options{URL: as("c1", b.URL())})
	q := ready(t, Options{URL: b.URL(), NKey: file, Name: "w1"})
	publish(t, c, message(1, 1))
	if err := next(t, q, 1<<30).Done(within(t)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("no seed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(within(t), Options{URL: b.URL(), NKey: file}); err == nil || !strings.Contains(err.Error(), "begins with SU") {
		t.Errorf("no seed: %v", err)
	}
}

func keys(t *testing.T, kp nkeys.KeyPair) (public, seed string) {
	t.Helper()
	public, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return public, string(b)
}

// A server whose users are made by an operator with JWTs: what creds files are for.
func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	operator, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	operatorKey, _ := keys(t, operator)
	accountKey, _ := keys(t, account)
	userKey, seed := keys(t, user)
	claims := jwt.NewAccountClaims(accountKey)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := claims.Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	userJWT, err := jwt.NewUserClaims(userKey).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(userJWT, []byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	system, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	systemKey, _ := keys(t, system)
	systemJWT, err := jwt.NewAccountClaims(systemKey).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	operatorJWT := jwt.NewOperatorClaims(operatorKey)
	operatorJWT.SystemAccount = systemKey
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(systemKey, systemJWT); err != nil {
		t.Fatal(err)
	}
	if err := resolver.Store(accountKey, accountJWT); err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: scratch(t), NoLog: true, NoSigs: true,
		TrustedOperators: []*jwt.OperatorClaims{operatorJWT}, AccountResolver: resolver, SystemAccount: systemKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the broker is not ready")
	}
	file := filepath.Join(t.TempDir(), "me.creds")
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	q := ready(t, Options{URL: srv.ClientURL(), Creds: file})
	publish(t, q, message(1, 1))
	if _, err := Dial(within(t), Options{URL: srv.ClientURL()}); !errors.Is(err, errRefused) {
		t.Errorf("without credentials: %v", err)
	}
	if _, err := Dial(within(t), Options{URL: srv.ClientURL(), Creds: file + "x"}); err == nil || !strings.Contains(err.Error(), "read credentials") {
		t.Errorf("no such file: %v", err)
	}
}

func TestSplitURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, servers, user, want string }{
		{"nats://a:4222", "nats://a:4222", "", ""},
		{"a:4222, tls://b", "nats://a:4222,tls://b", "", ""},
		{"nats://u:secret@a,nats://u:secret@b", "nats://a,nats://b", "u:secret", ""},
		{"nats://secret@a", "nats://a", "secret", ""},
		{"wss://a/path", "wss://a/path", "", ""},
		{"nats://u:secret@a,nats://v:secret@b", "", "", "different users"},
		{"", "", "", "not a URL"},
		{"http://u:secret@a", "", "", `scheme "http"`},
		{"nats://u:secret@a:port", "", "", "not a URL"},
		{"nats://u:sec%ret@a", "", "", "not a URL"},
		{"nats://u:secret@", "", "", "not a URL"},
		{"u:secret@a:1\x00", "", "", "not a URL"},
	} {
		servers, user, err := splitURL(c.list)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sec") {
				t.Errorf("%q: %v", c.list, err)
			}
			continue
		}
		if err != nil || servers != c.servers || user.String() != c.user {
			t.Errorf("%q: %q, %v, %v", c.list, servers, user, err)
		}
	}
}

func FuzzSplitURL(f *testing.F) {
	f.Add("nats://u:p@a:4222,tls://b")
	f.Fuzz(func(t *testing.T, list string) {
		servers, user, err := splitURL(list)
		if err != nil || user == nil {
			return
		}
		if again, other, err := splitURL(servers); err != nil || other != nil || again != servers {
			t.Errorf("%q -> %q -> %q, %v, %v", list, servers, again, other, err)
		}
	})
}

// Who starts before the broker waits for it, as long as its context allows.
func TestDialWaits(t *testing.T) {
	t.Parallel()
	b := broker(t, BrokerOptions{})
	p := startProxy(t, b.URL())
	p.cut(true)
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	url := strings.Replace(p.url(), "://", "://me:secret@", 1)
	if _, err := Dial(ctx, Options{URL: url}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is it running") || strings.Contains(err.Error(), "secret") {
		t.Errorf("no broker: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		q, err := Dial(within(t), Options{URL: url})
		if err == nil {
			q.Close()
		}
		got <- err
	}()
	p.mend()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
