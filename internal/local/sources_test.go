package local_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/internal/verify"
	"github.com/shardpress/shardpress/shard"
)

// array is a tensor of a source made for a test.
type array struct {
	name  string
	dtype shard.DType
	shape []int64
}

// writeSource makes a checkpoint of random weights.
func writeSource(t *testing.T, config string, arrays []array) string {
	t.Helper()
	specs := make([]shard.TensorSpec, len(arrays))
	for i, a := range arrays {
		specs[i] = shard.TensorSpec{Name: a.name, DType: a.dtype, Shape: a.shape}
	}
	shard.SortSpecs(specs)
	layout, err := shard.NewLayout(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := shard.NewWriter(&file, layout)
	if err != nil {
		t.Fatal(err)
	}
	src := rand.New(rand.NewPCG(1, 2))
	for _, s := range specs {
		n := 1
		for _, d := range s.Shape {
			n *= int(d)
		}
		d, err := tensor.ParseDType(string(s.DType))
		if err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, n*d.Size())
		if d == tensor.F8E4M3 {
			for i := range raw {
				raw[i] = byte(src.Uint32()) & 0xf7 // finite
			}
		} else {
			values := make([]float32, n)
			for i := range values {
				values[i] = float32(src.NormFloat64() * 0.02)
			}
			tensor.FromFloat32(raw, values, d)
		}
		if err := w.Begin(s.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"model.safetensors": file.Bytes(), "config.json": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// compressTo runs a recipe over a source.
func compressTo(t *testing.T, model, out, preset string, set ...string) error {
	t.Helper()
	r, err := recipe.Preset(preset)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range set {
		k, v, _ := strings.Cut(s, "=")
		if err := r.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	_, err = local.Run(t.Context(), &local.Job{
		Model: model, Recipe: r, Out: out, Workers: 2, Memory: 1 << 30, Salt: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return err
}

func llama(block string) []array {
	p := "model.layers." + block + "."
	return []array{
		{p + "input_layernorm.weight", shard.BF16, []int64{64}},
		{p + "self_attn.q_proj.weight", shard.BF16, []int64{64, 64}},
		{p + "self_attn.k_proj.weight", shard.BF16, []int64{32, 64}},
		{p + "self_attn.v_proj.weight", shard.BF16, []int64{32, 64}},
		{p + "self_attn.o_proj.weight", shard.BF16, []int64{64, 64}},
		{p + "post_attention_layernorm.weight", shard.BF16, []int64{64}},
	}
}

func sourcesUnderTest() []struct {
	name, config string
	arrays       []array
	pack         string // what the refusal of a packed result says, "" if there is none
	tensors      []string
} {
	mlp := func(dtype shard.DType, scales bool) []array {
		var list []array
		for _, x := range []struct {
			name       string
			rows, cols int64
		}{{"gate_proj", 128, 64}, {"up_proj", 128, 64}, {"down_proj", 64, 128}} {
			list = append(list, array{"model.layers.0.mlp." + x.name + ".weight", dtype, []int64{x.rows, x.cols}})
			if scales {
				list = append(list, array{"model.layers.0.mlp." + x.name + ".weight_scale_inv", shard.F32, []int64{(x.rows + 31) / 32, (x.cols + 31) / 32}})
			}
		}
		return list
	}
	join := func(parts ...[]array) []array {
		var all []array
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	embedding := []array{{"model.embed_tokens.weight", shard.BF16, []int64{50, 64}}, {"model.norm.weight", shard.BF16, []int64{64}}}
	head := []array{{"lm_head.weight", shard.BF16, []int64{50, 64}}}
	return []struct {
		name, config string
		arrays       []array
		pack         string
		tensors      []string
	}{
		{
			"llama with a head", `{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64,"num_hidden_layers":1,"torch_dtype":"bfloat16"}`,
			join(embedding, head, llama("0"), mlp(shard.BF16, false)), "", []string{"model.layers.0.mlp.down_proj.weight_packed", "lm_head.weight"},
		},
		{
			"only the head is stored", `{"model_type":"llama","hidden_size":64,"num_hidden_layers":1,"tie_word_embeddings":true,"torch_dtype":"bfloat16"}`,
			join(head, llama("0"), mlp(shard.BF16, false)), "", []string{"lm_head.weight"},
		},
		{
			"FP8 blocks", `{"model_type":"deepseek_v3","hidden_size":64,"num_hidden_layers":1,"torch_dtype":"bfloat16","quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[32,32],"activation_scheme":"dynamic"}}`,
			join(embedding, head, llama("0"), mlp(shard.F8E4M3, true)), "", []string{"model.layers.0.mlp.up_proj.weight_scale"},
		},
		{
			"fused experts of square matrices", `{"model_type":"qwen3_moe","hidden_size":64,"num_hidden_layers":1,"num_experts":4,"moe_intermediate_size":32,"torch_dtype":"bfloat16"}`,
			join(embedding, head, llama("0"), []array{
				{"model.layers.0.mlp.gate.weight", shard.BF16, []int64{4, 64}},
				{"model.layers.0.mlp.experts.gate_up_proj", shard.BF16, []int64{4, 64, 64}},
				{"model.layers.0.mlp.experts.down_proj", shard.BF16, []int64{4, 64, 32}},
			}), "", []string{"model.layers.0.mlp.experts.0.gate_proj.weight_packed"}, // both orders of the axes fit: the family's holds
		},
		{
			"fused experts of one order", `{"model_type":"qwen3_moe","hidden_size":64,"num_hidden_layers":1,"num_experts":4,"moe_intermediate_size":96,"torch_dtype":"bfloat16"}`,
			join(embedding, head, llama("0"), []array{
				{"model.layers.0.mlp.gate.weight", shard.BF16, []int64{4, 64}},
				{"model.layers.0.mlp.experts.gate_up_proj", shard.BF16, []int64{4, 192, 64}},
				{"model.layers.0.mlp.experts.down_proj", shard.BF16, []int64{4, 64, 96}},
			}), "", []string{"model.layers.0.mlp.experts.3.up_proj.weight_packed", "model.layers.0.mlp.gate.weight"},
		},
		{
			"GPT-2", `{"model_type":"gpt2","n_embd":64,"n_layer":1,"torch_dtype":"float32"}`,
			[]array{
				{"wte.weight", shard.F32, []int64{50, 64}}, {"wpe.weight", shard.F32, []int64{16, 64}},
				{"h.0.ln_1.weight", shard.F32, []int64{64}}, {"h.0.ln_1.bias", shard.F32, []int64{64}},
				{"h.0.attn.c_attn.weight", shard.F32, []int64{64, 192}}, {"h.0.attn.c_attn.bias", shard.F32, []int64{192}},
				{"h.0.attn.c_proj.weight", shard.F32, []int64{64, 64}},
				{"h.0.mlp.c_fc.weight", shard.F32, []int64{64, 256}}, {"h.0.mlp.c_proj.weight", shard.F32, []int64{256, 64}},
			}, "transposed", nil,
		},
		{
			"Phi-3", `{"model_type":"phi3","hidden_size":64,"intermediate_size":128,"num_attention_heads":4,"num_key_value_heads":4,"num_hidden_layers":1,"torch_dtype":"float16"}`,
			join([]array{
				{"model.embed_tokens.weight", shard.F16, []int64{50, 64}},
				{"model.layers.0.self_attn.qkv_proj.weight", shard.F16, []int64{192, 64}},
				{"model.layers.0.self_attn.o_proj.weight", shard.F16, []int64{64, 64}},
				{"model.layers.0.mlp.gate_up_proj.weight", shard.F16, []int64{256, 64}},
				{"model.layers.0.mlp.down_proj.weight", shard.F16, []int64{64, 128}},
			}), "", []string{"model.layers.0.self_attn.qkv_proj.weight_packed"},
		},
		{
			"a decoder nobody knows", `{"model_type":"wonder","torch_dtype":"bfloat16"}`,
			[]array{
				{"trunk.stages.0.mix.weight", shard.BF16, []int64{64, 64}}, {"trunk.stages.1.mix.weight", shard.BF16, []int64{64, 64}},
				{"trunk.stages.0.scale", shard.BF16, []int64{64}}, {"trunk.stages.1.scale", shard.BF16, []int64{64}},
				{"trunk.table.weight", shard.BF16, []int64{11, 64}},
			}, "", []string{"trunk.stages.1.mix.weight_packed"},
		},
	}
}

// TestSources compresses every kind of source into every format and holds the
// result against the source.
func TestSources(t *testing.T) {
	t.Parallel()
	for _, c := range sourcesUnderTest() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !json.Valid([]byte(c.config)) {
				t.Fatal("config of the test is no JSON")
			}
			model := writeSource(t, c.config, c.arrays)
			dir := t.TempDir()
			for _, format := range []string{"pack-quantized", "int-quantized", "dense"} {
				for _, symmetric := range []string{"true", "false"} {
					out := filepath.Join(dir, format+symmetric)
					err := compressTo(t, model, out, "w4a16-rtn", "group=32", "symmetric="+symmetric, "output.format="+format)
					if c.pack != "" && format != "dense" {
						if err == nil || !strings.Contains(err.Error(), c.pack) {
							t.Errorf("%s: error %v, want one about %q", format, err, c.pack)
						}
						continue
					}
					if err != nil {
						t.Errorf("%s: %v", format, err)
						continue
					}
					checkResult(t, model, out)
					if format == "pack-quantized" {
						checkTensors(t, out, c.tensors)
					}
				}
			}
		})
	}
}

func checkResult(t *testing.T, model, out string) {
	t.Helper()
	r, err := verify.Run(t.Context(), out, model, nil)
	if err != nil {
		t.Error(err)
		return
	}
	for _, p := range r.Problems {
		t.Errorf("%s: %s", filepath.Base(out), p)
	}
	if len(r.Linears) == 0 {
		t.Errorf("%s: no linear was compared", filepath.Base(out))
	}
	for _, l := range r.Linears {
		if l.RelativeError == nil || *l.RelativeError > 0.2 || *l.RelativeError < 0.02 {
			t.Errorf("%s: linear %s: relative error %v is not that of 4 bits", filepath.Base(out), l.Name, l.Reported)
		}
	}
}

func checkTensors(t *testing.T, out string, names []string) {
	t.Helper()
	ck, err := shard.Open(t.Context(), out, shard.OpenOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer ck.Close()
	for _, name := range names {
		if _, ok := ck.Manifest.Tensor(name); !ok {
			t.Errorf("result has no tensor %s", name)
		}
	}
}
