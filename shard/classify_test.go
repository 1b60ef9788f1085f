package shard

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// classified makes a manifest from names, types and shapes alone.
func classified(t testing.TB, config string, tensors ...testTensor) (*Manifest, error) {
	t.Helper()
	c, err := parseConfig(ConfigName, []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Version: ManifestVersion, Files: []File{}, Tensors: []Tensor{}, Extras: []Extra{}, Skipped: []Skipped{}, byName: map[string]int{}}
	zeros := strings.Repeat("0", 64)
	offset := int64(8)
	for i, x := range tensors {
		n, ok := byteLength(x.dtype, x.shape)
		if !ok {
			t.Fatalf("tensor %q", x.name)
		}
		m.Tensors = append(m.Tensors, Tensor{Name: x.name, DType: x.dtype, Shape: x.shape, Offset: offset, Length: n})
		m.byName[x.name] = i
		offset += n
	}
	m.Files = append(m.Files, File{Name: "x", Size: offset, HeaderDigest: zeros, Identity: Identity{IdentityLocal, zeros}})
	if err := m.classify(c); err != nil {
		return nil, err
	}
	return m, m.finish()
}

func TestClassify(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, config string
		tensors      []testTensor
		want         []string // "tensor role block", for each place; a "=" line for each linear in a block: "= name rows×cols row"
		model        Model
	}{
		{
			name: "Llama", config: `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":32,"num_hidden_layers":1,"torch_dtype":"float16"}`,
			tensors: append([]testTensor{bf16("model.layers.0.self_attn.rotary_emb.inv_freq", 4), bf16("model.layers.0.self_attn.q_proj.bias", 32)}, llama(1)[:4]...),
			want: []string{"model.layers.0.self_attn.rotary_emb.inv_freq other 0", "model.layers.0.self_attn.q_proj.bias bias 0",
				"model.embed_tokens.weight embedding -1", "model.norm.weight norm -1", "lm_head.weight head -1", "model.layers.0.input_layernorm.weight norm 0"},
			model: Model{Architecture: "LlamaForCausalLM", ModelType: "llama", DType: F16, Blocks: 1, BlockPrefix: "model.layers", HiddenSize: 32,
				Embedding: "model.embed_tokens.weight", Head: "lm_head"},
		},
		{
			name: "unknown decoder without config.json",
			tensors: []testTensor{bf16("tok.embed.weight", 40, 8), bf16("core.unit.0.mix.weight", 8, 8), bf16("core.unit.0.scale_norm.weight", 8),
				bf16("core.unit.1.mix.weight", 8, 8), bf16("core.unit.1.conv1d.weight", 8, 1, 4), bf16("core.unit.1.A_log", 8, 4)},
			want: []string{"tok.embed.weight embedding -1", "core.unit.0.mix.weight linear 0", "= core.unit.0.mix 8×8 0", "core.unit.0.scale_norm.weight norm 0",
				"core.unit.1.mix.weight linear 1", "= core.unit.1.mix 8×8 0", "core.unit.1.conv1d.weight other 1", "core.unit.1.A_log other 1"},
			model: Model{DType: BF16, Blocks: 2, BlockPrefix: "core.unit", Tied: true, Embedding: "tok.embed.weight", Head: "lm_head"},
		},
		{
			name: "tied, only the head stored", config: `{"tie_word_embeddings":true}`,
			tensors: []testTensor{bf16("lm_head.weight", 40, 8), bf16("model.layers.0.up_proj.weight", 8, 8)},
			want:    []string{"lm_head.weight head -1", "model.layers.0.up_proj.weight linear 0", "= model.layers.0.up_proj 8×8 0"},
			model:   Model{DType: BF16, Blocks: 1, BlockPrefix: "model.layers", Tied: true, Head: "lm_head"},
		},
		{
			name: "Mixtral", config: `{"num_hidden_layers":1,"tie_word_embeddings":false}`,
			tensors: []testTensor{bf16("model.layers.0.block_sparse_moe.gate.weight", 2, 8), bf16("model.layers.0.block_sparse_moe.experts.0.w1.weight", 16, 8),
				bf16("model.layers.0.block_sparse_moe.experts.1.w2.weight", 8, 16)},
			want: []string{"model.layers.0.block_sparse_moe.gate.weight router 0", "model.layers.0.block_sparse_moe.experts.0.w1.weight linear 0",
				"= model.layers.0.block_sparse_moe.experts.0.w1 16×8 0", "model.layers.0.block_sparse_moe.experts.1.w2.weight linear 0",
				"= model.layers.0.block_sparse_moe.experts.1.w2 8×16 0"},
			model: Model{DType: BF16, Blocks: 1, BlockPrefix: "model.layers", Head: "lm_head"},
		},
		{
			name:    "a gate that is no router",
			tensors: []testTensor{bf16("h.0.mlp.gate.weight", 16, 8), bf16("h.1.mlp.gate.weight", 4, 8), bf16("h.1.mlp.shared_expert_gate.weight", 1, 8)},
			want: []string{"h.0.mlp.gate.weight linear 0", "= h.0.mlp.gate 16×8 0", "h.1.mlp.gate.weight router 1",
				"h.1.mlp.shared_expert_gate.weight router 1"},
			model: Model{DType: BF16, Blocks: 2, BlockPrefix: "h", Head: "lm_head"},
		},
		{
			name: "GPT-2 by model_type", config: `{"model_type":"gpt2","n_embd":8,"n_layer":1}`,
			tensors: []testTensor{bf16("wte.weight", 40, 8), bf16("wpe.weight", 16, 8), bf16("h.0.ln_1.weight", 8), bf16("h.0.attn.bias", 1, 1, 4, 4),
				bf16("h.0.attn.c_attn.weight", 8, 24), bf16("h.0.mlp.c_fc.weight", 8, 32), bf16("ln_f.weight", 8)},
			want: []string{"wte.weight embedding -1", "wpe.weight embedding -1", "h.0.ln_1.weight norm 0", "h.0.attn.bias bias 0", "h.0.attn.c_attn.weight linear 0",
				"= h.0.attn.c_attn 24×8 0 transposed", "h.0.mlp.c_fc.weight linear 0", "= h.0.mlp.c_fc 32×8 0 transposed", "ln_f.weight norm -1"},
			model: Model{ModelType: "gpt2", DType: BF16, Blocks: 1, BlockPrefix: "h", HiddenSize: 8, Tied: true, Embedding: "wte.weight", Head: "lm_head"},
		},
		{
			name:    "GPT-2 by shape",
			tensors: []testTensor{bf16("h.0.attn.c_attn.weight", 8, 24)},
			want:    []string{"h.0.attn.c_attn.weight linear 0", "= h.0.attn.c_attn 24×8 0 transposed"},
			model:   Model{DType: BF16, Blocks: 1, BlockPrefix: "h", Head: "lm_head"},
		},
		{
			name: "the same names, not transposed", config: `{"model_type":"gpt_bigcode"}`,
			tensors: []testTensor{bf16("h.0.attn.c_attn.weight", 24, 8)},
			want:    []string{"h.0.attn.c_attn.weight linear 0", "= h.0.attn.c_attn 24×8 0"},
			model:   Model{ModelType: "gpt_bigcode", DType: BF16, Blocks: 1, BlockPrefix: "h", Head: "lm_head"},
		},
		{
			name: "Phi-3 stays fused", config: `{"model_type":"phi3"}`,
			tensors: []testTensor{bf16("model.layers.0.self_attn.qkv_proj.weight", 24, 8), bf16("model.layers.0.mlp.gate_up_proj.weight", 32, 8)},
			want: []string{"model.layers.0.self_attn.qkv_proj.weight linear 0", "= model.layers.0.self_attn.qkv_proj 24×8 0",
				"model.layers.0.mlp.gate_up_proj.weight linear 0", "= model.layers.0.mlp.gate_up_proj 32×8 0"},
			model: Model{ModelType: "phi3", DType: BF16, Blocks: 1, BlockPrefix: "model.layers", Head: "lm_head"},
		},
		{
			name: "fused experts", config: `{"hidden_size":8}`,
			tensors: []testTensor{bf16("m.layers.0.mlp.experts.gate_up_proj", 2, 12, 8), bf16("m.layers.0.mlp.experts.down_proj", 2, 8, 6),
				bf16("m.layers.0.mlp.experts.down_proj_bias", 2, 8), bf16("m.layers.0.mlp.gate.weight", 2, 8)},
			want: []string{"m.layers.0.mlp.experts.gate_up_proj linear 0", "= m.layers.0.mlp.experts.0.gate_proj 6×8 0", "= m.layers.0.mlp.experts.0.up_proj 6×8 6",
				"= m.layers.0.mlp.experts.1.gate_proj 6×8 0", "= m.layers.0.mlp.experts.1.up_proj 6×8 6", "m.layers.0.mlp.experts.down_proj linear 0",
				"= m.layers.0.mlp.experts.0.down_proj 8×6 0", "= m.layers.0.mlp.experts.1.down_proj 8×6 0", "m.layers.0.mlp.experts.down_proj_bias bias 0",
				"m.layers.0.mlp.gate.weight router 0"},
			model: Model{DType: BF16, Blocks: 1, BlockPrefix: "m.layers", HiddenSize: 8, Head: "lm_head"},
		},
		{
			name: "fused experts transposed", config: `{"model_type":"llama4","text_config":{"hidden_size":8,"model_type":"llama4_text"}}`,
			tensors: []testTensor{bf16("m.layers.0.feed_forward.experts.gate_up_proj", 1, 8, 12), bf16("m.layers.0.feed_forward.experts.down_proj", 1, 6, 8)},
			want: []string{"m.layers.0.feed_forward.experts.gate_up_proj linear 0", "= m.layers.0.feed_forward.experts.0.gate_proj 6×8 0 transposed",
				"= m.layers.0.feed_forward.experts.0.up_proj 6×8 6 transposed", "m.layers.0.feed_forward.experts.down_proj linear 0",
				"= m.layers.0.feed_forward.experts.0.down_proj 8×6 0 transposed"},
			model: Model{ModelType: "llama4", DType: BF16, Blocks: 1, BlockPrefix: "m.layers", HiddenSize: 8, Head: "lm_head"},
		},
		{
			// Width of the model and of an expert are the same, as in gpt-oss: down_proj is square and only its partner tells.
			name: "interleaved experts of gpt-oss", config: `{"model_type":"gpt_oss","hidden_size":8}`,
			tensors: []testTensor{bf16("m.layers.0.mlp.experts.down_proj", 1, 8, 8), bf16("m.layers.0.mlp.experts.gate_up_proj", 1, 8, 16),
				bf16("m.layers.0.mlp.router.weight", 1, 8)},
			want: []string{"m.layers.0.mlp.experts.down_proj linear 0", "= m.layers.0.mlp.experts.0.down_proj 8×8 0 transposed",
				"m.layers.0.mlp.experts.gate_up_proj linear 0", "= m.layers.0.mlp.experts.0.gate_proj 8×8 0/2 transposed",
				"= m.layers.0.mlp.experts.0.up_proj 8×8 1/2 transposed", "m.layers.0.mlp.router.weight router 0"},
			model: Model{ModelType: "gpt_oss", DType: BF16, Blocks: 1, BlockPrefix: "m.layers", HiddenSize: 8, Head: "lm_head"},
		},
		{
			name: "prediction layer and tower", config: `{"num_hidden_layers":1,"tie_word_embeddings":false}`,
			tensors: []testTensor{bf16("model.layers.0.up_proj.weight", 8, 8), bf16("model.layers.1.eh_proj.weight", 8, 16), bf16("model.layers.1.embed_tokens.weight", 40, 8),
				bf16("vision_tower.layers.0.up_proj.weight", 8, 8), bf16("vision_tower.layers.1.up_proj.weight", 8, 8), bf16("vision_tower.layers.2.up_proj.weight", 8, 8)},
			want: []string{"model.layers.0.up_proj.weight linear 0", "= model.layers.0.up_proj 8×8 0", "model.layers.1.eh_proj.weight other -1",
				"model.layers.1.embed_tokens.weight other -1", "vision_tower.layers.0.up_proj.weight other -1", "vision_tower.layers.1.up_proj.weight other -1",
				"vision_tower.layers.2.up_proj.weight other -1"},
			model: Model{DType: BF16, Blocks: 1, BlockPrefix: "model.layers", Head: "lm_head"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := classified(t, tt.config, tt.tensors...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range m.Places {
				got = append(got, fmt.Sprintf("%s %s %d", p.Tensor, p.Role, p.Block))
				for _, l := range m.Linears {
					if l.Tensor != p.Tensor || l.Role != RoleLinear {
						continue
					}
					line := fmt.Sprintf("= %s %d×%d %d", l.Name, l.Rows, l.Cols, l.Row)
					if l.RowStep != 1 {
						line += fmt.Sprintf("/%d", l.RowStep)
					}
					if l.Transposed {
						line += " transposed"
					}
					got = append(got, line)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if m.Model != tt.model {
				t.Errorf("model\n%+v\nwant\n%+v", m.Model, tt.model)
			}
			roundTrip(t, m)
		})
	}
}

func TestClassifyRefuses(t *testing.T) {
	t.Parallel()
	fp8 := func(name string, shape ...int64) testTensor {
		return testTensor{name: name, dtype: F8E4M3, shape: shape}
	}
	f32 := func(name string, shape ...int64) testTensor { return testTensor{name: name, dtype: F32, shape: shape} }
	tests := []struct {
		name, config string
		tensors      []testTensor
		want         error
		says         string
	}{
		{"experts against hidden_size", `{"hidden_size":16}`, []testTensor{bf16("l.0.experts.gate_up_proj", 2, 12, 8), bf16("l.0.experts.down_proj", 2, 8, 6)},
			ErrMalformed, "gate_up_proj"},
		{"experts that do not fit each other", `{"hidden_size":8}`, []testTensor{bf16("l.0.experts.gate_up_proj", 2, 12, 8), bf16("l.0.experts.down_proj", 2, 8, 7)},
			ErrMalformed, "down_proj"},
		{"experts without hidden_size", ``, []testTensor{bf16("l.0.experts.gate_up_proj", 2, 12, 8)}, ErrMalformed, "hidden_size"},
		{"odd gate and up", `{"hidden_size":8}`, []testTensor{bf16("l.0.experts.gate_up_proj", 2, 13, 8)}, ErrMalformed, "split"},
		{"GPT-2 with plain shapes", `{"model_type":"gpt2"}`, []testTensor{bf16("h.0.attn.c_attn.weight", 24, 8)}, ErrMalformed, "c_attn"},
		{"FP8 without a scale", `{"quantization_config":{"quant_method":"fp8"}}`, []testTensor{fp8("l.0.up_proj.weight", 8, 8)}, ErrMissing, "weight_scale_inv"},
		{"FP8 with too few scales", `{"quantization_config":{"quant_method":"fp8","weight_block_size":[4,4]}}`,
			[]testTensor{fp8("l.0.up_proj.weight", 8, 8), f32("l.0.up_proj.weight_scale_inv", 2, 1)}, ErrMalformed, "weight_scale_inv"},
		{"block size zero", `{"quantization_config":{"quant_method":"fp8","weight_block_size":[0,4]}}`, []testTensor{bf16("a", 1)}, ErrMalformed, "weight_block_size"},
		{"split name taken", `{"hidden_size":8}`, []testTensor{bf16("l.0.experts.down_proj", 1, 8, 6), bf16("l.0.experts.0.down_proj.weight", 8, 6)},
			ErrDuplicate, "l.0.experts.0.down_proj"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := classified(t, tt.config, tt.tensors...)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v saying %q", err, tt.want, tt.says)
			}
		})
	}
}

