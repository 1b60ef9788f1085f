package model_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/shard"
)

// altered copies a case with members of its config.json replaced, null for none, and its weights changed.
func altered(t *testing.T, from string, config map[string]any, weights func([]byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	var c map[string]any
	readJSON(t, filepath.Join(from, "config.json"), &c)
	for k, v := range config {
		c[k] = v
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.ReadFile(filepath.Join(from, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if weights != nil {
		w = weights(w)
	}
	for name, b := range map[string][]byte{"config.json": raw, "model.safetensors": w} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// renamed gives a tensor another name of the same length.
func renamed(from, to string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
}

// poisoned makes the first element of a tensor a NaN in bfloat16.
func poisoned(name string) func([]byte) []byte {
	return func(b []byte) []byte {
		n := binary.LittleEndian.Uint64(b)
		var header map[string]struct {
			Offsets [2]uint64 `json:"data_offsets"`
		}
		var raw map[string]json.RawMessage
		_ = json.Unmarshal(b[8:8+n], &raw)
		delete(raw, "__metadata__")
		clean, _ := json.Marshal(raw)
		_ = json.Unmarshal(clean, &header)
		binary.LittleEndian.PutUint16(b[8+n+header[name].Offsets[0]:], 0x7fc0)
		return b
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, from string
		config     map[string]any
		weights    func([]byte) []byte
		want       error
		says       string
	}{
		{"family", "llama2", map[string]any{"model_type": "mamba"}, nil, model.ErrUnsupported, "mamba"},
		{"no family", "llama2", map[string]any{"model_type": nil}, nil, model.ErrUnsupported, "model_type"},
		{"activation", "llama2", map[string]any{"hidden_act": "gelu"}, nil, model.ErrUnsupported, "gelu"},
		{"rope", "llama2", map[string]any{"rope_scaling": map[string]any{"type": "dynamic", "factor": 2.0}}, nil, model.ErrUnsupported, "dynamic"},
		{"rope factor", "llama2", map[string]any{"rope_scaling": map[string]any{"type": "linear"}}, nil, model.ErrConfig, "factor"},
		{"rope factors", "llama31", map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1}}, nil, model.ErrConfig, "high_freq_factor"},
		{"partial rotation", "llama2", map[string]any{"partial_rotary_factor": 0.5}, nil, model.ErrUnsupported, "partial_rotary_factor"},
		{"soft cap", "qwen3", map[string]any{"final_logit_softcapping": 30.0}, nil, model.ErrUnsupported, "final_logit_softcapping"},
		{"vocabulary", "llama2", map[string]any{"vocab_size": 41}, nil, model.ErrConfig, "embed_tokens"},
		{"width", "llama2", map[string]any{"hidden_size": 48}, nil, model.ErrConfig, "hidden_size"},
		{"blocks", "llama2", map[string]any{"num_hidden_layers": 1}, nil, model.ErrUnsupported, "layers.1."},
		{"blocks too many", "llama2", map[string]any{"num_hidden_layers": 1 << 29}, nil, model.ErrConfig, "blocks"},
		{"heads", "llama2", map[string]any{"num_attention_heads": 3, "head_dim": 6}, nil, model.ErrConfig, "q_proj"},
		{"shared heads", "mistral", map[string]any{"num_key_value_heads": 1}, nil, model.ErrConfig, "k_proj"},
		{"head size", "mistral", map[string]any{"head_dim": 14}, nil, model.ErrConfig, "q_proj"},
		{"odd heads", "mistral", map[string]any{"head_dim": 1}, nil, model.ErrConfig, "even"},
		{"MLP", "llama2", map[string]any{"intermediate_size": 20}, nil, model.ErrConfig, "gate_proj"},
		{"experts", "qwen3moe", map[string]any{"num_experts": 4}, nil, model.ErrConfig, "mlp.gate"},
		{"experts a token", "qwen3moe", map[string]any{"num_experts_per_tok": 7}, nil, model.ErrConfig, "mlp.gate"},
		{"expert width", "qwen3moe", map[string]any{"moe_intermediate_size": 4}, nil, model.ErrConfig, "moe_intermediate_size"},
		{"number", "llama2", map[string]any{"intermediate_size": "wide"}, nil, model.ErrConfig, "intermediate_size"},
		{"negative", "llama2", map[string]any{"vocab_size": -1}, nil, model.ErrConfig, "vocab_size"},
		{"layer types", "qwen3-window", map[string]any{"layer_types": []string{"full_attention"}}, nil, model.ErrConfig, "layer_types"},
		{"layer type", "qwen3-window", map[string]any{"layer_types": []string{"full_attention", "linear_attention"}}, nil, model.ErrUnsupported, "linear_attention"},
		{"bias of another family", "llama-linear", map[string]any{"model_type": "mistral"}, nil, model.ErrUnsupported, "bias"},
		{"bias missing", "llama2", map[string]any{"model_type": "qwen2"}, nil, shard.ErrMissing, "q_proj.bias"},
		{"norm of another family", "qwen3", map[string]any{"model_type": "llama"}, nil, model.ErrUnsupported, "norm"},
		{"foreign tensor", "llama2", nil, renamed("layers.1.input_layernorm", "layers.1.extra_layernorm"), shard.ErrMissing, "input_layernorm"},
		{"head missing", "llama2", nil, renamed("lm_head.weight", "lm_tail.weight"), model.ErrUnsupported, "lm_tail.weight"},
		{"NaN in a linear", "llama2", nil, poisoned("model.layers.1.mlp.up_proj.weight"), model.ErrNotFinite, "block 1: linear model.layers.1.mlp.up_proj"},
		{"NaN in an expert", "qwen3moe", nil, poisoned("model.layers.1.mlp.experts.2.gate_proj.weight"), model.ErrNotFinite, "block 1: linear model.layers.1.mlp.experts.2.gate_proj"},
		{"NaN in a norm", "llama2", nil, poisoned("model.layers.0.input_layernorm.weight"), model.ErrNotFinite, "input_layernorm"},
		{"NaN in the head", "llama2", nil, poisoned("lm_head.weight"), model.ErrNotFinite, "lm_head"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := forward(t, altered(t, filepath.Join("testdata", c.from), c.config, c.weights))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v; want %v that says %q", err, c.want, c.says)
			}
		})
	}
}

// forward opens a model and runs a few tokens.
func forward(t *testing.T, dir string) error {
	t.Helper()
	ck, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		return err
	}
	defer ck.Close()
	m, err := model.Open(ck, model.Options{})
	if err != nil {
		return err
	}
	tokens := make([]int, 30)
	for i := range tokens {
		tokens[i] = i
	}
	_, err = m.Logits(t.Context(), tokens, nil, 1)
	return err
}

