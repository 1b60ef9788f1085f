package shard

import (
	"fmt"
	"strings"
)

// isConv1D reports whether a module has one of the names of GPT-2's Conv1D, whose weight is stored as inputs × outputs.
func isConv1D(module string) bool {
	_, last := splitLeaf(module)
	switch last {
	case "c_attn", "q_attn", "c_proj", "c_fc":
		return true
	}
	return false
}

// findConv1D decides whether linears with those names are stored transposed. The names alone do not say: GPT-BigCode and the first Qwen
// use them for plain linears. The attention input has three times as many outputs as inputs, which settles it by shape; a model_type
// that is known must agree.
func (k *classifier) findConv1D() error {
	known := false
	switch k.m.Model.ModelType {
	case "gpt2", "openai-gpt", "imagegpt", "decision_transformer":
		known = true
	}
	for _, t := range k.m.Tensors {
		module, ok := strings.CutSuffix(t.Name, ".weight")
		if !ok || len(t.Shape) != 2 || !strings.HasSuffix(module, "c_attn") {
			continue
		}
		// Compared by division, so that hostile dimensions cannot overflow.
		wide := t.Shape[1]%3 == 0 && t.Shape[1]/3 == t.Shape[0]
		if known && !wide {
			return fmt.Errorf("read checkpoint: tensor %q has shape %v, but model_type %q stores inputs × 3 inputs: %w; correct model_type in %s",
				t.Name, t.Shape, k.m.Model.ModelType, ErrMalformed, ConfigName)
		}
		k.conv1D = known || k.m.Model.ModelType == "" && wide
		return nil
	}
	k.conv1D = known
	return nil
}