func TestBlockOf(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"model.layers.12.mlp.experts.3.w1.weight": "model.layers 12 true",
		"h.0.attn.bias":                 "h 0 true",
		"0.weight":                      " 0 false",
		"lm_head.weight":                " 0 false",
		"a.01.weight":                   " 0 false",
		"a.-1.weight":                   " 0 false",
		"a.99999999999999999999.weight": " 0 false",
		"a.7":                           " 0 false",
		"a..7.b":                        "a. 7 true",
		"model.layers.100000.up.weight": " 0 false",
	} {
		stack, block, ok := blockOf(name)
		if got := fmt.Sprint(stack, " ", block, " ", ok); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// testdata returns the folder of real configurations, which is not part of the repository.
func testdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SHARDPRESS_TESTDATA")
	if dir == "" {
		t.Skip("SHARDPRESS_TESTDATA names no folder with real configurations and models")
	}
	return dir
}

func TestClassifyRealShapes(t *testing.T) {
	t.Parallel()
	dir := testdata(t)
	tests := []struct {
		model  string
		blocks int
		count  map[Role]int // linears by role
		scaled int
	}{
		{"Meta-Llama-3.1-405B", 126, map[Role]int{RoleLinear: 126 * 7, RoleHead: 1}, 0},
		{"Qwen3-235B-A22B", 94, map[Role]int{RoleLinear: 94 * (4 + 3*128), RoleHead: 1, RoleRouter: 94}, 0},
		{"DeepSeek-V3", 61, map[Role]int{RoleLinear: 61*5 + 3*3 + 58*(3*256+3), RoleHead: 1, RoleRouter: 58, RoleOther: 5 + 3*256 + 3 + 1 + 3},
			61*5 + 3*3 + 58*(3*256+3) + 5 + 3*256 + 3},
		{"Kimi-K2-Instruct", 61, map[Role]int{RoleLinear: 61*5 + 3 + 60*(3*384+3), RoleHead: 1, RoleRouter: 60}, 61*5 + 3 + 60*(3*384+3)},
	}
	for _, tt := range tests {
		t.Run(tt.model, func(t *testing.T) {
			t.Parallel()
			config, err := os.ReadFile(filepath.Join(dir, "configs", tt.model, ConfigName))
			if err != nil {
				t.Fatal(err)
			}
			m, err := classified(t, string(config), realShapes(t, filepath.Join(dir, "configs", tt.model, "shapes.json.gz"))...)
			if err != nil {
				t.Fatal(err)
			}
			count, scaled := map[Role]int{}, 0
			for _, l := range m.Linears {
				count[l.Role]++
				if l.Scale != "" {
					scaled++
				}
			}
			if m.Model.Blocks != tt.blocks || !maps.Equal(count, tt.count) || scaled != tt.scaled {
				t.Errorf("%d blocks, %v, %d scaled; want %d, %v, %d", m.Model.Blocks, count, scaled, tt.blocks, tt.count, tt.scaled)
			}
			for _, p := range m.Places {
				if p.Role == RoleOther && p.Block >= 0 {
					t.Errorf("%s has no place", p.Tensor)
				}
			}
			roundTrip(t, m)
		})
	}
}

