package model

// family is what tells one architecture from another.
type family struct {
	modelType string
	names     names
	headDim   int // what a head has if config.json does not say; 0 for hidden_size / num_attention_heads
	context   int // positions, if config.json does not say
	// biases are the linears of a block that must have one, optional those that may.
	biases, optional []string
	// headNorm: queries and keys are normed head by head before they are turned.
	headNorm bool
	// experts: a block may have a router and experts in place of the MLP.
	experts bool
	// window fills in how far back each block looks; nil: all do to the beginning.
	window func(f *fields, windows []int) error
	// more reads what only this family has; mistakes stay in the fields.
	more func(f *fields, c *Config)
}

// names are the modules of a checkpoint. Those of a block follow its prefix and number, those of experts the expert's number.
type names struct {
	embedding, norm, head            string // norm and embedding follow the decoder's prefix
	attentionNorm, mlpNorm           string
	query, key, value, output        string
	queryNorm, keyNorm               string
	gate, up, down                   string
	router, experts                  string
	expertGate, expertUp, expertDown string
}

// families are the architectures that can be run.
func families() []family {
	return []family{llama(), mistral(), qwen2(), qwen3(), qwen3MoE()}
}

// llamaNames are those that most families took over.
func llamaNames() names {
	return names{
		embedding: "embed_tokens", norm: "norm", head: "lm_head",
		attentionNorm: "input_layernorm", mlpNorm: "post_attention_layernorm",
		query: "self_attn.q_proj", key: "self_attn.k_proj", value: "self_attn.v_proj", output: "self_attn.o_proj",
		queryNorm: "self_attn.q_norm", keyNorm: "self_attn.k_norm",
		gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj",
		router: "mlp.gate", experts: "mlp.experts",
		expertGate: "gate_proj", expertUp: "up_proj", expertDown: "down_proj",
	}
}
