package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

// TestContainerDocument holds docs/container.md to the schemes: a section for each kind, whose example reads and has the components of the
// section's table.
func TestContainerDocument(t *testing.T) {
	t.Parallel()
	const rows, cols = 64, 256
	_, text, ok := strings.Cut(document(t, "container.md"), "\n## Schemes\n")
	if !ok {
		t.Fatal("docs/container.md has no schemes")
	}
	example := regexp.MustCompile("(?s)^`([^`]+)`\n\n```json\n(.*?)\n```\n\n.+?\n\n(\\| component .*)$")
	var kinds []string
	for section := range strings.SplitSeq(text, "\n### ") {
		if section = strings.TrimSpace(section); section == "" {
			continue
		}
		m := example.FindStringSubmatch(section)
		if m == nil {
			t.Errorf("section %.40q is not a name, an example, text and a table", section)
			continue
		}
		kind := m[1]
		kinds = append(kinds, kind)
		s, err := compress.ParseScheme(json.RawMessage(m[2]))
		if err != nil {
			t.Errorf("example of %s: %v", kind, err)
			continue
		}
		if s.Kind() != kind {
			t.Errorf("the example of %s is of kind %s", kind, s.Kind())
		}
		if err := s.Validate(rows, cols); err != nil {
			t.Errorf("example of %s: %v", kind, err)
			continue
		}
		var want []string
		for _, c := range s.Components(rows, cols) {
			shape := strings.ReplaceAll(fmt.Sprint(c.Shape), " ", ", ")
			switch {
			case c.Whole:
				shape += ", whole"
			case c.Ragged:
				shape += ", ragged"
			}
			want = append(want, fmt.Sprintf("| `%s` | %s | %s |", c.Name, c.DType, shape))
		}
		lines := strings.Split(strings.TrimSpace(m[3]), "\n")
		for i, line := range want {
			if i+2 >= len(lines) || !strings.HasPrefix(lines[i+2], line) {
				t.Errorf("line %d of the table of %s is to begin with %s", i+1, kind, line)
			}
		}
		if len(lines) != len(want)+2 {
			t.Errorf("the table of %s has %d lines, not %d", kind, len(lines)-2, len(want))
		}
	}
	if !slices.Equal(kinds, compress.SchemeKinds()) {
		t.Errorf("docs/container.md has the schemes %v, and there are %v", kinds, compress.SchemeKinds())
	}
}
