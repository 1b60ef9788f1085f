package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/testdata/models"
)

func newDemo() *cobra.Command {
	var fleet fleetFlags
	var keep string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Compress the bundled model by several recipes and compare the results",
		Long: `Compress a small trained model that comes with the program by several recipes, with
the embedded broker and a directory as the store, verify each result and print a
table. Nothing else is needed, and nothing is left behind unless --keep names a
directory. A demo in the same directory again goes on with what stands there.`,
		Example: `  shardpress demo
  shardpress demo --keep ./demo`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir := keep
			if dir == "" {
				var err error
				if dir, err = os.MkdirTemp("", "shardpress-demo-"); err != nil {
					return err
				}
				defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
			} else if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return demo(c, dir, &fleet)
		},
	}
	fleet.register(c, ".shardpress beside the results")
	c.Flags().StringVar(&keep, "keep", "", "directory in which to leave the model, the results and the store")
	return c
}

// demoRecipes are compared by the demo.
func demoRecipes() []struct {
	name, recipe string
	set          []string
} {
	return []struct {
		name, recipe string
		set          []string
	}{
		{"w8a16-rtn", "w8a16-rtn", nil},
		{"fp8-dynamic", "fp8-dynamic", nil},
		{"w4a16-rtn", "w4a16-rtn", nil},
		{"nvfp4a16", "nvfp4a16", nil},
		{"nf4", "nf4", nil},
		{"hqq-3bit", "hqq-3bit", nil},
		{"magnitude-2of4-w4a16", "magnitude-2of4-w4a16", nil},
		{"svd-20-int8", "svd-20-int8", nil},
		{"w4a16-rtn-dense", "w4a16-rtn", []string{"output.format=dense"}},
	}
}

func demo(c *cobra.Command, dir string, fleet *fleetFlags) error {
	w := c.OutOrStdout()
	model := filepath.Join(dir, "story")
	if err := unpack(model, models.Story, "story"); err != nil {
		return err
	}
	k, err := kernel()
	if err != nil {
		return err
	}
	s, err := salt()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "The bundled model: a 2-million-weight Llama trained on the story grammar of this repository.\nEach recipe is planned by layer, its tasks travel a JetStream queue to %d workers and come back over a store.\n\n", fleet.workers)
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "RECIPE\tBYTES\tRATIO\tBITS/WEIGHT\tENCODED\tWORST LINEAR\tERROR\tVERIFIED")
	for _, d := range demoRecipes() {
		r, err := loadRecipe(d.recipe, d.set)
		if err != nil {
			return err
		}
		j := &local.Job{Model: model, Recipe: r, Out: filepath.Join(dir, d.name), Salt: s, Kernel: k, Log: newLogger(c.ErrOrStderr())}
		if err := fleet.apply(j); err != nil {
			return err
		}
		var view view = newLines(w)
		if isTerminal(w) {
			view = newBars(w)
		}
		fmt.Fprintf(w, "%s\n", d.name)
		j.Planned, j.Watch = view.planned, view.update
		o, err := local.Run(c.Context(), j)
		view.close()
		var report *coordinator.Report
		switch {
		case err == nil:
			report = o.Report
		case errors.Is(err, local.ErrComplete): // of an earlier demo with the same --keep
			fmt.Fprintln(w, "is complete already")
			if report, err = readReport(j.Out); err != nil {
				return err
			}
		default:
			return err
		}
		checked, err := check(c.Context(), model, j.Out)
		if err != nil {
			return err
		}
		demoRow(table, d.name, report, checked)
	}
	fmt.Fprintln(w)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, "\nENCODED counts scales and zero points of the encoded linears; ERROR is ‖w−ŵ‖/‖w‖ of the worst linear.\nYour own model: shardpress compress --model DIR --recipe w4a16-rtn --out DIR")
	return err
}

func demoRow(w io.Writer, name string, r *coordinator.Report, checked string) {
	worst, lost := "-", "-"
	if l := r.Worst(); l != nil {
		worst, lost = strings.TrimPrefix(l.Name, "model."), fmt.Sprintf("%.4f", *l.RelativeError)
	}
	fmt.Fprintf(w, "%s\t%d\t%.2f\t%.3f\t%.3f\t%s\t%s\t%s\n", name, r.Result.Bytes, r.Ratio, r.BitsPerWeight, r.EncodedBitsPerWeight, worst, lost, checked)
}

// readReport reads the report of a finished result.
func readReport(result string) (*coordinator.Report, error) {
	path := filepath.Join(result, coordinator.ReportFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var r coordinator.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read report %s: %w: remove %s and run the demo again", path, err, result)
	}
	return &r, nil
}

// check verifies a result against its source and says so in a word or two.
func check(ctx context.Context, model, result string) (string, error) {
	v, err := verify(ctx, result, model)
	if err != nil {
		return "", err
	}
	if len(v.Problems) > 0 {
		return "", fmt.Errorf("%s: %w: %s", result, errUnverified, v.Problems[0])
	}
	return fmt.Sprintf("%d tensors", v.Tensors), nil
}

// unpack writes the files of a folder into dir.
func unpack(dir string, from fs.FS, folder string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := fs.ReadDir(from, folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := fs.ReadFile(from, folder+"/"+e.Name())
		if err != nil {
			return err
		}
		path := filepath.Join(dir, e.Name())
		if old, err := os.ReadFile(path); err == nil && string(old) == string(b) {
			continue // rewriting it would make it another source
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
