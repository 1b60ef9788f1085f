package shard

import (
	"fmt"
	"strings"
)

// CheckSource refuses a checkpoint whose weights are codes that nothing here can decode, naming one of them. FP8 with scales is read;
// packed integers, FP4 and the formats of other quantizers are not.
func (m *Manifest) CheckSource() error {
	refuse := func(name, what string) error {
		method := m.Model.Quantization
		if method == "" {
			method = "not named in " + ConfigName
		}
		return fmt.Errorf("read checkpoint: tensor %q holds %s (quantization method: %s): %w; start from the unquantized checkpoint",
			name, what, method, ErrUnsupported)
	}
	if m.Model.Quantization == string(FormatShardpress) {
		return fmt.Errorf("read checkpoint: its linears are stored as components (format %s): %w; start from the unquantized checkpoint", FormatShardpress, ErrUnsupported)
	}
	for _, t := range m.Tensors {
		_, leaf := splitLeaf(t.Name)
		switch {
		case codesLeaf(leaf):
			return refuse(t.Name, "packed codes")
		case leaf == "weight" && len(t.Shape) == 2 && !t.DType.Float():
			return refuse(t.Name, "codes of type "+string(t.DType))
		}
	}
	for _, l := range m.Linears {
		t, ok := m.Tensor(l.Tensor)
		if !ok || l.Scale != "" || t.DType != F8E4M3 && t.DType != F8E5M2 {
			continue
		}
		scaled := m.Model.Quantization != ""
		for _, suffix := range []string{"_scale_inv", "_scale"} {
			_, ok := m.Tensor(t.Name + suffix)
			scaled = scaled || ok
		}
		if scaled {
			return refuse(t.Name, string(t.DType)+" without scales that fit it")
		}
	}
	return nil
}

// codesLeaf knows the names that quantizers give their codes: GPTQ and AWQ, compressed-tensors, MXFP4, EXL3.
func codesLeaf(leaf string) bool {
	switch leaf {
	case "qweight", "weight_packed", "trellis":
		return true
	}
	return strings.HasSuffix(leaf, "_blocks") || strings.HasSuffix(leaf, "_packed")
}
