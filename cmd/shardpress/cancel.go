package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCancel() *cobra.Command {
	var flags clientFlags
	c := &cobra.Command{
		Use:   "cancel RUN",
		Short: "End a run of a fleet",
		Long: `End a run. Its tasks leave the queue; those that are finished stay in the store,
so that the same compress command goes on where it was.`,
		Example: `  shardpress cancel last --nats nats://broker:4222 --store s3://models/fleet`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, q, err := flags.client(c)
			if err != nil {
				return err
			}
			defer q.Close()
			run, err := runNamed(c.Context(), client.Store, args[0])
			if err != nil {
				return err
			}
			if err := client.Cancel(c.Context(), run); err != nil {
				return noSuchRun(err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "run %s is being cancelled\n", run)
			return err
		},
	}
	flags.register(c)
	return c
}
