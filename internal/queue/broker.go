package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// brokerName is by what a client knows a broker of ours, which syncs always.
const brokerName = "shardpress-broker"

// Broker is a NATS server inside this process.
type Broker struct {
	srv      *server.Server
	embedded bool
	url      string
	inside   string // password of insideUser
}

// BrokerOptions say how a broker runs.
type BrokerOptions struct {
	// Dir is where JetStream keeps its state. It is scheduling state: it may be lost.
	Dir string
	// Listen is HOST:PORT, Monitor that of the HTTP page of NATS, both may be empty.
	// Port 0 is any that is free.
	Listen, Monitor string
	// TLSCert and TLSKey make the port speak TLS; with TLSCA clients must show a
	// certificate of it.
	TLSCert, TLSKey, TLSCA string
	// Users may connect, and nobody else if there are any.
	Users []User
	// AuthFile names a file of more users.
	AuthFile string
	// Embedded says that the broker's state is worth nothing after its end.
	Embedded bool

	// hasty leaves writes to the operating system. Tests have no use for safe disks.
	hasty bool
}

// StartEmbedded starts a broker for this process alone. It opens no port.
func StartEmbedded(dir string) (*Broker, error) {
	return StartBroker(BrokerOptions{Dir: dir, Embedded: true})
}

// StartBroker starts a broker. A message is on disk when its publish returns (sync
// always): NATS's own default of two minutes would lose acknowledged messages with
// the machine.
func StartBroker(o BrokerOptions) (*Broker, error) {
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	opts, inside, err := o.serverOptions()
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start broker in %s: %w", o.Dir, err)
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		srv.Shutdown()
		return nil, fmt.Errorf("start broker in %s: not ready after 20 s; is the directory writable?", o.Dir)
	}
	if !srv.JetStreamEnabled() {
		srv.Shutdown()
		return nil, fmt.Errorf("start broker in %s: JetStream did not start; remove the directory (it holds only scheduling state) and run again", o.Dir)
	}
	return &Broker{srv: srv, embedded: o.Embedded, inside: inside, url: clientURL(srv.Addr(), opts.TLS)}, nil
}

// serverOptions also returns the password with which this process itself connects.
func (o *BrokerOptions) serverOptions() (opts *server.Options, inside string, err error) {
	opts = &server.Options{
		ServerName: brokerName,
		DontListen: o.Listen == "",
		NoLog:      true,
		NoSigs:     true,
		JetStream:  true,
		StoreDir:   o.Dir,
		SyncAlways: !o.hasty,
		// Tasks are a few KiB, and few are outstanding at a time.
		JetStreamMaxMemory: 256 << 20,
		JetStreamMaxStore:  4 << 30,
	}
	if o.Listen != "" {
		if opts.Host, opts.Port, err = splitAddress(o.Listen); err != nil {
			return nil, "", err
		}
		if err := free(o.Listen); err != nil {
			return nil, "", err
		}
	}
	if o.Monitor != "" {
		if opts.HTTPHost, opts.HTTPPort, err = splitAddress(o.Monitor); err != nil {
			return nil, "", err
		}
		if err := free(o.Monitor); err != nil {
			return nil, "", err
		}
	}
	if err := o.serverTLS(opts); err != nil {
		return nil, "", err
	}
	users := slices.Clone(o.Users)
	for i := range users {
		if err := users[i].check(); err != nil {
			return nil, "", err
		}
	}
	if o.AuthFile != "" {
		more, err := ReadUsers(o.AuthFile)
		if err != nil {
			return nil, "", err
		}
		users = append(users, more...)
	}
	if len(users) > 0 {
		inside = rand.Text()
		if err := allow(opts, append(users, User{Name: insideUser, Role: RoleCoordinator, Secret: inside})); err != nil {
			return nil, "", err
		}
	}
	return opts, inside, nil
}

// free asks whether an address can be listened on. The server itself would only
// never become ready.
func free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w: is the port taken?", err)
	}
	return l.Close()
}

// insideUser is this process itself. No file can name such a user.
const insideUser = "inside this process"

func (o *BrokerOptions) serverTLS(opts *server.Options) error {
	if o.TLSCert == "" && o.TLSKey == "" {
		if o.TLSCA != "" {
			return errors.New("a CA for the clients needs a certificate and key of the broker's own")
		}
		return nil
	}
	if o.TLSCert == "" || o.TLSKey == "" {
		return errors.New("certificate and key belong together, only one is given")
	}
	conf, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: o.TLSCert, KeyFile: o.TLSKey, CaFile: o.TLSCA, Verify: o.TLSCA != ""})
	if err != nil {
		return fmt.Errorf("read certificate %s with key %s: %w", o.TLSCert, o.TLSKey, err)
	}
	opts.TLS, opts.TLSConfig, opts.TLSVerify, opts.TLSTimeout = true, conf, o.TLSCA != "", 5
	return nil
}

// Unprotected reports whether anybody who reaches the port may do anything.
func (o *BrokerOptions) Unprotected() bool {
	host, _, err := net.SplitHostPort(o.Listen)
	if o.Listen == "" || err != nil || o.AuthFile != "" || len(o.Users) > 0 || o.TLSCA != "" {
		return false
	}
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// splitAddress reads HOST:PORT. Port 0 is any that is free, for which NATS has a
// number of its own.
func splitAddress(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: want HOST:PORT", s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: port %q is no number below 65536", s, p)
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}

// URL is where clients on this machine reach the broker; it is empty if it opened no
// port.
func (b *Broker) URL() string { return b.url }

func clientURL(addr net.Addr, tls bool) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return ""
	}
	scheme, host := "nats", tcp.IP.String()
	if tls {
		scheme = "tls"
	}
	if tcp.IP.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}

// MonitorURL is where the broker's own HTTP pages are, or empty.
func (b *Broker) MonitorURL() string {
	addr := b.srv.MonitorAddr()
	if addr == nil {
		return ""
	}
	return "http://" + addr.String()
}

// Connect opens a queue on the broker, without a port.
func (b *Broker) Connect() (*Queue, error) { return b.Open(context.Background(), Options{}) }

// Open does the same with options, of which those of the way to the broker are not
// used.
func (b *Broker) Open(ctx context.Context, o Options) (*Queue, error) {
	o.defaults()
	q, err := dial(ctx, o, "", b.way())
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded broker: %w", err)
	}
	q.embedded = b.embedded
	return q, nil
}

func (b *Broker) way() []nats.Option {
	opts := []nats.Option{nats.InProcessServer(b.srv)}
	if b.inside != "" {
		opts = append(opts, nats.UserInfo(insideUser, b.inside))
	}
	return opts
}

// Close stops the broker. What was published stays in its directory.
func (b *Broker) Close() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}
