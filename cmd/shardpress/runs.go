package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
)

func newRuns() *cobra.Command {
	var store storeFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "runs",
		Short: "List the runs of a fleet's store",
		Example: `  shardpress runs --store s3://models/fleet
  shardpress runs --store s3://models/fleet --json | jq -r 'select(.state == "failed") | .run'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := store.open(c.Context())
			if err != nil {
				return err
			}
			runs, err := coordinator.Runs(c.Context(), b)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !asJSON {
				fmt.Fprintln(w, "RUN\tSTATE\tRECIPE\tMODEL\tOUT\tTASKS\tTIME")
			}
			for _, run := range runs {
				line, err := describeRun(c, b, run)
				if err != nil {
					return err
				}
				if asJSON {
					err = json.NewEncoder(c.OutOrStdout()).Encode(line)
				} else {
					_, err = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", line.Run, line.State, line.Recipe, line.Model, line.Out, line.Tasks, line.Time)
				}
				if err != nil {
					return err
				}
			}
			return w.Flush()
		},
	}
	store.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line a run")
	return c
}
