package main

import (
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/shard"
)

// imply lists the tensors of a model of a known family, in the order in which such checkpoints keep them.
func imply(c config) ([]shard.TensorSpec, error) {
	var mixture func(block int) bool
	switch c.ModelType {
	case "llama", "mistral", "qwen2", "qwen3":
		mixture = func(int) bool { return false }
	case "mixtral":
		if c.LocalExperts < 1 {
			return nil, fmt.Errorf("list tensors: num_local_experts %d of a mixtral is not positive", c.LocalExperts)
		}
		mixture = func(int) bool { return true }
	case "qwen3_moe":
		if c.Experts < 1 || c.ExpertInner < 1 {
			return nil, fmt.Errorf("list tensors: num_experts %d or moe_intermediate_size %d of a qwen3_moe is not positive", c.Experts, c.ExpertInner)
		}
		mixture = func(block int) bool { return (block+1)%c.SparseStep == 0 && !slices.Contains(c.DenseOnly, block) }
	default:
		return nil, fmt.Errorf("list tensors: model_type %q is none of llama, mistral, qwen2, qwen3, mixtral, qwen3_moe: give the tensors by --shapes", c.ModelType)
	}
	if c.Inner < 1 {
		return nil, fmt.Errorf("list tensors: intermediate_size %d is not positive", c.Inner)
	}
	l := lister{c: c}
	l.add("model.embed_tokens.weight", c.Vocabulary, c.Width)
	for block := range c.Layers {
		prefix := fmt.Sprintf("model.layers.%d.", block)
		l.add(prefix+"input_layernorm.weight", c.Width)
		l.attention(prefix + "self_attn.")
		l.add(prefix+"post_attention_layernorm.weight", c.Width)
		switch {
		case !mixture(block):
			l.gated(prefix+"mlp.", "gate_proj", "up_proj", "down_proj", c.Inner, c.MLPBias)
		case c.ModelType == "mixtral":
			l.add(prefix+"block_sparse_moe.gate.weight", int64(c.LocalExperts), c.Width)
			for e := range c.LocalExperts {
				l.gated(fmt.Sprintf("%sblock_sparse_moe.experts.%d.", prefix, e), "w1", "w3", "w2", c.Inner, false)
			}
		default:
			l.add(prefix+"mlp.gate.weight", int64(c.Experts), c.Width)
			for e := range c.Experts {
				l.gated(fmt.Sprintf("%smlp.experts.%d.", prefix, e), "gate_proj", "up_proj", "down_proj", c.ExpertInner, false)
			}
		}
	}
	l.add("model.norm.weight", c.Width)
	if !c.TiedEmbeddings {
		l.add("lm_head.weight", c.Vocabulary, c.Width)
	}
	return l.tensors, nil
}

type lister struct {
	c       config
	tensors []shard.TensorSpec
}

func (l *lister) add(name string, shape ...int64) {
	l.tensors = append(l.tensors, shard.TensorSpec{Name: name, DType: l.c.elementType, Shape: shape})
}

func (l *lister) linear(name string, rows, cols int64, bias bool) {
	l.add(name+".weight", rows, cols)
	if bias {
		l.add(name+".bias", rows)
	}
}

// attention lists the four projections. qwen2 always has biases on q, k and v and never on o; elsewhere attention_bias gives all four.
func (l *lister) attention(prefix string) {
	query, keyValue := l.c.Heads*l.c.HeadDim, l.c.KeyValueHeads*l.c.HeadDim
	bias := l.c.AttentionBias
	l.linear(prefix+"q_proj", query, l.c.Width, bias || l.c.ModelType == "qwen2")
	l.linear(prefix+"k_proj", keyValue, l.c.Width, bias || l.c.ModelType == "qwen2")
	l.linear(prefix+"v_proj", keyValue, l.c.Width, bias || l.c.ModelType == "qwen2")
	l.linear(prefix+"o_proj", l.c.Width, query, bias)
	if l.c.ModelType == "qwen3" || l.c.ModelType == "qwen3_moe" {
		l.add(prefix+"q_norm.weight", l.c.HeadDim)
		l.add(prefix+"k_norm.weight", l.c.HeadDim)
	}
}

func (l *lister) gated(prefix, gate, up, down string, inner int64, bias bool) {
	l.linear(prefix+gate, inner, l.c.Width, bias)
	l.linear(prefix+up, inner, l.c.Width, bias)
	l.linear(prefix+down, l.c.Width, inner, bias)
}
