package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/shardpress/shardpress/shard"
)

// maxSize bounds every size in config.json, far above any model.
const maxSize = 1 << 30

// Config is what config.json says that no tensor shows, and what it says that tensors must agree with.
type Config struct {
	ModelType       string
	Hidden          int
	Heads           int // queries; the most that a block may have
	KVHeads         int // the most that a block may have
	HeadDim         int
	Intermediate    int // the most that a dense MLP may have
	Layers          int
	Vocabulary      int
	Context         int     // tokens of a sequence at most
	Epsilon         float64 // of the norms
	Experts         int     // the most that a block may have, 0 for a family without
	ExpertWidth     int
	ExpertsPerToken int
	NormalizeTop    bool // weights of the chosen experts add up to 1
	Rotary          Rotary
	Windows         []int    // by block: positions that a token sees, itself included; 0 for all before it
	Ignored         []string // what quantization_config asks of engines and the forward pass does not do
}

// fields gives typed members of a JSON object. The first mistake is kept, so that it is asked for once.
type fields struct {
	where string
	m     map[string]json.RawMessage
	err   error
}

func parseFields(where string, raw []byte) (*fields, error) {
	f := &fields{where: where}
	if err := json.Unmarshal(raw, &f.m); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", where, err, ErrConfig)
	}
	return f, nil
}

// has reports whether a key is there and not null.
func (f *fields) has(key string) bool {
	raw, ok := f.m[key]
	return ok && string(raw) != "null"
}

// get decodes a key into a T, fallback if it is absent or null.
func get[T any](f *fields, key string, fallback T, want string) T {
	if !f.has(key) {
		return fallback
	}
	var v T
	if err := json.Unmarshal(f.m[key], &v); err != nil && f.err == nil {
		f.err = fmt.Errorf("read %s: %q is %.40s, want %s: %w; correct it", f.where, key, f.m[key], want, ErrConfig)
	}
	return v
}

// size reads a whole number from 1 to maxSize, or fallback, which may be anything.
func (f *fields) size(key string, fallback int) int {
	if !f.has(key) {
		return fallback
	}
	v := get(f, key, int64(0), "a whole number")
	if (v < 1 || v > maxSize) && f.err == nil {
		f.err = fmt.Errorf("read %s: %q is %.40s, want a whole number from 1 to %d: %w; correct it", f.where, key, f.m[key], maxSize, ErrConfig)
	}
	return int(v)
}

// must is size for a key that has to be there.
func (f *fields) must(key string) int {
	if !f.has(key) && f.err == nil {
		f.err = fmt.Errorf("read %s: %q is missing: %w; take config.json from where the weights are from", f.where, key, ErrConfig)
	}
	return f.size(key, 1)
}

// real reads a number within bounds, or fallback.
func (f *fields) real(key string, fallback, least, most float64) float64 {
	v := get(f, key, fallback, "a number")
	if !(v >= least && v <= most) && f.err == nil {
		f.err = fmt.Errorf("read %s: %q is %v, want a number from %g to %g: %w; correct it", f.where, key, v, least, most, ErrConfig)
	}
	return v
}

func (f *fields) str(key, fallback string) string { return get(f, key, fallback, "a string") }
func (f *fields) flag(key string) bool            { return get(f, key, false, "true or false") }

// foreign are keys of other families that would change what the model computes, and the values that change nothing.
func foreign() map[string][]string {
	return map[string][]string{
		"attn_logit_softcapping": nil, "final_logit_softcapping": nil, "attention_chunk_size": nil, "no_rope_layers": nil,
		"query_pre_attn_scalar": nil, "alibi": {"false"}, "parallel_attn": {"false"}, "qk_layernorm": {"false"}, "sinks": {"false"},
		"attention_multiplier": {"1", "1.0"}, "embedding_multiplier": {"1", "1.0"}, "residual_multiplier": {"1", "1.0"},
		"logits_scaling": {"1", "1.0"}, "logit_scale": {"1", "1.0"}, "partial_rotary_factor": {"1", "1.0"},
		"n_shared_experts": {"0"}, "shared_expert_intermediate_size": {"0"},
	}
}

