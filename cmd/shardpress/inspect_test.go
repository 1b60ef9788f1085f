package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestInspectResult looks at results: packed integers are no weights.
func TestInspectResult(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, tt := range []struct{ format, want, not string }{
		{"pack-quantized", "stored values", "weights"},
		{"int-quantized", "stored values", "weights"},
		{"dense", "weights", "stored values"},
	} {
		out := filepath.Join(root, tt.format)
		mustCall(t, "compress", "--model", story, "--recipe", "w8a16-rtn", "--set", "output.format="+tt.format, "--out", out)
		said := mustCall(t, "inspect", out)
		if !strings.Contains(said, "\n"+tt.want+" ") || strings.Contains(said, tt.not) {
			t.Errorf("%s counts no %s:\n%s", tt.format, tt.want, said)
		}
		for _, name := range []string{"MANIFEST.json", "report.json"} {
			if !strings.Contains(said, "skipped "+name) || strings.Contains(said, "earlier") {
				t.Errorf("%s: no word of %s, or a wrong one:\n%s", tt.format, name, said)
			}
		}
	}
	if said := mustCall(t, "inspect", story); !strings.Contains(said, "\nweights ") {
		t.Errorf("a source has no weights:\n%s", said)
	}
}
