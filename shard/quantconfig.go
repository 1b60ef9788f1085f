package shard

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// quantConfig is the quantization_config of compressed-tensors (formats.md 2.1), members in the order of its documentation.
type quantConfig struct {
	QuantMethod string        `json:"quant_method"`
	Format      Format        `json:"format"`
	Status      string        `json:"quantization_status"`
	Groups      orderedGroups `json:"config_groups"`
	Ignore      []string      `json:"ignore"`
	KVCache     *quantArgs    `json:"kv_cache_scheme"`
	Ratio       *struct{}     `json:"global_compression_ratio"`
}

type quantGroup struct {
	Targets []string   `json:"targets"`
	Weights quantArgs  `json:"weights"`
	Input   *quantArgs `json:"input_activations"`
	Output  *struct{}  `json:"output_activations"`
	Format  Format     `json:"format,omitempty"` // where the groups have several
}

// quantArgs forbids unknown members on the reader's side: nothing may be added that an old release does not know.
type quantArgs struct {
	Bits           int       `json:"num_bits"`
	Type           string    `json:"type"`
	Symmetric      bool      `json:"symmetric"`
	Strategy       string    `json:"strategy"`
	GroupSize      *int64    `json:"group_size"`
	Dynamic        bool      `json:"dynamic"`
	ActOrder       *struct{} `json:"actorder"`
	BlockStructure []int64   `json:"block_structure"`
	Observer       *string   `json:"observer"`
	ObserverArgs   struct{}  `json:"observer_kwargs"`
	ScaleDType     string    `json:"scale_dtype,omitempty"` // of formats that are younger than it
}

// Activations says what an engine is to do with the inputs of quantized linears.
type Activations string

// Activations, all quantized as they come, with scales found on the way. Engines run int-quantized results with 8-bit inputs and know no
// kernel for them without; loaders that decode the weights take either.
const (
	ActivationsKept       Activations = ""              // as they come: weight-only quantization
	ActivationsInt8Token  Activations = "int8-token"    // symmetric int8, one scale for each token
	ActivationsFP8Token   Activations = "fp8-token"     // E4M3, one scale for each token
	ActivationsFP8Group   Activations = "fp8-group-128" // E4M3, one scale for 128 columns of a token
	ActivationsMXFP8Group Activations = "mxfp8"         // E4M3, a power of two for 32 columns of a token
	ActivationsMXFP4Group Activations = "mxfp4"         // E2M1, a power of two for 32 columns of a token
)

// activationArgs says how compressed-tensors writes them (formats.md 2.1, presets).
func activationArgs() map[Activations]quantArgs {
	group := func(n int64) *int64 { return &n }
	return map[Activations]quantArgs{
		ActivationsInt8Token:  {Bits: 8, Type: "int", Symmetric: true, Strategy: "token", Dynamic: true},
		ActivationsFP8Token:   {Bits: 8, Type: "float", Symmetric: true, Strategy: "token", Dynamic: true},
		ActivationsFP8Group:   {Bits: 8, Type: "float", Symmetric: true, Strategy: "group", GroupSize: group(128), Dynamic: true},
		ActivationsMXFP8Group: {Bits: 8, Type: "float", Symmetric: true, Strategy: "group", GroupSize: group(32), Dynamic: true, ScaleDType: scaleUint8},
		ActivationsMXFP4Group: {Bits: 4, Type: "float", Symmetric: true, Strategy: "group", GroupSize: group(32), Dynamic: true, ScaleDType: scaleUint8},
	}
}

// Types of scales, in compressed-tensors' words.
const (
	scaleUint8 = "torch.uint8"
	scaleE4M3  = "torch.float8_e4m3fn"
)

func (a Activations) args() *quantArgs {
	if args, ok := activationArgs()[a]; ok {
		return &args
	}
	return nil
}

// orderedGroups writes group_0, group_1, ... in order, where a map would put group_10 before group_2.
type orderedGroups []quantGroup

// MarshalJSON implements json.Marshaler.
func (g orderedGroups) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, group := range g {
		b, err := json.Marshal(group)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(fmt.Appendf(out, `"group_%d":`, i), b...)
	}
	return append(out, '}'), nil
}

// QuantizationConfig returns what config.json must say about a result whose linears have schemes: one group for each scheme, and
// by name every linear that stays in 16 bits. With one scheme, and for the scheme of the experts or else of the most linears, the target
// is the class name "Linear"; other schemes name their linears, which readers prefer over the class.
func QuantizationConfig(m *Manifest, quantized []QuantizedLinear) (json.RawMessage, error) {
	return QuantizationConfigKV(m, quantized, nil)
}

// QuantizationConfigKV is QuantizationConfig of a result for which engines are told how to keep keys and values; nil says nothing.
func QuantizationConfigKV(m *Manifest, quantized []QuantizedLinear, kv *KVCache) (json.RawMessage, error) {
	if err := checkQuantized(m, quantized); err != nil {
		return nil, err
	}
	f, err := ResultFormat(quantized)
	if err != nil {
		return nil, err
	}
	cache, err := kv.args(f)
	if err != nil {
		return nil, err
	}
	var c any
	switch {
	case f.CompressedTensors():
		if err := CheckFused(m, quantized); err != nil {
			return nil, err
		}
		c = quantConfig{QuantMethod: "compressed-tensors", Format: f, Status: "compressed",
			Groups: schemeGroups(quantized, f == FormatMixed), Ignore: Ignored(m, quantized), KVCache: cache}
	case f == FormatBitsAndBytes:
		if c, err = bitsAndBytes(m, quantized); err != nil {
			return nil, err
		}
	default:
		c = containerConfig(m, quantized)
	}
	b, err := marshal(c, "")
	if err != nil {
		return nil, err
	}
	return json.RawMessage(strings.TrimSpace(string(b))), nil
}

