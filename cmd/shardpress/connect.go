package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/s3"
)

// Environment variables that stand for flags that are not given.
const (
	envStore    = "SHARDPRESS_STORE"
	envEndpoint = "SHARDPRESS_S3_ENDPOINT"
	envRegion   = "AWS_REGION"
	envNATS     = "NATS_URL"
	envCreds    = "NATS_CREDS"
	envNKey     = "NATS_NKEY"
)

// orEnv is a flag's value, or that of the variable which stands for it. Variables
// are no defaults of flags: help prints those, and a URL may hold a password.
func orEnv(value, name string) string {
	if value != "" {
		return value
	}
	return os.Getenv(name)
}

// storeFlags say where the store of a fleet is.
type storeFlags struct {
	store    string
	endpoint string
	region   string
	ca       string
}

func (f *storeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.store, "store", "", "the fleet's store: s3://bucket/prefix, or a directory that all share (env "+envStore+")")
	f.registerS3(c)
}

// registerS3 names the flags of S3 alone, for commands with a --store of their own.
func (f *storeFlags) registerS3(c *cobra.Command) {
	c.Flags().StringVar(&f.endpoint, "s3-endpoint", "", "URL of the S3 server (env "+envEndpoint+"; default AWS); credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the shared credentials file or the machine's role")
	c.Flags().StringVar(&f.region, "s3-region", "", "region of the bucket (env "+envRegion+")")
	c.Flags().StringVar(&f.ca, "s3-ca", "", "file of certificates to trust for the S3 server")
}

func isS3(store string) bool { return strings.HasPrefix(store, "s3://") }

func (f *storeFlags) options() s3.Options {
	return s3.Options{URL: f.store, Endpoint: orEnv(f.endpoint, envEndpoint), Region: orEnv(f.region, envRegion), CAFile: f.ca}
}

// open opens the store.
func (f *storeFlags) open(ctx context.Context) (objstore.Bucket, error) {
	f.store = orEnv(f.store, envStore)
	switch {
	case f.store == "":
		return nil, &usageError{fmt.Errorf("name the fleet's store with --store or %s, such as s3://bucket/prefix", envStore)}
	case isS3(f.store):
		o := f.options()
		if err := o.Check(); err != nil {
			return nil, &usageError{err}
		}
		return s3.Open(ctx, o)
	default:
		return objstore.CreateDir(f.store)
	}
}

// natsFlags say where the broker of a fleet is, and who we are to it.
type natsFlags struct{ queue.Options }

func (f *natsFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.URL, "nats", "", "URL of the fleet's broker, such as nats://host:4222 or tls://host:4222 (env "+envNATS+")")
	c.Flags().StringVar(&f.Creds, "nats-creds", "", "file of NATS credentials (env "+envCreds+")")
	c.Flags().StringVar(&f.NKey, "nats-nkey", "", "file of a NATS nkey seed (env "+envNKey+")")
	c.Flags().StringVar(&f.CA, "nats-ca", "", "file of certificates to trust for the broker")
	c.Flags().StringVar(&f.Cert, "nats-cert", "", "file of this client's certificate")
	c.Flags().StringVar(&f.Key, "nats-key", "", "file of the certificate's key")
}

// registerAckWait names the flag of those who hold tasks and who make the consumers.
func (f *natsFlags) registerAckWait(c *cobra.Command) {
	c.Flags().DurationVar(&f.AckWait, "ack-wait", 30*time.Second, "how long a worker may be silent before its task goes to another one; alike for all of a fleet, and kept by a broker that has it already")
}

// dial connects to the broker.
func (f *natsFlags) dial(ctx context.Context, name string, log *slog.Logger) (*queue.Queue, error) {
	f.URL, f.Creds, f.NKey = orEnv(f.URL, envNATS), orEnv(f.Creds, envCreds), orEnv(f.NKey, envNKey)
	if f.URL == "" {
		return nil, &usageError{fmt.Errorf("name the fleet's broker with --nats or %s, such as nats://host:4222", envNATS)}
	}
	o := f.Options
	o.Name, o.Log = name, log
	if err := o.Check(); err != nil {
		return nil, &usageError{err}
	}
	return queue.Dial(ctx, o)
}

// stopped is how a process of a fleet ends: one that was told to stop has done what
// it should, however far it was.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// where names the store for people.
func (f *storeFlags) where() string { return f.store }

// sourceFlags say from where a process of a fleet may read checkpoints.
type sourceFlags struct{ dirs []string }

func (f *sourceFlags) register(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.dirs, "sources", nil, "directories, mounted alike on all machines, from which checkpoints may be read (default none: those in the store and on the hub only)")
}

func (f *sourceFlags) opener(store objstore.Bucket) (*source.Opener, error) {
	hub, err := source.HubFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	return &source.Opener{Store: store, Dirs: f.dirs, Hub: hub}, nil
}
