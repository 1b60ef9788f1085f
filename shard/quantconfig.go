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
	KVCache     *struct{}     `json:"kv_cache_scheme"`
	Ratio       *struct{}     `json:"global_compression_ratio"`
}

type quantGroup struct {
	Targets []string   `json:"targets"`
	Weights quantArgs  `json:"weights"`
	Input   *quantArgs `json:"input_activations"`
	Output  *struct{}  `json:"output_activations"`
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
	BlockStructure *struct{} `json:"block_structure"`
	Observer       *string   `json:"observer"`
	ObserverArgs   struct{}  `json:"observer_kwargs"`
}

// Activations says what an engine is to do with the inputs of quantized linears.
type Activations string

// Activations. Engines run int-quantized results with 8-bit inputs and know no kernel for them without; loaders that decode the
// weights take either.
const (
	ActivationsKept      Activations = ""           // as they come: weight-only quantization
	ActivationsInt8Token Activations = "int8-token" // symmetric int8, one scale for each token found as it comes
)

func (a Activations) args() *quantArgs {
	if a != ActivationsInt8Token {
		return nil
	}
	return &quantArgs{Bits: 8, Type: "int", Symmetric: true, Strategy: "token", Dynamic: true}
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

// QuantizationConfig returns what config.json must say about a result in a compressed-tensors format: one group for each scheme, and
// by name every linear that stays in 16 bits. With one scheme, and for the scheme of the experts or else of the most linears, the target
// is the class name "Linear"; other schemes name their linears, which readers prefer over the class.
func QuantizationConfig(m *Manifest, f Format, quantized []QuantizedLinear) (json.RawMessage, error) {
	if err := checkQuantized(m, f, quantized); err != nil {
		return nil, err
	}
	if err := CheckFused(m, quantized); err != nil {
		return nil, err
	}
	c := quantConfig{QuantMethod: "compressed-tensors", Format: f, Status: "compressed",
		Groups: schemeGroups(quantized), Ignore: Ignored(m, quantized)}
	b, err := marshal(c, "")
	if err != nil {
		return nil, err
	}
	return json.RawMessage(strings.TrimSpace(string(b))), nil
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
func checkQuantized(m *Manifest, f Format, quantized []QuantizedLinear) error {
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
		if err := q.Check(f); err != nil {
			return err
		}
	}
	return nil
}

// schemeGroups puts linears of one scheme together, in the order of their first linears.
func schemeGroups(quantized []QuantizedLinear) orderedGroups {
	type members struct {
		scheme  Scheme
		names   []string
		experts int
	}
	var all []*members
	byScheme := map[Scheme]*members{}
	for _, q := range quantized {
		s := q.Scheme
		if s.Strategy != StrategyGroup {
			s.Group = 0 // differs with the columns, but means the same
		}
		s.ScaleDType = "" // no part of a group
		g := byScheme[s]
		if g == nil {
			g = &members{scheme: s}
			byScheme[s] = g
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
	observer := "minmax"
	groups := make(orderedGroups, 0, len(all))
	for _, g := range all {
		args := quantArgs{Bits: g.scheme.Bits, Type: "int", Symmetric: g.scheme.Symmetric, Strategy: g.scheme.Strategy, Observer: &observer}
		if g.scheme.Strategy == StrategyGroup {
			args.GroupSize = &g.scheme.Group
		}
		targets := g.names
		if g == class {
			targets = []string{"Linear"}
		}
		groups = append(groups, quantGroup{Targets: targets, Weights: args, Input: g.scheme.Activations.args()})
	}
	return groups
}
