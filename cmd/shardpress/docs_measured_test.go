package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
)

// measured is a preset's row of a table: what it makes of the bundled model.
type measured struct {
	preset, format string
	bits, ratio    float64
	median, worst  float64 // relative errors of the linears
	methods        []string
}

// measure compresses the bundled model with a preset.
func measure(t *testing.T, r *recipe.Recipe) measured {
	t.Helper()
	out := filepath.Join(t.TempDir(), r.Name)
	mustCall(t, "compress", "--model", story, "--recipe", r.Name, "--out", out)
	var report coordinator.Report
	b, err := os.ReadFile(filepath.Join(out, coordinator.ReportFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	var errors []float64
	for _, l := range report.Linears {
		if l.RelativeError != nil {
			errors = append(errors, *l.RelativeError)
		}
	}
	slices.Sort(errors)
	m := measured{preset: r.Name, format: report.Format, bits: report.EncodedBitsPerWeight, ratio: report.Ratio, median: errors[len(errors)/2], worst: errors[len(errors)-1]}
	for _, s := range r.Steps {
		m.methods = append(m.methods, s.Method)
		if s.Then != nil {
			m.methods = append(m.methods, s.Then.Method)
		}
	}
	return m
}

// measuredTable is the table of the presets that use a method.
func measuredTable(all []measured, method string) string {
	var b strings.Builder
	b.WriteString("\nThe bundled model (`testdata/models/story`, 2 million weights), errors relative to the weights, ‖w − ŵ‖/‖w‖. Lower errors do not order methods of\nunlike kinds: what they do to the text is another question.\n\n")
	b.WriteString("| preset | format | bits per encoded weight | ratio of the files | median linear | worst linear |\n|---|---|---|---|---|---|\n")
	for _, m := range all {
		if slices.Contains(m.methods, method) {
			fmt.Fprintf(&b, "| `%s` | %s | %.3f | %.2f | %.4f | %.4f |\n", m.preset, m.format, m.bits, m.ratio, m.median, m.worst)
		}
	}
	return b.String() + "\n"
}

// methodTable is README.md's table of methods.
func methodTable(t *testing.T) string {
	t.Helper()
	methods, err := recipe.Methods()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("\n| method | what it does | output formats |\n|---|---|---|\n")
	for _, m := range methods {
		fmt.Fprintf(&b, "| [`%s`](docs/methods/%s.md) | %s | %s |\n", m.Name, m.Name, cell(m.Description), strings.Join(m.Formats, ", "))
	}
	return b.String() + "\n"
}

// generate keeps the part of a document between two comments; -update writes it.
func generate(t *testing.T, path, what, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("%v: every method has a page", err)
		return
	}
	begin, end := "<!-- generated: "+what+" -->\n", "<!-- end -->"
	head, rest, ok := strings.Cut(string(b), begin)
	have, tail, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Errorf("%s has no part that is generated from what is %s", path, what)
	case have == want:
	case !*update:
		t.Errorf("%s is not what is %s: go test ./cmd/shardpress -run Measured -update", path, what)
	default:
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMeasured keeps the tables of docs/methods and of README.md: bytes are the same on every machine, and so are errors.
func TestMeasured(t *testing.T) {
	t.Parallel()
	generate(t, "../../README.md", "methods", methodTable(t))
	if testing.Short() && !*update {
		t.Skip("compresses the bundled model with every preset")
	}
	presets, err := recipe.Presets()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]measured, len(presets))
	var wait sync.WaitGroup
	t.Run("presets", func(t *testing.T) {
		for i, r := range presets {
			wait.Add(1)
			t.Run(r.Name, func(t *testing.T) {
				defer wait.Done()
				t.Parallel()
				all[i] = measure(t, r)
			})
		}
	})
	wait.Wait()
	if t.Failed() {
		return
	}
	methods, err := recipe.Methods()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range methods {
		generate(t, filepath.Join("../../docs/methods", m.Name+".md"), "measured", measuredTable(all, m.Name))
	}
}
