package verify_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/shard"
)

// tensorOf reads a tensor of a result, and says in which file it is and where.
func tensorOf(t *testing.T, dir, name string) (data []byte, file string, at int64) {
	t.Helper()
	ck, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	tensor, ok := ck.Manifest.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	data = make([]byte, tensor.Length)
	if err := ck.ReadAt(t.Context(), tensor.File, data, tensor.Offset); err != nil {
		t.Fatal(err)
	}
	return data, ck.Manifest.Files[tensor.File].Name, tensor.Offset
}

// Linears that engines fuse have one global scale, whose value the largest weight of them decides.
func TestSharedScale(t *testing.T) {
	t.Parallel()
	sized := func(v float32) func(int) float32 { return func(i int) float32 { return v * float32(i*7%13-6) / 6 } }
	const block = "model.layers.0."
	var matrices []matrix
	for i, part := range []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"} {
		matrices = append(matrices, matrix{name: block + part + ".weight", rows: 8 + i, cols: 96, at: sized(float32(1+i*i) / 64)})
	}
	model := source(t, matrices...)
	out := result(t, model, "nvfp4a16")
	if r := verified(t, out, model); len(r.Problems) > 0 || len(r.Linears) != len(matrices) {
		t.Fatalf("%d linears, problems %v", len(r.Linears), r.Problems)
	}
	scale := func(part string) string {
		b, _, _ := tensorOf(t, out, block+part+".weight_global_scale")
		return fmt.Sprintf("%x", b)
	}
	groups := [][]string{{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"self_attn.o_proj"}, {"mlp.gate_proj", "mlp.up_proj"}, {"mlp.down_proj"}}
	seen := map[string]string{}
	for _, g := range groups {
		first := scale(g[0])
		for _, part := range g[1:] {
			if s := scale(part); s != first {
				t.Errorf("%s has the global scale %s, %s has %s", part, s, g[0], first)
			}
		}
		if other, ok := seen[first]; ok {
			t.Errorf("%s and %s have the global scale %s", other, g[0], first)
		}
		seen[first] = g[0]
	}
	// The largest weight of q, k and v is v's 5/64: the reciprocal in BF16 is 12.8125, 2688 times that 34560.
	if first := scale("self_attn.q_proj"); first != "00000747" {
		t.Errorf("q, k and v have the global scale %s, not 34560", first)
	}

	// Twice the global scale for codes of zeros changes no weight, and is found all the same.
	zeros := source(t, append(matrices[1:], matrix{name: block + "self_attn.q_proj.weight", rows: 4, cols: 96, at: func(int) float32 { return 0 }})...)
	out = result(t, zeros, "nvfp4a16")
	name := block + "self_attn.q_proj.weight_global_scale"
	_, file, at := tensorOf(t, out, name)
	path := filepath.Join(out, file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at+3]++
	write(t, out, file, b)
	agree(t, out, file, b)
	if r := verified(t, out, zeros); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "fuse") {
		t.Errorf("a global scale of its own: problems %v", r.Problems)
	}

	dense := result(t, model, "nvfp4a16", "output.format=dense")
	if r := verified(t, dense, model); len(r.Problems) > 0 {
		t.Errorf("dense: problems %v", r.Problems)
	}
	// Dense shares as well: alone, q would have another scale and so other weights.
	alone := result(t, model, "nvfp4a16", "output.format=dense", "ignore="+block+"self_attn.k_proj,"+block+"self_attn.v_proj")
	with, _, _ := tensorOf(t, dense, block+"self_attn.q_proj.weight")
	without, _, _ := tensorOf(t, alone, block+"self_attn.q_proj.weight")
	if bytes.Equal(with, without) {
		t.Error("q has the same weights with and without k and v")
	}
}
