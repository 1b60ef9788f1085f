package shard

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Format says how the linears of a result are stored.
type Format string

// Output formats. Those with -quantized are compressed-tensors' (reference: formats.md, section 2).
const (
	FormatPackQuantized  Format = "pack-quantized"       // integer codes packed into 32-bit words
	FormatIntQuantized   Format = "int-quantized"        // one signed byte for each code
	FormatFloatQuantized Format = "float-quantized"      // 8-bit floats
	FormatNVFP4          Format = "nvfp4-pack-quantized" // 4-bit floats, a scale of 8 bits for 16 columns and one for all
	FormatMXFP4          Format = "mxfp4-pack-quantized" // 4-bit floats, a power of two for 32 columns
	FormatMXFP8          Format = "mxfp8-quantized"      // 8-bit floats, a power of two for 32 columns
	FormatMixed          Format = "mixed-precision"      // of a result: its linears have several of those above
	FormatBitsAndBytes   Format = "bitsandbytes"         // that of the library of the same name: NF4, FP4, LLM.int8
	FormatShardpress     Format = "shardpress"           // our own: every component of every scheme as a tensor, see docs/container.md
	FormatDense          Format = "dense"                // weights decoded to floats: loads everywhere
)

// Kinds of schemes that formats of engines hold. FormatShardpress holds every other kind too.
const (
	KindInt   = "int"
	KindFloat = "float"
	KindNVFP4 = "nvfp4"
	KindMXFP4 = "mxfp4"
	KindMXFP8 = "mxfp8"
)

// CompressedTensors reports whether compressed-tensors defines the format.
func (f Format) CompressedTensors() bool {
	return strings.HasSuffix(string(f), "-quantized") || f == FormatMixed
}

// QuantizedLinear is a linear that a run compresses.
type QuantizedLinear struct {
	Name       string
	Rows, Cols int64
	Scheme     Scheme
	Format     Format // how it is stored; never FormatMixed
	// Components are what stands for the weights, in formats that store them as they are.
	Components []Component
	// Description is the scheme as FormatShardpress records it.
	Description json.RawMessage
}

// Component is one named array of an encoded linear.
type Component struct {
	Name  string
	DType DType
	Shape []int64
}

// Part says which array of an encoded linear a stored tensor is made of: the name of a component, or PartShape.
type Part string

// Parts of KindInt.
const (
	PartCodes  Part = "codes"  // rows of offset-binary codes, packed LSB first into 32-bit words
	PartScales Part = "scales" // rows × groups
	PartZeros  Part = "zeros"  // rows × groups, an offset-binary byte each
	PartShape  Part = "shape"  // follows from the linear
)

// ModuleTensor is one of the tensors that stand for a linear in a result.
type ModuleTensor struct {
	TensorSpec
	Part Part
}

// stored is a component that a format keeps byte for byte, under a name of its own.
type stored struct {
	part   Part
	suffix string // after the linear's name
}

// storedAs lists the tensors of formats that keep components as they are, and the kind of scheme that each holds.
func storedAs(f Format) (kind string, parts []stored) {
	switch f {
	case FormatFloatQuantized:
		return KindFloat, []stored{{PartCodes, ".weight"}, {PartScales, ".weight_scale"}}
	case FormatNVFP4:
		return KindNVFP4, []stored{{PartCodes, ".weight_packed"}, {PartScales, ".weight_scale"}, {"global", ".weight_global_scale"}}
	case FormatMXFP4:
		return KindMXFP4, []stored{{PartCodes, ".weight_packed"}, {PartScales, ".weight_scale"}}
	case FormatMXFP8:
		return KindMXFP8, []stored{{PartCodes, ".weight"}, {PartScales, ".weight_scale"}}
	}
	return "", nil
}

// Check refuses what the linear's format cannot hold.
func (q QuantizedLinear) Check() error {
	if q.Rows < 1 || q.Cols < 1 || q.Rows > 1<<40 || q.Cols > 1<<40 {
		return q.refuse("%d rows of %d columns", q.Rows, q.Cols)
	}
	switch q.Format {
	case FormatPackQuantized, FormatIntQuantized:
		return q.checkInt()
	case FormatBitsAndBytes:
		return q.checkBitsAndBytes()
	case FormatShardpress:
		if len(q.Description) == 0 {
			return q.refuse("nothing describes its scheme")
		}
		return nil
	case FormatFloatQuantized, FormatNVFP4, FormatMXFP4, FormatMXFP8:
		kind, _ := storedAs(q.Format)
		if q.Scheme.Kind != kind {
			return q.refuse("it holds schemes of kind %s and not %s", kind, q.Scheme.Kind)
		}
		return q.checkFloat()
	}
	return q.refuse("this format has no codes")
}

// checkFloat refuses floats that compressed-tensors has no scheme for.
func (q QuantizedLinear) checkFloat() error {
	if q.Format == FormatFloatQuantized && q.Scheme.Element != F8E4M3 {
		return q.refuse("elements of type %s; compressed-tensors knows F8_E4M3 only: choose format %s or %s", q.Scheme.Element, FormatShardpress, FormatDense)
	}
	if a := q.Scheme.Activations; a != ActivationsKept {
		if _, ok := activationArgs()[a]; !ok {
			return q.refuse("activations %q are not known", a)
		}
		if runs, ok := floatActivations()[q.Format]; ok && !slices.Contains(runs, a) {
			return q.refuse("activations %q, which no engine runs with it; choose %q or none", a, runs)
		}
	}
	return nil
}

// floatActivations lists the activations that engines run beside 8-bit float weights.
func floatActivations() map[Format][]Activations {
	return map[Format][]Activations{
		FormatFloatQuantized: {ActivationsFP8Token, ActivationsFP8Group},
		FormatMXFP8:          {ActivationsMXFP8Group},
	}
}

func (q QuantizedLinear) refuse(format string, args ...any) error {
	return fmt.Errorf("store linear %q as %s: %s: %w", q.Name, q.Format, fmt.Sprintf(format, args...), ErrUnsupported)
}

// Tensors lists what takes the place of a linear's weight, components of the largest size first.
func (q QuantizedLinear) Tensors() ([]ModuleTensor, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	switch q.Format {
	case FormatPackQuantized, FormatIntQuantized:
		return q.intTensors(), nil
	case FormatBitsAndBytes:
		return q.bitsAndBytesTensors()
	case FormatShardpress:
		out := make([]ModuleTensor, len(q.Components))
		for i, c := range q.Components {
			out[i] = ModuleTensor{TensorSpec{q.Name + "." + c.Name, c.DType, c.Shape}, Part(c.Name)}
		}
		return out, nil
	}
	_, parts := storedAs(q.Format)
	out := make([]ModuleTensor, 0, len(parts))
	for _, p := range parts {
		at := slices.IndexFunc(q.Components, func(c Component) bool { return c.Name == string(p.part) })
		if at < 0 {
			return nil, q.refuse("it has no component %q", p.part)
		}
		c := q.Components[at]
		out = append(out, ModuleTensor{TensorSpec{q.Name + p.suffix, c.DType, c.Shape}, p.part})
	}
	if len(out) != len(q.Components) {
		return nil, q.refuse("%d components, where the format has room for %d", len(q.Components), len(out))
	}
	return out, nil
}
