package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
)

func newCompress() *cobra.Command {
	var what jobFlags
	var fleet fleetFlags
	var submit submitFlags
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
same time.

With --nats the work is a fleet's: the run is submitted to the coordinators and workers
of the broker and of --store, s3://bucket/prefix (env SHARDPRESS_STORE), and watched. A
model on this machine is uploaded first, by layer; one below the store (s3://...) or on
the Hugging Face hub (hf://owner/name@revision) is read in place. The result comes to
--out file by file, or stays in the store if that is s3://... below it. Ctrl-C ends
the watching, not the run.`,
		Example: `  shardpress compress --model ./Llama-3.1-8B --recipe w4a16-rtn --out ./Llama-3.1-8B-w4a16
  shardpress compress --model ./m --recipe w4a16-rtn --set group=32 --out ./m-g32
  shardpress compress --model ./m --recipe w4a16-rtn --set strategy=channel --set output.format=dense --out ./m-dense
  shardpress compress --model ./m --recipe my.yaml --out ./m-mine --json | jq .kind
  shardpress compress --nats nats://broker:4222 --store s3://models/fleet --model ./m --recipe w4a16-rtn --out ./m-w4a16
  shardpress compress --nats nats://broker:4222 --store s3://models/fleet --model hf://owner/name --recipe w4a16-rtn --out s3://models/fleet/results/name-w4a16 --audit 1% --detach`,
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
			j.NoReuse, j.Overwrite, j.Log = noReuse, overwrite, newLogger(c.ErrOrStderr())
			remote, err := submit.fleet(c)
			if err != nil {
				return err
			}
			if remote {
				if j.Telemetry, err = follow(c.Context(), j.Log); err != nil {
					return err
				}
				defer j.Telemetry.Shutdown(context.WithoutCancel(c.Context()))
				return (&submission{submitFlags: &submit, c: c, job: j, out: out, json: asJSON, report: report}).run()
			}
			if isS3(out) {
				return &usageError{fmt.Errorf("--out %s: a result is made in S3 by a fleet only: name its broker with --nats", out)}
			}
			if j.Out, err = filepath.Abs(out); err != nil { // the run's record must mean something elsewhere, too
				return fmt.Errorf("--out: %w", err)
			}
			if j.Telemetry, err = follow(c.Context(), j.Log); err != nil {
				return err
			}
			defer j.Telemetry.Shutdown(c.Context())
			return compress1(c, j, out, asJSON, report)
		},
	}
	what.register(c)
	fleet.register(c, ".shardpress beside --out")
	submit.register(c)
	c.Flags().StringVar(&out, "out", "", "directory of the result, new or empty; on a fleet also s3://... below the store (required)")
	c.Flags().StringVar(&report, "report", "", "also write how the run went (recipe, times, workers, tasks run and reused, also when it fails) to this file as JSON")
	c.Flags().BoolVar(&noReuse, "no-reuse", false, "run every task although its result is in the store")
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace a finished result in --out, which is removed before the new one is made")
	c.Flags().BoolVar(&asJSON, "json", false, "print events and the report as JSON lines")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic("shardpress: internal error: " + err.Error())
	}
	return c
}

// compress1 runs a job and shows it; out is its output as the user called it.
func compress1(c *cobra.Command, j *local.Job, out string, asJSON bool, reportFile string) error {
	view := newView(c.OutOrStdout(), asJSON)
	j.Planned = func(p *coordinator.Outline) {
		collectOften()
		view.planned(p)
	}
	j.Watch = view.update
	outcome, err := local.Run(c.Context(), j)
	view.close()
	record := recordOf(c.Context(), j, outcome, err)
	if reportFile != "" {
		err = errors.Join(err, writeRecord(reportFile, record))
	}
	if err == nil && asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"kind": "report", "outcome": record, "report": outcome.Report})
	}
	if err == nil {
		return summary(c.OutOrStdout(), out, outcome)
	}
	if record.State != coordinator.StateComplete {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"kind": "complete", "out": j.Out})
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s is complete already: nothing to do (shardpress verify checks its bytes, --overwrite makes it again)\n", out)
	return err
}

// recordOf says how the job went, also if it did not come as far as to a run.
func recordOf(ctx context.Context, j *local.Job, o *coordinator.Outcome, err error) *coordinator.Record {
	var r *coordinator.Record
	if o != nil {
		r = o.Record
	}
	if r == nil {
		model, aerr := filepath.Abs(j.Model)
		if aerr != nil {
			model = j.Model
		}
		recipe, rerr := j.Recipe.Canonical()
		if rerr != nil {
			recipe = nil // err says what is wrong with it
		}
		r = coordinator.NewRecord("", model, j.Out, recipe)
	}
	// The run has an end of its own, before its result is finished.
	r.State, r.Error, r.Invalid = coordinator.StateDone, "", false
	switch {
	case err == nil:
		return r
	case errors.Is(err, local.ErrComplete):
		r.State = coordinator.StateComplete
		return r
	case ctx.Err() != nil:
		r.State = coordinator.StateInterrupted
	default:
		r.State = coordinator.StateFailed
	}
	r.Error, r.Invalid = err.Error(), exitCode(err) == exitInvalid
	return r
}

func writeRecord(path string, r *coordinator.Record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		state := ""
		if r.State == coordinator.StateDone {
			state = "; the result itself is complete"
		}
		return fmt.Errorf("--report: %w%s", err, state)
	}
	return nil
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
		repaired = fmt.Sprintf(" (lost bytes made again %d times)", o.Repaired)
		if o.Repaired == 1 {
			repaired = " (lost bytes made again once)"
		}
	}
	_, err := fmt.Fprintf(w, "%d tasks: %d run%s, %d reused, in %.1f s%s\n", o.Tasks, o.Executed, repaired, o.Reused, o.Elapsed.Seconds(), rate)
	return err
}
