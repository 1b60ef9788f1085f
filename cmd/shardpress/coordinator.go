package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/machine"
	"github.com/shardpress/shardpress/internal/observe"
	"github.com/shardpress/shardpress/internal/operation"
)

func newCoordinator() *cobra.Command {
	var flags clientFlags
	var tele telemetryFlags
	var src sourceFlags
	var name string
	var maxRuns int
	c := &cobra.Command{
		Use:   "coordinator",
		Short: "Carry out the runs that are submitted to a fleet",
		Long: `Carry out runs: plan them, hand their tasks to workers, place what they make, and
finish the result. Several coordinators may serve one store; if one dies another goes
on with its runs. All that they know is in the store.`,
		Example: `  shardpress coordinator --nats nats://broker:4222 --store s3://models/fleet`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if name == "" {
				name = machine.Name(machine.Host())
			}
			t, err := tele.start(c, "shardpress-coordinator")
			if err != nil {
				return err
			}
			defer t.Shutdown(context.WithoutCancel(ctx))
			store, err := flags.store.open(ctx)
			if err != nil {
				return err
			}
			store = t.Bucket(store)
			opener, err := src.opener(store)
			if err != nil {
				return err
			}
			q, err := flags.nats.dial(ctx, name, t.Logger())
			if err != nil {
				return err
			}
			defer q.Close()
			if err := q.Setup(ctx, operation.ClassF32); err != nil {
				return err
			}
			s, err := salt()
			if err != nil {
				return err
			}
			if err := t.ObserveBacklog(observe.Backlog(q)); err != nil {
				return err
			}
			service := &coordinator.Service{
				Name: name, Store: store, Queue: q, Sources: opener, Salt: s, MaxRuns: maxRuns, Log: t.Logger(), Observe: observe.Runs(t),
			}
			if _, err := fmt.Fprintf(c.ErrOrStderr(), "coordinator %s serves %s\n", name, flags.store.where()); err != nil {
				return err
			}
			return stopped(ctx, service.Serve(ctx))
		},
	}
	flags.register(c)
	flags.nats.registerAckWait(c)
	tele.register(c)
	src.register(c)
	c.Flags().StringVar(&name, "name", "", "name of this coordinator (default the host's, with a random end)")
	c.Flags().IntVar(&maxRuns, "max-runs", 8, "runs to drive at a time")
	return c
}
