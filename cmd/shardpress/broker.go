package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/internal/queue"
)

func newBroker() *cobra.Command {
	var o queue.BrokerOptions
	c := &cobra.Command{
		Use:   "broker",
		Short: "Run the message broker of a small fleet",
		Long: `Run a NATS server with JetStream, the one that compress embeds, as a process of its
own. Every message is on the disk before it counts as sent. What the broker holds can
be lost without loss of work: coordinators rebuild it from the store. A fleet that has
a NATS server needs no other.`,
		Example: `  shardpress broker --dir ./broker
  shardpress broker --dir /var/lib/shardpress/broker --listen 0.0.0.0:4222 --auth users.conf --tls-cert cert.pem --tls-key key.pem`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			unlock, err := lockBroker(o.Dir)
			if err != nil {
				return err
			}
			defer unlock()
			b, err := queue.StartBroker(o)
			if err != nil {
				return err
			}
			defer b.Close()
			if _, err := fmt.Fprintf(c.OutOrStdout(), "broker listens on %s\n", b.URL()); err != nil {
				return err
			}
			<-c.Context().Done()
			return nil
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "directory of the broker's state (required)")
	c.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:4222", "address to listen on")
	c.Flags().StringVar(&o.Monitor, "monitor", "", "address of the server's own HTTP monitoring, such as 127.0.0.1:8222")
	c.Flags().StringVar(&o.TLSCert, "tls-cert", "", "file of the server's certificate: clients must then use TLS")
	c.Flags().StringVar(&o.TLSKey, "tls-key", "", "file of the certificate's key")
	c.Flags().StringVar(&o.TLSCA, "tls-ca", "", "file of certificates that clients' own must be signed by")
	c.Flags().StringVar(&o.AuthFile, "auth", "", "file of users and their roles (docs/deploy.md)")
	if err := c.MarkFlagRequired("dir"); err != nil {
		panic("shardpress: internal error: " + err.Error())
	}
	return c
}

// lockBroker keeps two brokers from one directory, which NATS does not: each would
// write over what the other holds. The kernel lets go of the lock when the process
// dies, however it dies.
func lockBroker(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("start broker: %w", err)
	}
	// Some network file systems lock no directories.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("start broker: %s is in use by another broker: stop it, or name another directory with --dir", dir)
	}
	return func() { f.Close() }, nil
}
