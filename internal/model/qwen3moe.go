package model

// qwen3MoE is Qwen3 with experts: a softmax over all of them, of which a token takes the largest few. Blocks of mlp_only_layers, or
// between decoder_sparse_step, have a dense MLP; their tensors show which. A window, where there is one, is every block's.
func qwen3MoE() family {
	n := llamaNames()
	return family{
		modelType: "qwen3_moe", names: n, context: 32768, headNorm: true, experts: true,
		optional: []string{n.query, n.key, n.value, n.output},
		window: func(f *fields, windows []int) error {
			if f.flag("use_sliding_window") {
				width := f.size("sliding_window", 4096)
				for i := range windows {
					windows[i] = width
				}
			}
			return nil
		},
		more: func(f *fields, c *Config) {
			c.Experts, c.ExpertsPerToken = f.size("num_experts", 128), f.size("num_experts_per_tok", 8)
			c.ExpertWidth = f.size("moe_intermediate_size", 768)
			c.NormalizeTop = f.flag("norm_topk_prob")
		},
	}
}
