package verify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/shard"
)

// TestSparseResult verifies results whose rows have no common length, and finds damage in them.
func TestSparseResult(t *testing.T) {
	t.Parallel()
	const name = "model.layers.0.mlp.down_proj"
	// More than one panel of the verification.
	model := source(t, matrix{name: name + ".weight", rows: 600, cols: 1000}, matrix{name: "model.layers.0.self_attn.q_proj.weight", rows: 3, cols: 1000})
	for _, set := range [][]string{
		{"sparsity=0.5"}, {"sparsity=0.93"}, {"sparsity=0"}, {"sparsity=0.5", "scope=row"}, {"pattern=n:m"},
	} {
		out := result(t, model, "magnitude-50", append(set, "output.format=shardpress")...)
		if r := verified(t, out, model); len(r.Problems) > 0 || len(r.Linears) != 2 {
			t.Errorf("%v: %+v", set, r)
		}
		ck, err := shard.Open(t.Context(), out, shard.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for part, change := range map[string]byte{"mask": 1, "values": 0x40} {
			x, ok := ck.Manifest.Tensor(name + "." + part)
			if !ok {
				t.Fatalf("%v: no %s", set, part)
			}
			path := filepath.Join(out, ck.Manifest.Files[x.File].Name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			at := x.Offset + x.Length - 1
			b[at] ^= change
			write(t, out, filepath.Base(path), b)
			agree(t, out, filepath.Base(path), b)
			found := false
			for _, p := range verified(t, out, model).Problems {
				found = found || strings.Contains(p, name) && strings.Contains(p, "linear ")
			}
			if !found {
				t.Errorf("%v: damaged %s go unnoticed", set, part)
			}
			b[at] ^= change
			write(t, out, filepath.Base(path), b)
			agree(t, out, filepath.Base(path), b)
		}
		ck.Close()
	}
}

// TestPrunedThenEncoded verifies results of two methods, in a format of each family that the second has.
func TestPrunedThenEncoded(t *testing.T) {
	t.Parallel()
	model := source(t,
		matrix{name: "model.layers.0.self_attn.q_proj.weight", rows: 64, cols: 256},
		matrix{name: "model.layers.0.self_attn.k_proj.weight", rows: 32, cols: 256},
		matrix{name: "model.layers.0.self_attn.v_proj.weight", rows: 32, cols: 256, at: func(i int) float32 { return float32(i%7) * 8 }})
	for _, set := range [][]string{
		{},
		{"symmetric=false"},
		{"strategy=tensor"},
		{"output.format=dense"},
		{"steps.0.then.method=nvfp4"},
		{"steps.0.then.method=nvfp4", "output.format=dense"},
		{"steps.0.then.method=mxfp4"},
		{"steps.0.then.method=nf4"},
		{"steps.0.then.method=fp8"},
		{"steps.0.then.method=magnitude", "output.format=shardpress"},
	} {
		for _, first := range []string{"n:m", "unstructured"} {
			out := result(t, model, "magnitude-2of4-w4a16", append(set, "steps.0.pattern="+first)...)
			r := verified(t, out, model)
			if len(r.Problems) > 0 || len(r.Linears) != 3 {
				t.Errorf("%v: %+v", set, r)
			}
		}
	}
}
