package model

// qwen3 is Qwen3 (Yang et al., 2025): queries and keys are normed head by head, and biases are gone unless config.json has attention_bias.
func qwen3() family {
	n := llamaNames()
	return family{
		modelType: "qwen3", names: n, headDim: 128, context: 32768, headNorm: true,
		optional: []string{n.query, n.key, n.value, n.output},
		window:   qwenWindow,
	}
}
