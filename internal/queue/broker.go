package queue

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Broker is a NATS server inside this process.
type Broker struct {
	srv      *server.Server
	embedded bool
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
}

// User is who may connect, and as what.
type User struct{ Name, Role, Secret string }

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
	opts := &server.Options{
		ServerName:         "shardpress",
		DontListen:         o.Listen == "",
		NoLog:              true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           o.Dir,
		SyncAlways:         true,
		JetStreamMaxMemory: 64 << 20,
		JetStreamMaxStore:  1 << 30, // tasks are a few KiB, and few are outstanding at a time
	}
	if o.Listen != "" {
		host, port, err := splitAddress(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("start broker: %w", err)
		}
		opts.Host, opts.Port = host, port
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
	return &Broker{srv: srv, embedded: o.Embedded}, nil
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

// URL is where clients reach the broker; it is empty if it opened no port.
func (b *Broker) URL() string {
	if b.srv.Addr() == nil {
		return ""
	}
	return b.srv.ClientURL()
}

// Connect opens a queue on the broker, without a port.
func (b *Broker) Connect() (*Queue, error) { return b.Open(context.Background(), Options{}) }

// Open does the same with options, of which those of the way to the broker are not
// used.
func (b *Broker) Open(ctx context.Context, o Options) (*Queue, error) {
	o.defaults()
	q, err := dial(ctx, o, "", []nats.Option{nats.InProcessServer(b.srv)})
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded broker: %w", err)
	}
	q.embedded = b.embedded
	return q, nil
}

// Close stops the broker. What was published stays in its directory.
func (b *Broker) Close() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}
