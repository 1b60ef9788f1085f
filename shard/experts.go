package shard

import (
	"fmt"
	"strings"
)

// fusedParts are the linears that one 3-D tensor of experts holds, by the last component of its name. Engines expect INT4 experts under
// the split names, one module for each expert (formats.md 1.2).
func fusedParts(last string) []string {
	switch last {
	case "gate_up_proj":
		return []string{"gate_proj", "up_proj"}
	case "gate_proj", "up_proj", "down_proj":
		return []string{last}
	}
	return nil
}

// maxExperts is far above any model. It bounds what one short line of a hostile header can make of itself.
const maxExperts = 4096

// experts returns the parts of a 3-D tensor of experts, nil for any other tensor.
func (k *classifier) experts(t Tensor) []string {
	if len(t.Shape) != 3 || !t.DType.Float() || t.Length == 0 || t.Shape[0] > maxExperts {
		return nil
	}
	parent, last := splitLeaf(strings.TrimSuffix(t.Name, ".weight"))
	if _, above := splitLeaf(parent); above != "experts" {
		return nil
	}
	return fusedParts(last)
}

// expertLinears makes one view for each expert and part.
func (k *classifier) expertLinears(t Tensor, block int) ([]Linear, error) {
	parts := k.experts(t)
	parent, last := splitLeaf(strings.TrimSuffix(t.Name, ".weight"))
	transposed, err := k.expertsTransposed(t, parent, last)
	if err != nil {
		return nil, err
	}
	rows, cols := t.Shape[1], t.Shape[2]
	if transposed {
		rows, cols = cols, rows
	}
	n := int64(len(parts))
	if rows%n != 0 {
		return nil, fmt.Errorf("read checkpoint: tensor %q of shape %v: %d rows do not split into %s: %w; download the checkpoint again",
			t.Name, t.Shape, rows, strings.Join(parts, " and "), ErrMalformed)
	}
	// gpt-oss lets gate and up rows take turns; everybody else puts all gate rows first.
	interleaved := n > 1 && k.m.Model.ModelType == "gpt_oss"
	linears := make([]Linear, 0, t.Shape[0]*n)
	for e := range int(t.Shape[0]) {
		for p, part := range parts {
			l := Linear{
				Name: fmt.Sprintf("%s.%d.%s", parent, e, part), Tensor: t.Name, Rows: rows / n, Cols: cols,
				Row: int64(p) * (rows / n), RowStep: 1, Transposed: transposed, Expert: e, Block: block, Role: RoleLinear,
			}
			if interleaved {
				l.Row, l.RowStep = int64(p), n
			}
			linears = append(linears, l)
		}
	}
	return linears, nil
}

// expertsTransposed tells [experts, outputs, inputs] from [experts, inputs, outputs]. With H the width of the model and F that of an
// expert, gate_up is [E, 2F, H] and down [E, H, F], or both the other way round; the two together cannot be read both ways. hidden_size
// of config.json must agree, and decides alone when there is no partner.
func (k *classifier) expertsTransposed(t Tensor, parent, last string) (bool, error) {
	hidden := k.m.Model.HiddenSize
	fail := func(why string) (bool, error) {
		return false, fmt.Errorf("read checkpoint: tensor %q of shape %v: %s: %w; give hidden_size in %s as the checkpoint has it",
			t.Name, t.Shape, why, ErrMalformed, ConfigName)
	}
	rows, cols := t.Shape[1], t.Shape[2]
	inputIsHidden := last != "down_proj" // else the output is
	if partner, ok := k.expertPartner(parent, last); ok && rows != 0 && cols != 0 {
		up, down, parts := t.Shape, partner.Shape, int64(len(fusedParts(last)))
		if !inputIsHidden {
			up, down = down, up
			_, name := splitLeaf(strings.TrimSuffix(partner.Name, ".weight"))
			parts = int64(len(fusedParts(name)))
		}
		plain := up[2] == down[1] && up[1]%parts == 0 && up[1]/parts == down[2]
		turned := up[1] == down[2] && up[2]%parts == 0 && up[2]/parts == down[1]
		if !plain && !turned {
			return fail(fmt.Sprintf("does not fit %q of shape %v", partner.Name, partner.Shape))
		}
		if plain != turned {
			width := up[2]
			if turned {
				width = up[1]
			}
			if hidden != 0 && width != hidden {
				return fail(fmt.Sprintf("experts take %d inputs, hidden_size is %d", width, hidden))
			}
			return turned, nil
		}
	}
	switch {
	case hidden == 0:
		return fail("nothing says which dimension is the input")
	case rows != hidden && cols != hidden:
		return fail(fmt.Sprintf("no dimension is hidden_size %d", hidden))
	case rows == cols:
		// Only families of the older layout are known to turn their experts.
		t := k.m.Model.ModelType
		return t == "gpt_oss" || strings.HasPrefix(t, "llama4"), nil
	}
	return inputIsHidden == (rows == hidden), nil
}

// expertPartner finds the tensor on the other side of the activation.
func (k *classifier) expertPartner(parent, last string) (Tensor, bool) {
	names := []string{"down_proj"}
	if last == "down_proj" {
		names = []string{"gate_up_proj", "up_proj"}
	}
	for _, name := range names {
		for _, suffix := range []string{"", ".weight"} {
			if t, ok := k.m.Tensor(parent + "." + name + suffix); ok && len(t.Shape) == 3 {
				return t, true
			}
		}
	}
	return Tensor{}, false
}