func TestTokensRefused(t *testing.T) {
	t.Parallel()
	m := open(t, "testdata/llama2", model.Options{})
	for _, bad := range [][]int{{-1}, {m.Config.Vocabulary}, {math.MaxInt}} {
		if _, err := m.Embed(t.Context(), bad); !errors.Is(err, model.ErrToken) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := m.CheckVocabulary(m.Config.Vocabulary); err != nil {
		t.Error(err)
	}
	if err := m.CheckVocabulary(m.Config.Vocabulary + 1); !errors.Is(err, model.ErrToken) {
		t.Errorf("a larger vocabulary: %v", err)
	}
	if _, err := m.Embed(t.Context(), make([]int, m.Config.Context+1)); !errors.Is(err, model.ErrContext) {
		t.Errorf("a long text: %v", err)
	}
	cache := m.NewCache()
	if _, err := m.Logits(t.Context(), make([]int, m.Config.Context), cache, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Logits(t.Context(), make([]int, 1), cache, 1); !errors.Is(err, model.ErrContext) {
		t.Errorf("one token too many: %v", err)
	}
	if _, err := m.Logits(t.Context(), nil, nil, 1); err == nil {
		t.Error("no tokens at all: no error")
	}
}

// FuzzConfig reads hostile configurations over the weights of a case.
func FuzzConfig(f *testing.F) {
	raw, err := os.ReadFile("testdata/qwen3moe/config.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"model_type":"llama","rope_scaling":{"rope_type":"yarn","factor":1e6},"hidden_size":1}`))
	ck, err := shard.Open(f.Context(), "testdata/qwen3moe", shard.OpenOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = ck.Close() })
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := *ck
		c.Config = raw
		m, err := model.Open(&c, model.Options{})
		if err != nil {
			return
		}
		_, _ = m.Logits(t.Context(), []int{1, 2, 3}, nil, 1)
	})
}
