package main

import (
	"os"
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

// TestInspectContainer looks at results whose linears are stored as components, damaged ones among them.
func TestInspectContainer(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	mustCall(t, "compress", "--model", story, "--recipe", "magnitude-50", "--set", "output.format=shardpress", "--out", out)
	said := mustCall(t, "inspect", out)
	for _, want := range []string{"quantized by", "stored as", "sparse dtype=BF16 pattern=tensor sparsity=0.5: ", " linears in ", " tensors, ", "stored values"} {
		if !strings.Contains(said, want) {
			t.Errorf("no word of %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "missing") {
		t.Errorf("a whole result misses something:\n%s", said)
	}
	mustCall(t, "compress", "--model", story, "--recipe", "svd-20-int8", "--set", "by=rank", "--set", "rank=4", "--out", out+"3")
	if said := mustCall(t, "inspect", out+"3"); !strings.Contains(said, "factors left=(int bits=8 group=4 scale_dtype=BF16 strategy=channel symmetric=true) rank=4 right=(") {
		t.Errorf("schemes within a scheme:\n%s", said)
	}
	if code, _, said := call("compress", "--model", out, "--recipe", "w4a16-rtn", "--out", out+"2"); code == 0 || !strings.Contains(said, "stored as components (format shardpress)") {
		t.Errorf("compressed again: %d, %s", code, said)
	}
	path := filepath.Join(out, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"layers.0.mlp.up_proj": "layers.0.mlp.upp_proj", `"kind":"sparse"`: `"kind":"dense"`} {
		text := strings.ReplaceAll(strings.ReplaceAll(string(b), `": `, `":`), from, to)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said := mustCall(t, "inspect", out)
		if !strings.Contains(said, "1 of these linears have no tensor, such as model.layers.0.mlp.upp_proj") && !strings.Contains(said, "not known to this program") {
			t.Errorf("%s:\n%s", to, said)
		}
	}
}
