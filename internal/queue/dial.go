package queue

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shardpress/shardpress/internal/task"
)

// Options say how to reach a broker.
type Options struct {
	// URL is nats://host:port, tls://, ws:// or wss://, or several behind commas.
	// A user and password in it go to the broker and nowhere else.
	URL string
	// Creds is a file with a user's JWT and seed, NKey one with a seed only.
	Creds, NKey string
	// CA is a file of certificates to trust; Cert and Key are this client's own.
	CA, Cert, Key string
	// Name tells the broker's operator who this is. A worker gives its own name: what
	// it may publish, and where its answers come in, carries it.
	Name string
	Log  *slog.Logger

	// AckWait is how long a worker may be silent before its task is offered to
	// another one: the time in which a dead worker is noticed. Zero is 30 s.
	AckWait time.Duration
	// RegistryTTL is how long a worker's entry lives that is not renewed. Zero is 15 s.
	RegistryTTL time.Duration
	// LeaseTTL is how long a lease lives that is not renewed. Zero is 10 s.
	LeaseTTL time.Duration

	// look is after what time an idle worker looks around by itself first. Zero is
	// lookSoon.
	look time.Duration
	// strandedAfter is the age from which a message can be stranded: a younger one may
	// have come while its consumer was looked at. Zero is 3 s.
	strandedAfter time.Duration
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		p *time.Duration
		d time.Duration
	}{{&o.AckWait, ackWait}, {&o.RegistryTTL, 15 * time.Second}, {&o.LeaseTTL, 10 * time.Second}, {&o.look, lookSoon}, {&o.strandedAfter, 3 * time.Second}} {
		if *d.p <= 0 {
			*d.p = d.d
		}
	}
}

// Check reports what is wrong with the options themselves: a URL that is none, a
// file that cannot be read. It asks no broker.
func (o *Options) Check() error {
	if _, _, err := o.connectOptions(); err != nil {
		return fmt.Errorf("connect to broker: %w", err)
	}
	return nil
}

// Dial connects to a broker. While there is none it tries again, until ctx ends;
// what cannot get better by waiting (a wrong password, a certificate nobody signed)
// fails at once. A connection that stands is kept up for ever.
func Dial(ctx context.Context, o Options) (*Queue, error) {
	o.defaults()
	servers, opts, err := o.connectOptions()
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	return dial(ctx, o, servers, opts)
}

func dial(ctx context.Context, o Options, servers string, opts []nats.Option) (*Queue, error) {
	q := newQueue(o)
	opts = append(opts, q.connectionOptions()...)
	pause, told := 100*time.Millisecond, false
	for {
		nc, err := nats.Connect(servers, opts...)
		if err == nil {
			return q.start(nc)
		}
		err = explain(servers, err)
		if permanent(err) {
			return nil, err
		}
		if !told {
			o.Log.Warn("broker cannot be reached; trying again", "err", err)
			told = true
		}
		timer := time.NewTimer(pause + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w (gave up: %w)", err, context.Cause(ctx))
		case <-timer.C:
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// connectOptions turns options into NATS's own. The password leaves the URL here,
// so that no error or log of the client can show it.
func (o *Options) connectOptions() (servers string, opts []nats.Option, err error) {
	servers, user, err := splitURL(o.URL)
	if err != nil {
		return "", nil, err
	}
	if user != nil {
		if password, ok := user.Password(); ok {
			opts = append(opts, nats.UserInfo(user.Username(), password))
		} else {
			opts = append(opts, nats.Token(user.Username()))
		}
	}
	if o.Creds != "" {
		if _, err := os.Stat(o.Creds); err != nil {
			return "", nil, fmt.Errorf("read credentials: %w", err)
		}
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.NKey != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return "", nil, fmt.Errorf("read nkey seed %s: %w: want a file with one seed, which begins with SU", o.NKey, err)
		}
		opts = append(opts, opt)
	}
	conf, err := o.clientTLS()
	if err != nil {
		return "", nil, err
	}
	if conf != nil {
		opts = append(opts, nats.Secure(conf))
	}
	return servers, opts, nil
}

// clientTLS is nil where the URL alone decides.
func (o *Options) clientTLS() (*tls.Config, error) {
	if o.CA == "" && o.Cert == "" && o.Key == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pool, err := certPool(o.CA)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = pool
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, errors.New("client certificate: certificate and key belong together, only one is given")
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate %s with key %s: %w", o.Cert, o.Key, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func certPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificates: %s holds none in PEM form", file)
	}
	return pool, nil
}

// splitURL checks a list of URLs and takes the user out of it. Its errors show
// neither user nor password.
func splitURL(list string) (servers string, user *url.Userinfo, err error) {
	var hosts []string
	for i, s := range strings.Split(list, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return "", nil, fmt.Errorf("broker URL %d: not a URL: want nats://HOST:PORT", i+1)
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return "", nil, fmt.Errorf("broker URL %d: scheme %q: want nats, tls, ws or wss", i+1, u.Scheme)
		}
		if u.User != nil {
			if user != nil && user.String() != u.User.String() {
				return "", nil, errors.New("broker URLs name different users: give the same one, or use a credentials file")
			}
			user = u.User
		}
		clean := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
		hosts = append(hosts, clean.String())
	}
	return strings.Join(hosts, ","), user, nil
}

// errRefused marks what a broker will say again, however often it is asked.
var errRefused = errors.New("refused")

func permanent(err error) bool { return errors.Is(err, errRefused) }

// explain says what to check when a connection does not come about.
func explain(servers string, err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrNkeysNotSupported), errors.Is(err, nats.ErrNoUserCB):
		return fmt.Errorf("connect to broker %s: %w: %w: check user, password, credentials or nkey file", servers, errRefused, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("connect to broker %s: %w: %w: name the CA's file", servers, errRefused, err)
	case errors.As(err, &host), errors.As(err, &invalid):
		return fmt.Errorf("connect to broker %s: %w: %w: check the certificate of the broker and the name in the URL", servers, errRefused, err)
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted), errors.As(err, &record):
		return fmt.Errorf("connect to broker %s: %w: %w: one side wants TLS, the other not; check tls:// and the CA's file", servers, errRefused, err)
	case strings.Contains(err.Error(), "remote error: tls:"): // its words for a certificate that is missing, unknown or expired
		return fmt.Errorf("connect to broker %s: %w: %w: the broker wants a client certificate that it knows", servers, errRefused, err)
	}
	return fmt.Errorf("connect to broker %s: %w: is it running, and host and port right?", servers, err)
}

// connectionOptions keep a connection up and tell the queue how it is.
func (q *Queue) connectionOptions() []nats.Option {
	name := q.opts.Name
	if name == "" {
		name = "shardpress"
	}
	opts := []nats.Option{
		nats.Name(name),
		nats.Timeout(5 * time.Second),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a broker that lost its list of users for a moment
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			pause := min(50*time.Millisecond<<min(attempts, 7), 4*time.Second)
			return pause/2 + rand.N(pause) // a fleet must not come back in step
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { q.disconnected(err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { q.reconnected(nc) }),
		nats.ErrorHandler(q.asyncError),
	}
	if task.ValidToken(q.opts.Name) {
		opts = append(opts, nats.CustomInboxPrefix("_INBOX."+q.opts.Name))
	}
	return opts
}
