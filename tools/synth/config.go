package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/shardpress/shardpress/shard"
)

// Bounds on what a config may ask for, so that a slip does not fill the disk with headers or overflow a product.
const (
	maxWidth  = 1 << 22
	maxBlocks = 1 << 12
	maxExpert = 1 << 14
)

// config is the part of a Hugging Face config.json that names and shapes follow from.
type config struct {
	ModelType      string `json:"model_type"`
	TorchDType     string `json:"torch_dtype"`
	DType          string `json:"dtype"` // the newer name of torch_dtype
	Width          int64  `json:"hidden_size"`
	Inner          int64  `json:"intermediate_size"`
	ExpertInner    int64  `json:"moe_intermediate_size"`
	Layers         int    `json:"num_hidden_layers"`
	Vocabulary     int64  `json:"vocab_size"`
	Heads          int64  `json:"num_attention_heads"`
	KeyValueHeads  int64  `json:"num_key_value_heads"`
	HeadDim        int64  `json:"head_dim"`
	LocalExperts   int    `json:"num_local_experts"`   // mixtral
	Experts        int    `json:"num_experts"`         // qwen3_moe
	SparseStep     int    `json:"decoder_sparse_step"` // qwen3_moe: every n-th block is a mixture
	DenseOnly      []int  `json:"mlp_only_layers"`     // qwen3_moe: blocks that are not
	AttentionBias  bool   `json:"attention_bias"`
	MLPBias        bool   `json:"mlp_bias"`
	TiedEmbeddings bool   `json:"tie_word_embeddings"`
	declaredLayers int    // before --layers
	elementType    shard.DType
}

// readConfig reads a config.json and returns it with the bytes of the one to write, where the number of blocks is changed.
func readConfig(path string, layers int) (config, []byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config{}, nil, fmt.Errorf("read config: %w", err)
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return config{}, nil, fmt.Errorf("parse config %s: %w", path, err)
	}
	c.declaredLayers = c.Layers
	if layers > 0 {
		c.Layers = layers
	}
	if err := c.validate(); err != nil {
		return config{}, nil, fmt.Errorf("check config %s: %w", path, err)
	}
	adjusted, err := adjust(text, c)
	if err != nil {
		return config{}, nil, fmt.Errorf("adjust config %s: %w", path, err)
	}
	return c, adjusted, nil
}

// validate checks the numbers and fills in what the families leave out.
func (c *config) validate() error {
	if c.Layers < 1 || c.Layers > maxBlocks {
		return fmt.Errorf("num_hidden_layers %d is not between 1 and %d", c.Layers, maxBlocks)
	}
	if c.Heads < 1 || c.Heads > maxWidth {
		return fmt.Errorf("num_attention_heads %d is not between 1 and %d", c.Heads, maxWidth)
	}
	if c.KeyValueHeads == 0 {
		c.KeyValueHeads = c.Heads
	}
	if c.HeadDim == 0 {
		c.HeadDim = c.Width / c.Heads
	}
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"hidden_size", c.Width}, {"vocab_size", c.Vocabulary}, {"num_key_value_heads", c.KeyValueHeads}, {"head_dim", c.HeadDim},
		{"num_attention_heads times head_dim", c.Heads * c.HeadDim},
	} {
		if field.value < 1 || field.value > maxWidth {
			return fmt.Errorf("%s %d is not between 1 and %d", field.name, field.value, maxWidth)
		}
	}
	if c.Inner < 0 || c.Inner > maxWidth || c.ExpertInner < 0 || c.ExpertInner > maxWidth {
		return fmt.Errorf("intermediate_size %d or moe_intermediate_size %d is not between 0 and %d", c.Inner, c.ExpertInner, maxWidth)
	}
	if c.Experts < 0 || c.Experts > maxExpert || c.LocalExperts < 0 || c.LocalExperts > maxExpert {
		return fmt.Errorf("num_experts %d or num_local_experts %d is not between 0 and %d", c.Experts, c.LocalExperts, maxExpert)
	}
	if c.SparseStep <= 0 {
		c.SparseStep = 1
	}
	name := c.TorchDType
	if name == "" {
		name = c.DType
	}
	switch name {
	case "", "bfloat16":
		c.elementType = "BF16"
	case "float16":
		c.elementType = "F16"
	case "float32":
		c.elementType = "F32"
	default:
		return fmt.Errorf("torch_dtype %q is none of bfloat16, float16, float32", name)
	}
	return nil
}

// adjust returns the config with the number of blocks changed, and whatever is listed by block cut to it; the rest stays as it is.
func adjust(text []byte, c config) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // 1e-05 must not become 0.00001
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return nil, err
	}
	if fields == nil {
		return nil, errors.New("it holds no object")
	}
	fields["num_hidden_layers"] = c.Layers
	if kinds, ok := fields["layer_types"].([]any); ok && len(kinds) > c.Layers {
		fields["layer_types"] = kinds[:c.Layers]
	}
	if number, ok := fields["max_window_layers"].(json.Number); ok {
		if n, err := number.Int64(); err == nil && n > int64(c.Layers) {
			fields["max_window_layers"] = c.Layers
		}
	}
	if c.Layers < c.declaredLayers { // prediction blocks stand behind the last one
		if _, ok := fields["num_nextn_predict_layers"]; ok {
			fields["num_nextn_predict_layers"] = 0
		}
	}
	adjusted, err := json.MarshalIndent(fields, "", "  ")
	return append(adjusted, '\n'), err
}
