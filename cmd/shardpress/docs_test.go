package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fields lists the paths of a type's JSON fields.
func fields(prefix string, t reflect.Type) []string {
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path, ft := prefix+name, f.Type
		switch {
		case ft.Kind() == reflect.Struct:
			all = append(all, fields(path+".", ft)...)
			continue
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			all = append(all, fields(path+"[].", ft.Elem())...)
		}
		all = append(all, path)
	}
	return all
}

// TestReportDocument holds docs/report.md to the schemas: a row for every field and
// no row of another.
func TestReportDocument(t *testing.T) {
	t.Parallel()
	result, run, ok := strings.Cut(document(t, "report.md"), "\n## The run report\n")
	if !ok {
		t.Fatal("docs/report.md says nothing of the run report")
	}
	for _, s := range []struct {
		text    string
		schema  reflect.Type
		version int
	}{
		{result, reflect.TypeFor[coordinator.Report](), coordinator.ReportVersion},
		{run, reflect.TypeFor[coordinator.Record](), coordinator.RecordVersion},
	} {
		var documented []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(s.text, -1) {
			documented = append(documented, m[1])
		}
		want := fields("", s.schema)
		for _, f := range want {
			if !slices.Contains(documented, f) {
				t.Errorf("%s is not documented", f)
			}
		}
		for _, f := range documented {
			// An object may have a row besides those of its fields.
			if !slices.ContainsFunc(want, func(w string) bool { return w == f || strings.HasPrefix(w, f+".") }) {
				t.Errorf("%s is documented and does not exist", f)
			}
		}
		if !strings.Contains(s.text, fmt.Sprintf("of this schema: %d", s.version)) {
			t.Errorf("the version is not %d", s.version)
		}
	}
}

// generated is the part of docs/recipes.md that presets and methods decide.
func generated(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	presets, err := recipe.Presets()
	if err != nil {
		t.Fatal(err)
	}
	methods, err := recipe.Methods()
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n## Presets\n\n| preset | format | what it makes |\n|---|---|---|\n")
	for _, r := range presets {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Name, r.Format(), cell(r.Description))
	}
	b.WriteString("\n## Methods\n")
	for _, m := range methods {
		fmt.Fprintf(&b, "\n### %s, version %d\n\n%s. Formats, the default first: %s.\n",
			m.Name, m.Version, strings.ToUpper(m.Description[:1])+m.Description[1:], strings.Join(m.Formats, ", "))
		if len(m.Parameters) > 0 {
			b.WriteString("\n| parameter | default | takes | meaning |\n|---|---|---|---|\n")
		}
		for _, p := range m.Parameters {
			takes := string(p.Kind)
			switch {
			case len(p.Choices) > 0:
				takes = "`" + strings.Join(p.Choices, "`, `") + "`"
			case p.Min != 0 || p.Max != 0:
				takes = fmt.Sprintf("%s from %s to %s", p.Kind, strconv.FormatFloat(p.Min, 'f', -1, 64), strconv.FormatFloat(p.Max, 'f', -1, 64))
			}
			if p.When != "" {
				takes += fmt.Sprintf(", with `%s: %s`", p.When, p.Is)
			}
			fmt.Fprintf(&b, "| `%s` | `%v` | %s | %s |\n", p.Name, p.Default, takes, cell(p.Doc))
		}
	}
	return b.String() + "\n"
}

// cell keeps a text from ending its cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// TestRecipeDocument keeps the tables of docs/recipes.md; -update writes them.
func TestRecipeDocument(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- generated: presets, methods -->\n", "<!-- end -->"
	text := document(t, "recipes.md")
	head, rest, ok := strings.Cut(text, begin)
	have, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("docs/recipes.md has no generated part")
	}
	if want := generated(t); have != want {
		if !*update {
			t.Fatal("docs/recipes.md is not what presets and methods say: go test ./cmd/shardpress -run RecipeDocument -update")
		}
		if err := os.WriteFile("../../docs/recipes.md", []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	examples := strings.Split(text, "```yaml\n")[1:]
	if len(examples) < 4 {
		t.Errorf("%d examples", len(examples))
	}
	for _, yaml := range examples {
		yaml, _, _ = strings.Cut(yaml, "```")
		if _, err := recipe.Parse("docs/recipes.md", []byte(yaml)); err != nil {
			t.Errorf("%v in\n%s", err, yaml)
		}
	}
	// Every key of a resolved recipe is explained.
	r, err := recipe.Preset("w8a8-rtn")
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		if !strings.Contains(text, "`"+key) {
			t.Errorf("key %s is not explained", key)
		}
	}
}

// TestHelp holds every command's examples to its flags.
func TestHelp(t *testing.T) {
	t.Parallel()
	quoted := regexp.MustCompile(`"[^"]*"`)
	check := func(line string) {
		line, _, _ = strings.Cut(line, "|") // a pipe into another program
		words := strings.Fields(quoted.ReplaceAllStringFunc(line, func(s string) string { return strings.ReplaceAll(s, " ", "_") }))
		if len(words) < 2 || words[0] != "shardpress" {
			t.Errorf("example %q does not call shardpress", line)
			return
		}
		root := newRoot()
		c, args, err := root.Find(words[1:])
		if err != nil || c == root {
			t.Errorf("example %q: no such command: %v", line, err)
			return
		}
		if err := c.ParseFlags(args); err != nil {
			t.Errorf("example %q: %v", line, err)
			return
		}
		if err := c.Args(c, c.Flags().Args()); err != nil {
			t.Errorf("example %q: %v", line, err)
		}
		if name := c.Flags().Lookup("recipe"); name != nil && filepath.Ext(name.Value.String()) == "" {
			set, err := c.Flags().GetStringArray("set")
			if err != nil {
				t.Error(err)
			}
			if _, err := loadRecipe(name.Value.String(), set); err != nil {
				t.Errorf("example %q: %v", line, err)
			}
		}
	}
	root := newRoot()
	for _, c := range append([]*cobra.Command{root}, root.Commands()...) {
		if c.Example == "" && c.HasAvailableLocalFlags() {
			t.Errorf("%s has flags and no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			check(line)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", c.CommandPath(), f.Name, f.Usage)
			}
		})
		said := mustCall(t, append(strings.Fields(c.CommandPath())[1:], "--help")...)
		if !strings.Contains(said, "Usage:") || c.Example != "" && !strings.Contains(said, "Examples:") {
			t.Errorf("%s --help says %q", c.CommandPath(), said)
		}
	}
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^(?:go run \./cmd/|bin/)(shardpress [^#\n]*)`).FindAllSubmatch(b, -1) {
		check(string(bytes.TrimSpace(line[1])))
	}
	for _, code := range []int{exitFailed, exitInvalid, exitUnverified, exitInterrupted} {
		if !strings.Contains(root.Long, fmt.Sprint(code)) {
			t.Errorf("exit code %d is not documented", code)
		}
	}
}
