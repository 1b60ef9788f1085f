package queue

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Broker is a NATS server inside this process. It opens no port.
type Broker struct {
	srv *server.Server
}

// StartEmbedded starts a broker whose JetStream state lives in dir. A message is
// on disk when its publish returns (sync always): NATS's own default of two
// minutes would lose acknowledged messages with the machine.
func StartEmbedded(dir string) (*Broker, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName:         "shardpress",
		DontListen:         true,
		NoLog:              true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           dir,
		SyncAlways:         true,
		JetStreamMaxMemory: 16 << 20,
		JetStreamMaxStore:  1 << 30, // tasks are a few KiB, and few are outstanding at a time
	})
	if err != nil {
		return nil, fmt.Errorf("start broker in %s: %w", dir, err)
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		srv.Shutdown()
		return nil, fmt.Errorf("start broker in %s: not ready after 20 s; is the directory writable?", dir)
	}
	if !srv.JetStreamEnabled() {
		srv.Shutdown()
		return nil, fmt.Errorf("start broker in %s: JetStream did not start; remove the directory (it holds only scheduling state) and run again", dir)
	}
	return &Broker{srv: srv}, nil
}

// Connect opens a queue on the broker.
func (b *Broker) Connect() (*Queue, error) {
	nc, err := nats.Connect("", nats.InProcessServer(b.srv), nats.Name("shardpress"))
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded broker: %w", err)
	}
	q, err := open(nc)
	if err != nil {
		return nil, err
	}
	q.embedded = true
	return q, nil
}

// Close stops the broker. What was published stays in its directory.
func (b *Broker) Close() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

var errClosed = errors.New("queue is closed")
