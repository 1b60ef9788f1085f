package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/shard"
)

// tiny is a config of the family with small numbers; edit changes it.
func tiny(t *testing.T, edit map[string]any) string {
	t.Helper()
	fields := map[string]any{
		"model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 40,
		"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": false, "rms_norm_eps": json.Number("1e-05"),
	}
	for key, value := range edit {
		fields[key] = value
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "config.json", text)
}

func write(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readBack checks the files against the index and against each other, as a dumb reader does, and returns shapes by name.
func readBack(t *testing.T, dir string) map[string][]int64 {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	shapes, places, total := map[string][]int64{}, map[string]string{}, int64(0)
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := binary.LittleEndian.Uint64(text)
		if n%8 != 0 {
			t.Errorf("%s: data starts at %d, not on a multiple of eight", path, 8+n)
		}
		var header map[string]struct {
			DType   string   `json:"dtype"`
			Shape   []int64  `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(text[8:8+n], &header); err != nil {
			t.Fatal(err)
		}
		delete(header, "__metadata__")
		var covered int64
		for name, entry := range header {
			size := map[string]int64{"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}[entry.DType]
			for _, d := range entry.Shape {
				size *= d
			}
			if entry.Offsets[1]-entry.Offsets[0] != size {
				t.Errorf("%s: %d bytes, want %d", name, entry.Offsets[1]-entry.Offsets[0], size)
			}
			covered += size
			if shapes[name] != nil {
				t.Errorf("%s stands in two files", name)
			}
			shapes[name], places[name] = entry.Shape, filepath.Base(path)
		}
		if rest := int64(len(text)) - 8 - int64(n); covered != rest {
			t.Errorf("%s: tensors cover %d of %d bytes", path, covered, rest)
		}
		total += covered
	}
	if len(files) > 1 {
		text, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
		if err != nil {
			t.Fatal(err)
		}
		var index struct {
			Metadata struct {
				TotalSize int64 `json:"total_size"`
			} `json:"metadata"`
			WeightMap map[string]string `json:"weight_map"`
		}
		if err := json.Unmarshal(text, &index); err != nil {
			t.Fatal(err)
		}
		if index.Metadata.TotalSize != total || len(index.WeightMap) != len(places) {
			t.Errorf("index has %d bytes and %d tensors, want %d and %d", index.Metadata.TotalSize, len(index.WeightMap), total, len(places))
		}
		for name, place := range places {
			if index.WeightMap[name] != place {
				t.Errorf("index puts %s into %q, it is in %q", name, index.WeightMap[name], place)
			}
		}
	}
	return shapes
}

// TestFamilies writes one small checkpoint of each family and looks at what tells them apart.
func TestFamilies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		edit   map[string]any
		args   []string
		count  int
		shapes map[string][]int64 // nil: must be absent
	}{
		"llama": {
			count: 3*9 + 3,
			shapes: map[string][]int64{"model.layers.2.self_attn.k_proj.weight": {32, 64}, "model.layers.0.mlp.down_proj.weight": {64, 96}, "lm_head.weight": {40, 64},
				"model.layers.0.self_attn.q_proj.bias": nil},
		},
		"llama, tied, biased, one block": {
			edit: map[string]any{"tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true}, args: []string{"--layers", "1"},
			count:  9 + 7 + 2,
			shapes: map[string][]int64{"model.layers.0.self_attn.o_proj.bias": {64}, "model.layers.0.mlp.gate_proj.bias": {96}, "lm_head.weight": nil, "model.layers.1.input_layernorm.weight": nil},
		},
		"more blocks than the config": {args: []string{"--layers", "5"}, count: 5*9 + 3},
		"mistral with head_dim": {
			edit: map[string]any{"model_type": "mistral", "head_dim": 24}, count: 3*9 + 3,
			shapes: map[string][]int64{"model.layers.0.self_attn.q_proj.weight": {96, 64}, "model.layers.0.self_attn.o_proj.weight": {64, 96}},
		},
		"qwen2": {
			edit: map[string]any{"model_type": "qwen2"}, count: 3*12 + 3,
			shapes: map[string][]int64{"model.layers.0.self_attn.k_proj.bias": {32}, "model.layers.0.self_attn.o_proj.bias": nil},
		},
		"qwen3 in float32": {
			edit: map[string]any{"model_type": "qwen3", "torch_dtype": "float32"}, count: 3*11 + 3,
			shapes: map[string][]int64{"model.layers.0.self_attn.k_norm.weight": {16}},
		},
		"mixtral": {
			edit: map[string]any{"model_type": "mixtral", "num_local_experts": 4}, count: 3*(7+3*4) + 3,
			shapes: map[string][]int64{"model.layers.1.block_sparse_moe.experts.3.w2.weight": {64, 96}, "model.layers.1.block_sparse_moe.gate.weight": {4, 64}},
		},
		"qwen3_moe with a dense block": {
			edit:  map[string]any{"model_type": "qwen3_moe", "num_experts": 5, "moe_intermediate_size": 32, "mlp_only_layers": []int{1}},
			count: 2*(9+3*5) + 11 + 3,
			shapes: map[string][]int64{"model.layers.1.mlp.up_proj.weight": {96, 64}, "model.layers.2.mlp.experts.4.up_proj.weight": {32, 64},
				"model.layers.0.mlp.gate.weight": {5, 64}},
		},
		"many files": {args: []string{"--file-bytes", "20000"}, count: 3*9 + 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "made", "here")
			args := append([]string{"--config", tiny(t, test.edit), "--out", out}, test.args...)
			var said bytes.Buffer
			if err := run(t.Context(), args, &said); err != nil {
				t.Fatal(err)
			}
			shapes := readBack(t, out)
			if len(shapes) != test.count {
				t.Errorf("%d tensors, want %d", len(shapes), test.count)
			}
			for tensor, want := range test.shapes {
				got := shapes[tensor]
				if len(got) != len(want) || len(want) > 0 && (got[0] != want[0] || got[len(got)-1] != want[len(want)-1]) {
					t.Errorf("%s has shape %v, want %v", tensor, got, want)
				}
			}
			opened, err := shard.Open(t.Context(), out, shard.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(opened.Manifest.Tensors); n != test.count {
				t.Errorf("the reader finds %d tensors, want %d", n, test.count)
			}
			text, err := os.ReadFile(filepath.Join(out, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), `"rms_norm_eps": 1e-05`) {
				t.Errorf("a number of the config has changed its form:\n%s", text)
			}
		})
	}
}

// TestSameBytes holds that the same arguments give the same files, and that dividing them differently gives the same tensors.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	digest := func() [32]byte {
		out := filepath.Join(t.TempDir(), "out")
		if err := run(t.Context(), []string{"--config", tiny(t, nil), "--out", out}, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(out, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(text)
	}
	first, second := digest(), digest()
	if first != second {
		t.Error("two runs differ")
	}
}

// TestShapesFile writes what a list says, with other element types, in gzip and plain.
func TestShapesFile(t *testing.T) {
	t.Parallel()
	list := []byte(`{"total_size": 0, "tensors": [["model.embed_tokens.weight","BF16",[8,16]],["model.layers.0.mlp.up_proj.weight","F8_E4M3",[16,16]],
		["model.layers.0.mlp.up_proj.weight_scale_inv","F32",[1,1]],["model.layers.1.mlp.up_proj.weight","F8_E4M3",[16,16]],["scalar","F32",[]]]}`)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(list); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"shapes.json": list, "shapes.json.gz": packed.Bytes()} {
		out := filepath.Join(t.TempDir(), "out")
		config := tiny(t, map[string]any{"model_type": "unheard_of", "num_nextn_predict_layers": 1, "layer_types": []string{"a", "b", "c"}})
		if err := run(t.Context(), []string{"--config", config, "--shapes", write(t, name, text), "--layers", "1", "--out", out}, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
		shapes := readBack(t, out)
		if len(shapes) != 4 || shapes["model.layers.1.mlp.up_proj.weight"] != nil {
			t.Errorf("%s: tensors %v", name, shapes)
		}
		adjusted, err := os.ReadFile(filepath.Join(out, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		var fields struct {
			Layers     int      `json:"num_hidden_layers"`
			Kinds      []string `json:"layer_types"`
			Prediction int      `json:"num_nextn_predict_layers"`
		}
		if err := json.Unmarshal(adjusted, &fields); err != nil {
			t.Fatal(err)
		}
		if fields.Layers != 1 || len(fields.Kinds) != 1 || fields.Prediction != 0 {
			t.Errorf("%s: config %s", name, adjusted)
		}
	}
}

func TestExperts(t *testing.T) {
	t.Parallel()
	list := []byte(`{"tensors": [["model.layers.0.mlp.gate.weight","BF16",[4,16]],["model.layers.0.mlp.gate.e_score_correction_bias","F32",[4]],
		["model.layers.0.mlp.experts.0.up_proj.weight","BF16",[8,16]],["model.layers.0.mlp.experts.1.up_proj.weight","BF16",[8,16]],
		["model.layers.0.mlp.experts.12.up_proj.weight","BF16",[8,16]],["model.layers.0.mlp.shared_experts.up_proj.weight","BF16",[8,16]],["lm_head.weight","BF16",[8,16]]]}`)
	out := filepath.Join(t.TempDir(), "out")
	config := tiny(t, map[string]any{"model_type": "unheard_of", "n_routed_experts": 4})
	if err := run(t.Context(), []string{"--config", config, "--shapes", write(t, "shapes.json", list), "--experts", "2", "--vocab", "3", "--out", out}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	shapes := readBack(t, out)
	if len(shapes) != 6 || shapes["lm_head.weight"][0] != 3 || shapes["model.layers.0.mlp.experts.12.up_proj.weight"] != nil || shapes["model.layers.0.mlp.gate.weight"][0] != 2 ||
		shapes["model.layers.0.mlp.gate.e_score_correction_bias"][0] != 2 || shapes["model.layers.0.mlp.shared_experts.up_proj.weight"][0] != 8 {
		t.Errorf("tensors %v", shapes)
	}
	adjusted, err := os.ReadFile(filepath.Join(out, "config.json"))
	if err != nil || !strings.Contains(string(adjusted), `"n_routed_experts": 2`) {
		t.Errorf("config %s, %v", adjusted, err)
	}
}

// TestRefusals holds that bad arguments are refused in a sentence that names them, with nothing written.
func TestRefusals(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "model.safetensors"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args []string
		want string
	}{
		"no config":        {[]string{"--out", "x"}, "--config and --out are both needed"},
		"absent config":    {[]string{"--config", "absent.json"}, "read config"},
		"full directory":   {[]string{"--config", tiny(t, nil), "--out", full}, "it holds model.safetensors and 0 more"},
		"unknown family":   {[]string{"--config", tiny(t, map[string]any{"model_type": "gpt9"})}, `model_type "gpt9" is none of`},
		"huge width":       {[]string{"--config", tiny(t, map[string]any{"hidden_size": 1 << 40})}, "hidden_size 1099511627776 is not between"},
		"no heads":         {[]string{"--config", tiny(t, map[string]any{"num_attention_heads": 0})}, "num_attention_heads 0 is not between"},
		"too many blocks":  {[]string{"--config", tiny(t, nil), "--layers", "100000"}, "num_hidden_layers 100000 is not between"},
		"unknown dtype":    {[]string{"--config", tiny(t, map[string]any{"torch_dtype": "int3"})}, `torch_dtype "int3" is none of`},
		"no experts":       {[]string{"--config", tiny(t, map[string]any{"model_type": "mixtral"})}, "num_local_experts 0"},
		"tensor twice":     {[]string{"--config", tiny(t, nil), "--shapes", write(t, "s", []byte(`{"tensors":[["a","F32",[1]],["a","F32",[1]]]}`))}, `name "a" is empty or stands there twice`},
		"huge shape":       {[]string{"--config", tiny(t, nil), "--shapes", write(t, "s", []byte(`{"tensors":[["a","F32",[4611686018427387904,8]]]}`))}, "is negative or too large"},
		"integer weights":  {[]string{"--config", tiny(t, nil), "--shapes", write(t, "s", []byte(`{"tensors":[["a","I32",[1]]]}`))}, "no weights can be made up in I32"},
		"no tensors":       {[]string{"--config", tiny(t, nil), "--shapes", write(t, "s", []byte(`{}`))}, "it lists no tensors"},
		"stray argument":   {[]string{"--config", tiny(t, nil), "stray"}, `"stray" is not a flag`},
		"file bytes of -1": {[]string{"--config", tiny(t, nil), "--file-bytes", "-1"}, "--file-bytes -1 is not positive"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			err := run(t.Context(), append([]string{"--out", out}, test.args...), &bytes.Buffer{})
			if name == "no config" {
				err = run(t.Context(), []string{"--out", out}, &bytes.Buffer{})
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one that says %q", err, test.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an output directory was made")
			}
		})
	}
}
