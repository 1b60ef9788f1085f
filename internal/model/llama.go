package model

// llama is Llama 2, 3 and 3.1 (Touvron et al., 2023; "The Llama 3 Herd of Models", 2024). attention_bias and mlp_bias of
// config.json show in the tensors.
func llama() family {
	n := llamaNames()
	return family{
		modelType: "llama", names: n, context: 2048,
		optional: []string{n.query, n.key, n.value, n.output, n.gate, n.up, n.down},
	}
}