func realShapes(t *testing.T, path string) []testTensor {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Tensors [][3]json.RawMessage }
	if err := json.NewDecoder(z).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	out := make([]testTensor, len(doc.Tensors))
	for i, row := range doc.Tensors {
		x := &out[i]
		for j, to := range []any{&x.name, &x.dtype, &x.shape} {
			if err := json.Unmarshal(row[j], to); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

// Index files give names only: every weight that is not a norm stands in as a small matrix.
func TestClassifyRealIndexes(t *testing.T) {
	t.Parallel()
	dir := testdata(t)
	for model, perBlock := range map[string]int{"WizardLM-2-8x22B": 4 + 8*3, "Reflection-Llama-3.1-70B": 7, "falcon-180B-chat": 4} {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join(dir, "configs", model, name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			x, err := ParseIndex(read(IndexName), IndexName)
			if err != nil {
				t.Fatal(err)
			}
			var tensors []testTensor
			for _, e := range x.Entries {
				tensors = append(tensors, bf16(e.Tensor, 8, 16))
			}
			m, err := classified(t, string(read(ConfigName)), tensors...)
			if err != nil {
				t.Fatal(err)
			}
			linears := 0
			for _, l := range m.Linears {
				if l.Role == RoleLinear {
					linears++
				}
			}
			if linears != perBlock*m.Model.Blocks || m.Model.Embedding == "" || m.Model.Head != "lm_head" || m.Model.Tied {
				t.Errorf("%d linears in %+v", linears, m.Model)
			}
			for _, p := range m.Places {
				if p.Role == RoleOther {
					t.Errorf("%s has no place", p.Tensor)
				}
			}
		})
	}
}

func TestOpenRealModel(t *testing.T) {
	t.Parallel()
	c, err := Open(t.Context(), filepath.Join(testdata(t), "models", "babyllama-105"), OpenOptions{HashSource: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if m := c.Manifest.Model; m.Blocks != 5 || !m.Tied || m.DType != F32 || m.Embedding != "model.embed_tokens.weight" || len(c.Manifest.Linears) != 35 {
		t.Errorf("%+v with %d linears", m, len(c.Manifest.Linears))
	}
	roundTrip(t, c.Manifest)
}
