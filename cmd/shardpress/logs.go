package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

func newLogs() *cobra.Command {
	var store storeFlags
	var match string
	var failed, asJSON bool
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Show what the attempts of a run logged",
		Long: `Show every attempt at a task of the run, the oldest first, with the worker, how it
ended, and the last 64 KiB that the worker logged of it. An attempt that says only
"started" is being worked on, or its worker has died.`,
		Example: `  shardpress logs last --store s3://models/fleet --failed
  shardpress logs last --store s3://models/fleet --task 3f9a`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := store.open(c.Context())
			if err != nil {
				return err
			}
			run, err := runNamed(c.Context(), b, args[0])
			if err != nil {
				return err
			}
			attempts, err := fleet.Attempts(c.Context(), b, run)
			if err != nil {
				return err
			}
			if len(attempts) == 0 { // of a run that did nothing, or of none
				if err := submitted(c.Context(), b, run); err != nil {
					return err
				}
			}
			attempts = slices.DeleteFunc(attempts, func(a *task.AttemptRecord) bool {
				ended := a.State == task.AttemptDone || a.State == task.AttemptLate
				return failed && ended || !strings.HasPrefix(a.ID.String(), match)
			})
			if asJSON {
				e := json.NewEncoder(c.OutOrStdout())
				for _, a := range attempts {
					if err := e.Encode(a); err != nil {
						return err
					}
				}
				return nil
			}
			return printAttempts(c.OutOrStdout(), attempts)
		},
	}
	store.register(c)
	c.Flags().StringVar(&match, "task", "", "only tasks whose ID begins so")
	c.Flags().BoolVar(&failed, "failed", false, "only attempts that did not end well")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one line an attempt")
	return c
}

// submitted refuses the name of a run that the store knows nothing of.
func submitted(ctx context.Context, store objstore.Bucket, run string) error {
	r, err := coordinator.ReadRecord(ctx, store, run)
	if err != nil || r != nil {
		return err
	}
	if _, err = coordinator.ReadSubmission(ctx, store, run); errors.Is(err, objstore.ErrNotExist) {
		return noSuchRun(err)
	}
	return nil
}

func printAttempts(w io.Writer, attempts []*task.AttemptRecord) error {
	for _, a := range attempts {
		took := ""
		if !a.Ended.IsZero() {
			took = ", " + a.Ended.Sub(a.Started).Round(time.Millisecond).String()
		}
		kind := ""
		if a.Copy != "" {
			kind = " (" + a.Copy + ")"
		}
		if _, err := fmt.Fprintf(w, "%s task %s attempt %s%s on %s: %s%s\n", a.Started.Format(time.RFC3339), a.ID.Short(), a.Attempt, kind, a.Worker, a.State, took); err != nil {
			return err
		}
		for line := range strings.Lines(strings.Trim(a.Detail+"\n"+a.Log, "\n")) {
			if _, err := fmt.Fprintf(w, "  %s\n", strings.TrimRight(line, "\n")); err != nil {
				return err
			}
		}
	}
	if len(attempts) == 0 {
		_, err := fmt.Fprintln(w, "no attempts")
		return err
	}
	return nil
}