// parseConfig reads config.json for the family that it names.
func parseConfig(raw json.RawMessage) (Config, *family, error) {
	var c Config
	fail := func(err error) (Config, *family, error) { return c, nil, fmt.Errorf("open model: %w", err) }
	if len(raw) == 0 {
		return fail(fmt.Errorf("%s is missing: %w; a model cannot be run without", shard.ConfigName, ErrConfig))
	}
	f, err := parseFields(shard.ConfigName, raw)
	if err != nil {
		return fail(err)
	}
	c.ModelType = f.str("model_type", "")
	var fam *family
	known := families()
	for i := range known {
		if known[i].modelType == c.ModelType {
			fam = &known[i]
		}
	}
	if f.err != nil {
		return fail(f.err)
	}
	if fam == nil {
		names := make([]string, len(known))
		for i, k := range known {
			names[i] = k.modelType
		}
		return fail(fmt.Errorf("%s: model_type %q: %w; these are: %v", shard.ConfigName, c.ModelType, ErrUnsupported, names))
	}
	for key, harmless := range foreign() {
		if f.has(key) && !slices.Contains(harmless, string(f.m[key])) {
			return fail(fmt.Errorf("%s: %q is %.40s in a model of type %s: %w", shard.ConfigName, key, f.m[key], c.ModelType, ErrUnsupported))
		}
	}
	if act := f.str("hidden_act", "silu"); act != "silu" && f.err == nil {
		return fail(fmt.Errorf("%s: activation hidden_act %q: %w; silu is", shard.ConfigName, act, ErrUnsupported))
	}
	c.Hidden, c.Heads, c.Layers = f.must("hidden_size"), f.must("num_attention_heads"), f.must("num_hidden_layers")
	c.Vocabulary, c.Intermediate = f.must("vocab_size"), f.must("intermediate_size")
	c.KVHeads = f.size("num_key_value_heads", c.Heads)
	c.HeadDim = f.size("head_dim", fam.headDim)
	if f.err == nil && c.HeadDim == 0 {
		if c.Hidden%c.Heads != 0 {
			return fail(fmt.Errorf("%s: hidden_size %d is not a multiple of num_attention_heads %d, and there is no head_dim: %w",
				shard.ConfigName, c.Hidden, c.Heads, ErrConfig))
		}
		c.HeadDim = c.Hidden / c.Heads
	}
	c.Epsilon = f.real("rms_norm_eps", 1e-6, 0, 1)
	c.Context = f.size("max_position_embeddings", fam.context)
	if c.Rotary, err = parseRotary(f, &c); err != nil {
		return fail(err)
	}
	// A scaled model's config.json may give the length before (Qwen2.5) or after (Llama 3.1) the scaling.
	if s := c.Rotary; s.Factor > 1 {
		c.Context = max(c.Context, int(math.Min(s.Factor*float64(s.Original), maxSize)))
	}
	c.Ignored = ignored(f)
	if fam.more != nil {
		fam.more(f, &c)
	}
	c.Windows = make([]int, min(c.Layers, maxLayers))
	if fam.window != nil {
		if err := fam.window(f, c.Windows); err != nil {
			return fail(err)
		}
	}
	if f.err != nil {
		return fail(f.err)
	}
	if c.HeadDim%2 != 0 || c.Layers > maxLayers {
		return fail(fmt.Errorf("%s: heads of %d elements in %d blocks: %w; heads must be even, blocks at most %d", shard.ConfigName, c.HeadDim, c.Layers, ErrConfig, maxLayers))
	}
	return c, fam, nil
}

// maxLayers bounds what a number in config.json can make us allocate.
const maxLayers = 1 << 14
