package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
)

func newCompress() *cobra.Command {
	var what jobFlags
	var fleet fleetFlags
	var out, report string
	var noReuse, overwrite, asJSON bool
	c := &cobra.Command{
		Use:   "compress",
		Short: "Compress a checkpoint",
		Long: `Compress a checkpoint by a recipe, on this machine, in memory that does not grow
with the model. The result is a directory that engines load.

Work that was finished is kept in the store and never done again: after Ctrl-C, a
crash or kill -9 the same command goes on where it was. The store is a directory,
by default .shardpress beside --out, so that on one file system result and store
share their bytes: it takes no more room than the results for as long as those
exist. It is bounded by the results ever made from it, of which shardpress gc
removes those that were not used for a while. Two runs cannot use one store at the
same time.`,
		Example: `  shardpress compress --model ./Llama-3.1-8B --recipe w4a16-rtn --out ./Llama-3.1-8B-w4a16
  shardpress compress --model ./m --recipe w4a16-rtn --set group=32 --out ./m-g32
  shardpress compress --model ./m --recipe w4a16-rtn --set strategy=channel --set output.format=dense --out ./m-dense
  shardpress compress --model ./m --recipe my.yaml --out ./m-mine --json | jq .kind`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			j, err := what.job()
			if err != nil {
				return err
			}
			if err := fleet.apply(j); err != nil {
				return err
			}
			if err := newFile("--report", report); err != nil {
				return err
			}
			j.Out, j.NoReuse, j.Overwrite, j.Log = out, noReuse, overwrite, newLogger(c.ErrOrStderr())
			return compress1(c, j, asJSON, report)
		},
	}
	what.register(c)
	fleet.register(c)
	c.Flags().StringVar(&out, "out", "", "directory of the result, new or empty (required)")
	c.Flags().StringVar(&report, "report", "", "also write how the run went (times, workers, tasks run and reused) to this file as JSON")
	c.Flags().BoolVar(&noReuse, "no-reuse", false, "run every task although its result is in the store")
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace a finished result in --out, which is removed before the new one is made")
	c.Flags().BoolVar(&asJSON, "json", false, "print events and the report as JSON lines")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic("shardpress: internal error: " + err.Error())
	}
	return c
}

// compress1 runs a job and shows it.
func compress1(c *cobra.Command, j *local.Job, asJSON bool, reportFile string) error {
	var view view = newLines(c.OutOrStdout())
	if asJSON {
		view = newJSONLines(c.OutOrStdout())
	} else if isTerminal(c.OutOrStdout()) {
		view = newBars(c.OutOrStdout())
	}
	j.Planned, j.Watch = view.planned, view.update
	outcome, err := local.Run(c.Context(), j)
	view.close()
	if errors.Is(err, local.ErrComplete) {
		if asJSON {
			return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"kind": "complete", "out": j.Out})
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s is complete already: nothing to do (shardpress verify checks its bytes, --overwrite makes it again)\n", j.Out)
		return err
	}
	if err != nil {
		return err
	}
	if reportFile != "" {
		b, err := json.MarshalIndent(outcome, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(reportFile, append(b, '\n'), 0o644); err != nil {
			return fmt.Errorf("--report: %w; the result itself is complete", err)
		}
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"kind": "report", "outcome": outcome, "report": outcome.Report})
	}
	return summary(c.OutOrStdout(), j.Out, outcome)
}

// summary says in short how it went.
func summary(w io.Writer, out string, o *coordinator.Outcome) error {
	r := o.Report
	rate := ""
	if s := o.Elapsed.Seconds(); s > 0 && o.Reused == 0 {
		rate = fmt.Sprintf(", %s/s of source", formatBytes(int64(float64(r.Source.Bytes)/s)))
	}
	fmt.Fprintf(w, "%s: %s -> %s (ratio %.2f), %.3f bits per weight, %.3f where encoded\n",
		out, formatBytes(r.Source.Bytes), formatBytes(r.Result.Bytes), r.Ratio, r.BitsPerWeight, r.EncodedBitsPerWeight)
	if l := r.Worst(); l != nil {
		fmt.Fprintf(w, "worst linear %s: relative error %.4f\n", l.Name, *l.RelativeError)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	repaired := ""
	if o.Repaired > 0 {
		repaired = fmt.Sprintf(", %d repaired", o.Repaired)
	}
	_, err := fmt.Fprintf(w, "%d tasks: %d run, %d reused%s, in %.1f s%s\n", o.Tasks, o.Executed, o.Reused, repaired, o.Elapsed.Seconds(), rate)
	return err
}
