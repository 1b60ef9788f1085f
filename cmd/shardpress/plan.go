package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
)

func newPlan() *cobra.Command {
	var what jobFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what compress would do, from headers only",
		Example: `  shardpress plan --model ./Llama-3.1-405B --recipe w4a16-rtn
  shardpress plan --model ./m --recipe w4a16-rtn --set group=32 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			j, err := what.job()
			if err != nil {
				return err
			}
			ck, plan, err := local.Open(c.Context(), j)
			if err != nil {
				return err
			}
			defer ck.Close() //nolint:errcheck // opened for reading
			if asJSON {
				return planJSON(c, plan)
			}
			return planTable(c, plan)
		},
	}
	what.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// planRow is what plan says of a task.
type planRow struct {
	Task        string `json:"task"`
	Operation   string `json:"operation"`
	File        string `json:"file"`
	Block       int    `json:"block"`
	Linears     int    `json:"linears"`
	SourceBytes int64  `json:"source_bytes"`
	ResultBytes int64  `json:"result_bytes"`
	Memory      int64  `json:"memory"`
	MemoryClass int64  `json:"memory_class"`
}

func planRows(p *coordinator.Plan) ([]planRow, error) {
	var rows []planRow
	for _, u := range p.Units {
		class, err := queue.MemoryClass(u.Layout.Memory)
		if err != nil {
			return nil, err
		}
		n := 0
		_, layout, err := u.Work()
		if err != nil {
			return nil, err
		}
		for _, it := range layout.Items {
			n += len(it.Encoded)
		}
		rows = append(rows, planRow{
			u.ID.Short(), operation.EncodeOp, u.File, u.Block, n, u.Layout.SourceBytes, u.Layout.Size(), u.Layout.Memory, class,
		})
	}
	return rows, nil
}

func planJSON(c *cobra.Command, p *coordinator.Plan) error {
	rows, err := planRows(p)
	if err != nil {
		return err
	}
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{
		"tasks": rows, "source_bytes": p.SourceBytes(), "result_bytes": p.ResultBytes(), "format": p.Format, "notes": p.Notes,
	})
}

func planTable(c *cobra.Command, p *coordinator.Plan) error {
	rows, err := planRows(p)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "TASK\tOPERATION\tFILE\tBLOCK\tLINEARS\tREADS\tWRITES\tMEMORY\tCLASS")
	var memory int64
	linears := 0
	for _, r := range rows {
		block := "-"
		if r.Block >= 0 {
			block = fmt.Sprint(r.Block)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d MiB\n", r.Task, r.Operation, r.File, block, r.Linears,
			formatBytes(r.SourceBytes), formatBytes(r.ResultBytes), formatBytes(r.Memory), r.MemoryClass>>20)
		memory = max(memory, r.Memory)
		linears += r.Linears
	}
	if err := w.Flush(); err != nil {
		return err
	}
	m := p.Manifest
	for _, n := range p.Notes {
		fmt.Fprintf(c.OutOrStdout(), "note: %s\n", n)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d blocks, %d tensors in %d files; %d tasks encode %d linears (recipe %s, %s)\nreads %s, writes %s (ratio %.2f), largest task %s\n",
		m.Model.Architecture, m.Model.Blocks, len(m.Tensors), len(m.Files), len(rows), linears, p.Recipe.Name, p.Format,
		formatBytes(p.SourceBytes()), formatBytes(p.ResultBytes()), float64(p.SourceBytes())/float64(max(p.ResultBytes(), 1)), formatBytes(memory))
	return err
}
