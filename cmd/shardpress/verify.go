package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	vfy "github.com/shardpress/shardpress/internal/verify"
)

var errUnverified = errors.New("verification failed")

func newVerify() *cobra.Command {
	var model string
	var asJSON bool
	var worst int
	c := &cobra.Command{
		Use:   "verify RESULT",
		Short: "Check a result: checksums, shapes, scales, and the error of every linear",
		Long: `Check a result against its table of contents: every file and its checksum, every
tensor with its type and shape, every scale. With --model, the source that it was
made of, also compare with what the source and the result's recipe make: config.json,
the index and the report, every tensor's name, type, shape and file; decode every
linear and compare its error with the report's; compare every tensor that was carried
over, and every other file that the source has, such as the tokenizer's, with the
source's bytes.`,
		Example: `  shardpress verify ./Llama-3.1-8B-w4a16
  shardpress verify --model ./Llama-3.1-8B ./Llama-3.1-8B-w4a16`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var progress func(int64)
			stop := func() {}
			if !asJSON && isTerminal(c.OutOrStdout()) {
				p := mpb.New(mpb.WithOutput(c.OutOrStdout()), mpb.WithWidth(40))
				bar := p.AddBar(0, mpb.PrependDecorators(decor.Name("checked "), decor.CurrentKibiByte("% .1f ")), mpb.BarRemoveOnComplete())
				progress = func(n int64) { bar.IncrInt64(n) }
				stop = func() { bar.Abort(true); p.Wait() }
			}
			r, err := vfy.Run(c.Context(), args[0], model, progress)
			stop()
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(c.OutOrStdout()).Encode(r)
			} else {
				err = printVerification(c, r, worst)
			}
			if err == nil && len(r.Problems) > 0 {
				err = fmt.Errorf("%s: %w: %s", args[0], errUnverified, problems(len(r.Problems)))
			}
			return err
		},
	}
	c.Flags().StringVar(&model, "model", "", "the source that the result was made of")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().IntVar(&worst, "worst", 5, "how many of the worst linears to print")
	return c
}

func printVerification(c *cobra.Command, r *vfy.Report, worst int) error {
	w := c.OutOrStdout()
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem: %s\n", p)
	}
	linears := slices.Clone(r.Linears)
	linears = slices.DeleteFunc(linears, func(l vfy.Linear) bool { return l.RelativeError == nil })
	slices.SortStableFunc(linears, func(a, b vfy.Linear) int { return cmp.Compare(*b.RelativeError, *a.RelativeError) })
	for _, l := range linears[:min(max(worst, 0), len(linears))] {
		fmt.Fprintf(w, "relative error %.6f  %s\n", *l.RelativeError, l.Name)
	}
	how := "without the source (--model compares with it)"
	if r.Source {
		how = fmt.Sprintf("%d linears decoded and compared with the source", len(r.Linears))
	}
	_, err := fmt.Fprintf(w, "%s: %d files, %d tensors, %d tensors of scales are as they should be; %s; %s\n",
		r.Result, r.Files, r.Tensors, r.Scales, how, problems(len(r.Problems)))
	return err
}

func problems(n int) string {
	if n == 1 {
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", n)
}

func verify(ctx context.Context, result, model string) (*vfy.Report, error) {
	return vfy.Run(ctx, result, model, nil)
}
