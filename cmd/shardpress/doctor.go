package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
	"github.com/shardpress/shardpress/objstore"
	storeprobe "github.com/shardpress/shardpress/objstore/probe"
	"github.com/shardpress/shardpress/objstore/s3"
)

// errUnwell says that a fleet's store or broker does not do what is needed of it.
var errUnwell = errors.New("not everything is well: see above")

func newDoctor() *cobra.Command {
	var flags clientFlags
	var create bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Try a fleet's store and broker",
		Long: `Try what a fleet needs of its store (conditional put, ranged get, sorted lists,
server-side copy) and of its broker (JetStream, its limits, when it writes to the disk),
and say what is missing and what to do about it. With --create, make the bucket and the
broker's streams if they are not there. Nothing is left behind in the store.`,
		Example: `  shardpress doctor --create --store s3://models/fleet --s3-endpoint http://s3:7070 --nats nats://broker:4222
  shardpress doctor --store s3://models/fleet`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, w := c.Context(), c.OutOrStdout()
			flags.store.store = orEnv(flags.store.store, envStore)
			flags.nats.URL = orEnv(flags.nats.URL, envNATS)
			if flags.store.store == "" && flags.nats.URL == "" {
				return &usageError{errors.New("name what is to be tried with --store and --nats")}
			}
			well := true
			if flags.store.store != "" {
				ok, err := tryStore(ctx, w, &flags.store, create, wait)
				if err != nil {
					return err
				}
				well = well && ok
			}
			if flags.nats.URL != "" {
				ok, err := tryBroker(c, w, &flags.nats, create, wait)
				if err != nil {
					return err
				}
				well = well && ok
			}
			if !well {
				return errUnwell
			}
			return nil
		},
	}
	flags.register(c)
	flags.nats.registerAckWait(c)
	c.Flags().BoolVar(&create, "create", false, "make the bucket and the streams if they are not there")
	c.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for servers that are just starting")
	return c
}

func tryStore(ctx context.Context, w io.Writer, f *storeFlags, create bool, wait time.Duration) (bool, error) {
	b, err := openPatiently(ctx, f, create, wait)
	if err != nil {
		return false, err
	}
	checks := storeprobe.Probe(ctx, b)
	for _, x := range checks {
		state := "ok"
		if !x.OK {
			state = "failed"
		}
		finding(w, state, "store", x.Name, x.Detail, x.Remedy)
	}
	if n, ok := b.(interface{ Notes() []string }); ok {
		for _, note := range n.Notes() {
			finding(w, "warning", "store", "note", note, "")
		}
	}
	return storeprobe.OK(checks), nil
}

// openPatiently opens a store whose server may be just starting.
func openPatiently(ctx context.Context, f *storeFlags, create bool, wait time.Duration) (objstore.Bucket, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		b, err := f.open(ctx)
		if err == nil && isS3(f.store) {
			_, err = b.Stat(ctx, "clock")
		}
		switch {
		case err == nil, errors.Is(err, objstore.ErrNotExist):
			return b, nil
		case errors.Is(err, objstore.ErrRoot) && create && isS3(f.store):
			if err = s3.CreateBucket(ctx, f.options()); err == nil {
				continue
			}
		case errors.Is(err, objstore.ErrRoot), errors.Is(err, objstore.ErrReadOnly), errors.Is(err, objstore.ErrKey):
			return nil, err
		}
		var usage *usageError
		if errors.As(err, &usage) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func tryBroker(c *cobra.Command, w io.Writer, f *natsFlags, create bool, wait time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(c.Context(), wait)
	defer cancel()
	q, err := f.dial(ctx, "doctor", newLogger(c.ErrOrStderr()))
	if err != nil {
		return false, err
	}
	defer q.Close()
	if create {
		if err := q.Setup(ctx, operation.ClassF32); err != nil {
			return false, err
		}
	}
	checks, err := q.Check(ctx)
	if err != nil {
		return false, err
	}
	well := true
	for _, x := range checks {
		finding(w, string(x.State), "broker", x.Name, x.Detail, x.Remedy)
		well = well && (x.State == queue.CheckOK || x.State == queue.CheckWarning)
	}
	return well, nil
}

func finding(w io.Writer, state, of, name, detail, remedy string) {
	fmt.Fprintf(w, "%-8s %-7s %-24s %s\n", state, of, name, detail)
	if state != "ok" && remedy != "" {
		fmt.Fprintf(w, "%-8s %-7s %-24s -> %s\n", "", "", "", remedy)
	}
}