// ResultFormat is the format of a result as a whole. Formats of compressed-tensors mix, others do not.
func ResultFormat(quantized []QuantizedLinear) (Format, error) {
	f := FormatDense
	var first string
	for _, q := range quantized {
		switch {
		case f == FormatDense:
			f, first = q.Format, q.Name
		case f == q.Format || f == FormatMixed && q.Format.CompressedTensors():
		case f.CompressedTensors() && q.Format.CompressedTensors():
			f = FormatMixed
		default:
			return "", fmt.Errorf("describe quantization: linear %q as %s and linear %q as %s: %w in one checkpoint; choose one output format that holds both, such as %s",
				first, f, q.Name, q.Format, ErrUnsupported, FormatShardpress)
		}
	}
	return f, nil
}

// Ignored lists the linears that are not quantized in the order of the manifest: routers, the head, prediction layers and towers
// included. The head stands in it even when it has no tensor of its own, since loaders see the module.
func Ignored(m *Manifest, quantized []QuantizedLinear) []string {
	done := make(map[string]struct{}, len(quantized))
	for _, q := range quantized {
		done[q.Name] = struct{}{}
	}
	ignored, head := []string{}, false
	for _, l := range m.Linears {
		head = head || l.Name == m.Model.Head
		if _, ok := done[l.Name]; !ok {
			ignored = append(ignored, l.Name)
		}
	}
	if !head && m.Model.Head != "" {
		ignored = append(ignored, m.Model.Head)
	}
	return ignored
}

// checkQuantized compares what is to be written with the manifest.
func checkQuantized(m *Manifest, quantized []QuantizedLinear) error {
	linears := make(map[string]Linear, len(m.Linears))
	for _, l := range m.Linears {
		linears[l.Name] = l
	}
	if len(quantized) == 0 {
		return fmt.Errorf("describe quantization: %w linears to quantize; choose other targets, or format %s", ErrMissing, FormatDense)
	}
	seen := make(map[string]struct{}, len(quantized))
	for _, q := range quantized {
		l, ok := linears[q.Name]
		if !ok {
			return fmt.Errorf("describe quantization: linear %q: %w from the checkpoint", q.Name, ErrMissing)
		}
		if _, ok := seen[q.Name]; ok {
			return fmt.Errorf("describe quantization: linear %q: %w", q.Name, ErrDuplicate)
		}
		seen[q.Name] = struct{}{}
		if l.Rows != q.Rows || l.Cols != q.Cols {
			return fmt.Errorf("describe quantization: linear %q is %d × %d in the checkpoint and %d × %d here: %w", q.Name, l.Rows, l.Cols, q.Rows, q.Cols, ErrMalformed)
		}
		if q.Name == m.Model.Head && m.Model.Tied {
			return fmt.Errorf("describe quantization: linear %q is tied to the embedding, which must stay: %w; ignore it", q.Name, ErrUnsupported)
		}
		if err := q.Check(); err != nil {
			return err
		}
	}
	return nil
}

// schemeGroups puts linears of one scheme together, in the order of their first linears.
func schemeGroups(quantized []QuantizedLinear, mixed bool) orderedGroups {
	type key struct {
		scheme Scheme
		format Format
	}
	type members struct {
		key
		names   []string
		experts int
	}
	var all []*members
	byScheme := map[key]*members{}
	for _, q := range quantized {
		s := q.Scheme
		if s.Strategy != StrategyGroup {
			s.Group = 0 // differs with the columns, but means the same
		}
		s.ScaleDType = "" // no part of a group
		k := key{s, q.Format}
		g := byScheme[k]
		if g == nil {
			g = &members{key: k}
			byScheme[k] = g
			all = append(all, g)
		}
		g.names = append(g.names, q.Name)
		if strings.Contains(q.Name, ".experts.") {
			g.experts++
		}
	}
	// Engines look up the scheme of a mixture by the class name, so the experts' scheme must have it.
	class := slices.MaxFunc(all, func(a, b *members) int {
		return cmp.Or(cmp.Compare(a.experts, b.experts), cmp.Compare(len(a.names), len(b.names)))
	})
	groups := make(orderedGroups, 0, len(all))
	for _, g := range all {
		targets := g.names
		if g == class {
			targets = []string{"Linear"}
		}
		group := quantGroup{Targets: targets, Weights: g.scheme.args(), Input: g.scheme.Activations.args()}
		if mixed {
			group.Format = g.format
		}
		groups = append(groups, group)
	}
	return groups
}

// args says in compressed-tensors' words how the weights are stored (formats.md 2.1, presets).
func (s Scheme) args() quantArgs {
	observer := "minmax"
	size := func(n int64) *int64 { return &n }
	a := quantArgs{Bits: s.Bits, Type: "float", Symmetric: true, Strategy: s.Strategy, Observer: &observer}
	switch s.Kind {
	case KindInt:
		a.Type, a.Symmetric = "int", s.Symmetric
	case KindNVFP4:
		a.Strategy, a.GroupSize, a.ScaleDType = "tensor_group", size(16), scaleE4M3
		return a
	case KindMXFP4, KindMXFP8:
		a.Strategy, a.GroupSize, a.ScaleDType = StrategyGroup, size(32), scaleUint8
		return a
	}
	switch s.Strategy {
	case StrategyGroup:
		a.GroupSize = size(s.Group)
	case StrategyBlock:
		a.BlockStructure = s.Block[:]
	}
	return a
}
