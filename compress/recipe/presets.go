package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/compress"
)

// preset is a recipe that comes with the program, as the text a user could have written.
type preset struct{ name, text string }

// presets lists them by family, each name in the field's own words: bits of weights and of activations, then the method.
func presets() []preset {
	return []preset{
		{"bcq-2bit", `
description: weights as a sum of 2 signs with factors for groups of 128; the alternating method, expect a weak model
steps: [{method: bcq, targets: Linear, bits: 2, group: 128}]
`},
		{"bcq-3bit", `
description: weights as a sum of 3 signs with factors for groups of 128; the alternating method
steps: [{method: bcq, targets: Linear, bits: 3, group: 128}]
`},
		{"bcq-4bit", `
description: weights as a sum of 4 signs with factors for groups of 128; the alternating method
steps: [{method: bcq, targets: Linear, bits: 4, group: 128}]
`},
		{"fp4", `
description: 4-bit floats of bitsandbytes, scales as bytes; nf4 loses less
steps: [{method: fp4, targets: Linear}]
`},
		{"fp8-block", `
description: 8-bit floats by tiles of 128 × 128, activations by groups of 128 as the engine runs; DeepSeek's layout
steps: [{method: fp8, targets: Linear, strategy: block, activations: {bits: 8, type: float, dynamic: group, group: 128}}]
`},
		{"fp8-channel", `
description: 8-bit floats, one scale for each output channel, activations as they are
steps: [{method: fp8, targets: Linear, strategy: channel}]
`},
		{"fp8-dynamic", `
description: 8-bit floats by channel, activations by token as the engine runs; as good as the original
steps: [{method: fp8, targets: Linear, strategy: channel, activations: {bits: 8, type: float, dynamic: token}}]
`},
		{"fp8-tensor", `
description: 8-bit floats, one scale for each matrix, activations by token as the engine runs
steps: [{method: fp8, targets: Linear, strategy: tensor, activations: {bits: 8, type: float, dynamic: token}}]
`},
		{"hqq-2bit", `
description: 2-bit weights, groups of 64, zero points by half-quadratic steps; expect a weak model
steps: [{method: hqq, targets: Linear, bits: 2, group: 64}]
`},
		{"hqq-3bit", `
description: 3-bit weights, groups of 64, zero points by half-quadratic steps
steps: [{method: hqq, targets: Linear, bits: 3, group: 64}]
`},
		{"hqq-4bit", `
description: 4-bit weights, groups of 64, zero points by half-quadratic steps
steps: [{method: hqq, targets: Linear, bits: 4, group: 64}]
`},
		{"hqq-4bit-int", `
description: 4-bit weights, groups of 64, whole zero points by half-quadratic steps; for current engines
steps: [{method: hqq, targets: Linear, bits: 4, group: 64, zeros: int}]
output: {format: pack-quantized}
`},
		{"hqq-8bit", `
description: 8-bit weights, groups of 64, zero points by half-quadratic steps; as good as the original
steps: [{method: hqq, targets: Linear, bits: 8, group: 64}]
`},
		{"llm-int8", `
description: LLM.int8(), one scale for each output channel; bitsandbytes keeps columns of large activations in 16 bits
steps: [{method: llmint8, targets: Linear}]
`},
		{"lplr-20-int8", `
description: factors of a random sketch with 20 % fewer parameters, in 8 bits
steps: [{method: lplr, targets: Linear, ratio: 0.2, then: {method: rtn, bits: 8, strategy: channel}}]
`},
		{"mxfp4", `
description: 4-bit floats with a power of two for 32 columns, activations alike as the engine runs
steps: [{method: mxfp4, targets: Linear, activations: {bits: 4, type: float, dynamic: group, group: 32}}]
`},
		{"mxfp4a16", `
description: 4-bit floats with a power of two for 32 columns
steps: [{method: mxfp4, targets: Linear}]
`},
		{"magnitude-2of4", `
description: the larger 2 of every 4 weights of a row kept, as sparse tensor cores want them
steps: [{method: magnitude, targets: Linear, pattern: "n:m", n: 2, m: 4}]
`},
		{"magnitude-2of4-w4a16", `
description: the larger 2 of every 4 weights of a row kept, and then those in 4 bits, groups of 128
steps: [{method: magnitude, targets: Linear, pattern: "n:m", n: 2, m: 4, then: {method: rtn, bits: 4, group: 128}}]
`},
		{"magnitude-4of8", `
description: the larger 4 of every 8 weights of a row kept
steps: [{method: magnitude, targets: Linear, pattern: "n:m", n: 4, m: 8}]
`},
		{"magnitude-50", `
description: the smaller half of the weights of each matrix set to zero, the baseline of pruning
steps: [{method: magnitude, targets: Linear, sparsity: 0.5}]
`},
		{"magnitude-60", `
description: the smaller 60% of the weights of each matrix set to zero; expect a damaged model
steps: [{method: magnitude, targets: Linear, sparsity: 0.6}]
`},
		{"mxfp8", `
description: 8-bit floats over a power of two for 32 columns, activations likewise as the engine runs
steps: [{method: mxfp8, targets: Linear, activations: {bits: 8, type: float, dynamic: group, group: 32}}]
`},
		{"mxfp8a16", `
description: 8-bit floats over a power of two for 32 columns, activations as they are
steps: [{method: mxfp8, targets: Linear}]
`},
		{"nf4", `
description: 4-bit NormalFloat with scales as bytes, what QLoRA trains on; runs with bitsandbytes
steps: [{method: nf4, targets: Linear}]
`},
		{"nf4-no-double", `
description: 4-bit NormalFloat with scales as floats; half a bit a weight for them
steps: [{method: nf4, targets: Linear, double_quant: false}]
`},
		{"nvfp4a16", `
description: 4-bit floats with an 8-bit scale for 16 columns; closer than mxfp4
steps: [{method: nvfp4, targets: Linear}]
`},
		{"olive-4bit", `
description: 4-bit weights by channel, outliers in the place of their neighbours
steps: [{method: olive, targets: Linear, bits: 4}]
`},
		{"olive-8bit", `
description: 8-bit weights by channel, outliers in the place of their neighbours; as good as the original
steps: [{method: olive, targets: Linear, bits: 8}]
`},
		{"svd-20", `
description: factors with 20 % fewer parameters; without data this costs much quality
steps: [{method: svd, targets: Linear, ratio: 0.2}]
`},
		{"svd-20-int8", `
description: factors with 20 % fewer parameters, in 8 bits
steps: [{method: svd, targets: Linear, ratio: 0.2, then: {method: rtn, bits: 8, strategy: channel}}]
`},
		{"svd-40", `
description: factors with 40 % fewer parameters
steps: [{method: svd, targets: Linear, ratio: 0.4}]
`},
		{"w2a16-rtn", `
description: 2-bit weights, groups of 64, for experiments, expect a broken model
steps: [{method: rtn, targets: Linear, bits: 2, group: 64}]
`},
		{"w3a16-rtn", `
description: 3-bit weights, groups of 128; current engines only
steps: [{method: rtn, targets: Linear, bits: 3, group: 128}]
`},
		{"w4a16-rtn", `
description: 4-bit weights, groups of 128; runs everywhere, the place to start
steps: [{method: rtn, targets: Linear, bits: 4, group: 128}]
`},
		{"w4a16-rtn-asym", `
description: 4-bit weights with zero points, groups of 128; a little closer for skewed weights
steps: [{method: rtn, targets: Linear, bits: 4, group: 128, symmetric: false}]
`},
		{"w4a16-rtn-lorc", `
description: 4-bit weights by channel, and a correction of rank 8 (LoRC)
steps: [{method: lorc, targets: Linear, rank: 8, then: {method: rtn, bits: 4, strategy: channel}}]
`},
		{"w4a16-rtn-search", `
description: 4-bit weights, groups of 128, ranges searched to minimise Σ|error|^2.4; slow
steps: [{method: rtn, targets: Linear, bits: 4, group: 128, search: true}]
`},
		{"w8a16-rtn", `
description: 8-bit weights, groups of 128; as good as the original
steps: [{method: rtn, targets: Linear, bits: 8, group: 128}]
`},
		{"w8a16-rtn-channel", `
description: 8-bit weights, one scale for each output channel; fits any width
steps: [{method: rtn, targets: Linear, bits: 8, strategy: channel}]
`},
		{"w8a8-rtn", `
description: 8-bit weights by channel, 8-bit activations by token as the engine runs; int8 products
steps: [{method: rtn, targets: Linear, bits: 8, strategy: channel, activations: {bits: 8, dynamic: token}}]
`},
	}
}

// Preset gives a preset by name.
func Preset(name string) (*Recipe, error) {
	var known []string
	for _, p := range presets() {
		if p.name == name {
			return p.parse()
		}
		known = append(known, p.name)
	}
	return nil, compress.Invalidf("recipe %q is not known%s", name, didYouMean(name, known))
}

// Presets lists every preset, sorted by name.
func Presets() ([]*Recipe, error) {
	var out []*Recipe
	for _, p := range presets() {
		r, err := p.parse()
		if err != nil {
			return nil, fmt.Errorf("list presets: %w", err)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Recipe) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (p preset) parse() (*Recipe, error) {
	r, err := Parse(p.name, []byte(p.text))
	if err != nil {
		return nil, fmt.Errorf("preset: %w", err)
	}
	r.Name = p.name
	r.at = nil // places inside the program tell a user nothing
	return r, nil
}
