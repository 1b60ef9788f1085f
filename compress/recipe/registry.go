package recipe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/lowrank"
	"github.com/shardpress/shardpress/compress/prune"
	"github.com/shardpress/shardpress/compress/quantize"
)

// entry is one method of the registry.
type entry struct {
	name        string
	description string
	formats     []string // output formats that can hold it, the one to take when the recipe names none first
	// passes says that what the method makes are weights, which another method's formats hold; otherwise they are parts of a whole of
	// its own.
	passes     bool
	parameters func() []compress.Parameter
	fromJSON   func(json.RawMessage) (compress.Method, error)
}

// registry lists every method.
func registry() []entry {
	return []entry{
		{
			name:        quantize.BCQName,
			description: "a sum of a few signs, each with a factor for its group; no data needed",
			formats:     []string{FormatShardpress, FormatDense},
			parameters:  quantize.BCQParameters,
			fromJSON:    fromJSON(quantize.NewBCQ),
		},
		{
			name:        quantize.FP4Name,
			description: "4-bit floats of bitsandbytes, a scale for each run of 64 weights; no data needed",
			formats:     []string{FormatBitsAndBytes, FormatShardpress, FormatDense},
			parameters:  quantize.FP4Parameters,
			fromJSON:    fromJSON(quantize.NewFP4),
		},
		{
			name:        quantize.FP8Name,
			description: "floats of 8 bits; no data needed",
			formats:     []string{FormatFloat, FormatShardpress, FormatDense},
			parameters:  quantize.FP8Parameters,
			fromJSON:    fromJSON(quantize.NewFP8),
		},
		{
			name:        quantize.HQQName,
			description: "a grid of each group's own range with the zero point that makes small errors smallest; no data needed",
			formats:     []string{FormatShardpress, FormatPack, FormatInt, FormatDense},
			parameters:  quantize.HQQParameters,
			fromJSON:    fromJSON(quantize.NewHQQ),
		},
		{
			name:        quantize.LLMInt8Name,
			description: "LLM.int8(): bytes, a scale for each output channel; no data needed",
			formats:     []string{FormatBitsAndBytes, FormatShardpress, FormatDense},
			parameters:  quantize.LLMInt8Parameters,
			fromJSON:    fromJSON(quantize.NewLLMInt8),
		},
		{
			name:        prune.MagnitudeName,
			description: "set the smallest weights to zero, unstructured or N of every M columns kept; no data needed",
			formats:     []string{FormatDense, FormatShardpress},
			passes:      true,
			parameters:  prune.MagnitudeParameters,
			fromJSON:    fromJSON(prune.NewMagnitude),
		},
		{
			name:        lowrank.LoRCName,
			description: "adds back, at low rank, what the method that follows loses; no data needed",
			formats:     []string{FormatShardpress, FormatDense},
			parameters:  lowrank.LoRCParameters,
			fromJSON:    fromJSON(lowrank.NewLoRC),
		},
		{
			name:        lowrank.LPLRName,
			description: "a random sketch and the least squares answer to it, both quantized; no data needed",
			formats:     []string{FormatShardpress, FormatDense},
			parameters:  lowrank.LPLRParameters,
			fromJSON:    fromJSON(lowrank.NewLPLR),
		},
		{
			name:        quantize.MXFP4Name,
			description: "4-bit floats, a power of two for 32 columns; no data needed",
			formats:     []string{FormatMXFP4, FormatShardpress, FormatDense},
			fromJSON:    fromJSON(quantize.NewMXFP4),
		},
		{
			name:        quantize.MXFP8Name,
			description: "floats of 8 bits over a power of two for 32 columns; no data needed",
			formats:     []string{FormatMXFP8, FormatShardpress, FormatDense},
			parameters:  quantize.MXFP8Parameters,
			fromJSON:    fromJSON(quantize.NewMXFP8),
		},
		{
			name:        quantize.NF4Name,
			description: "4-bit NormalFloat of QLoRA, a scale for each run of 64 weights; no data needed",
			formats:     []string{FormatBitsAndBytes, FormatShardpress, FormatDense},
			parameters:  quantize.NF4Parameters,
			fromJSON:    fromJSON(quantize.NewNF4),
		},
		{
			name:        quantize.NVFP4Name,
			description: "4-bit floats, an 8-bit float for 16 columns and one scale for all; no data needed",
			formats:     []string{FormatNVFP4, FormatShardpress, FormatDense},
			fromJSON:    fromJSON(quantize.NewNVFP4),
		},
		{
			name:        quantize.OliVeName,
			description: "short integers whose outliers take the place of their neighbours; no data needed",
			formats:     []string{FormatShardpress, FormatDense},
			parameters:  quantize.OliVeParameters,
			fromJSON:    fromJSON(quantize.NewOliVe),
		},
		{
			name:        quantize.RTNName,
			description: "round to the nearest step of an integer grid; no data needed",
			formats:     []string{FormatPack, FormatInt, FormatShardpress, FormatDense},
			parameters:  quantize.RTNParameters,
			fromJSON:    fromJSON(quantize.NewRTN),
		},
		{
			name:        lowrank.SVDName,
			description: "the nearest product of two thin factors; no data needed",
			formats:     []string{FormatShardpress, FormatDense},
			parameters:  lowrank.SVDParameters,
			fromJSON:    fromJSON(lowrank.NewSVD),
		},
	}
}

// fromJSON turns a typed constructor into one from strict JSON.
func fromJSON[P any, M compress.Method](newMethod func(P) (M, error)) func(json.RawMessage) (compress.Method, error) {
	return func(raw json.RawMessage) (compress.Method, error) {
		var params P
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&params); err != nil {
			return nil, compress.Invalidf("read parameters: %w", err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, compress.Invalidf("read parameters: more than one JSON value")
		}
		return newMethod(params)
	}
}

// params describes the method's parameters. Most of what the registry holds is nobody's concern at a time, so they are made when they are asked for.
func (e entry) params() []compress.Parameter {
	if e.parameters == nil {
		return nil
	}
	return e.parameters()
}

func lookup(name string) (entry, bool) {
	for _, e := range registry() {
		if e.name == name {
			return e, true
		}
	}
	return entry{}, false
}

func methodNames() []string {
	var names []string
	for _, e := range registry() {
		names = append(names, e.name)
	}
	slices.Sort(names)
	return names
}

func (e entry) parameter(name string) (compress.Parameter, bool) {
	for _, p := range e.params() {
		if p.Name == name {
			return p, true
		}
	}
	return compress.Parameter{}, false
}

func (e entry) parameterNames() []string {
	names := make([]string, len(e.params()))
	for i, p := range e.params() {
		names[i] = p.Name
	}
	return names
}

// value is what the parameter p has, given or by default.
func (e entry) value(given map[string]any, name string) any {
	if v, ok := given[name]; ok {
		return v
	}
	p, _ := e.parameter(name)
	return p.Default
}

// applies says whether p has a meaning beside the other parameters.
func (e entry) applies(given map[string]any, p compress.Parameter) bool {
	return p.When == "" || fmt.Sprint(e.value(given, p.When)) == p.Is
}

// checkParam refuses a given parameter that is unknown, of the wrong type, out of range or without meaning.
func (e entry) checkParam(given map[string]any, name string) error {
	p, ok := e.parameter(name)
	if !ok {
		return compress.Invalidf("method %s has no parameter %q%s", e.name, name, didYouMean(name, e.parameterNames()))
	}
	if _, err := p.Check(given[name]); err != nil {
		return err
	}
	if !e.applies(given, p) {
		return compress.Invalidf("%s has a meaning only with %s=%s, and %s is %v", name, p.When, p.Is, p.When, e.value(given, p.When))
	}
	return nil
}

// resolve fills in the defaults. Parameters without meaning beside the others are left out, so that
// they cannot tell equal work apart.
func (e entry) resolve(given map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for _, p := range e.params() {
		if !e.applies(given, p) {
			continue
		}
		v, err := p.Check(e.value(given, p.Name))
		if err != nil {
			return nil, err
		}
		out[p.Name] = v
	}
	return out, nil
}

func (e entry) build(params map[string]any) (compress.Method, error) {
	raw, err := canonical(params)
	if err != nil {
		return nil, err
	}
	return e.fromJSON(raw)
}

// NewMethod makes a method from its name and parameters, as Selection.Params holds them. Parameters
// that are left out have their defaults.
func NewMethod(name string, params json.RawMessage) (compress.Method, error) {
	e, ok := lookup(name)
	if !ok {
		return nil, compress.Invalidf("method %q is not known%s", name, didYouMean(name, methodNames()))
	}
	given, err := e.given(params)
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", name, err)
	}
	for _, key := range sortedKeys(given) {
		if err := e.checkParam(given, key); err != nil {
			return nil, fmt.Errorf("method %s: %w", name, err)
		}
	}
	resolved, err := e.resolve(given)
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", name, err)
	}
	m, err := e.build(resolved)
	if err != nil {
		return nil, fmt.Errorf("method %s: %w", name, err)
	}
	return m, nil
}

// Chain combines two methods: next encodes what m makes.
func Chain(m, next compress.Method) (compress.Method, error) {
	c, ok := m.(compress.Chainer)
	if !ok {
		return nil, compress.Invalidf("method %s makes codes that no other method can encode: give %s the linear in a step of its own", m.Name(), next.Name())
	}
	return c.Then(next)
}

// given reads parameters from JSON into the types that Parameter.Check wants.
func (e entry) given(raw json.RawMessage) (map[string]any, error) {
	given := map[string]any{}
	if len(raw) == 0 {
		return given, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&given); err != nil {
		return nil, compress.Invalidf("read parameters: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, compress.Invalidf("read parameters: more than one JSON value")
	}
	for key, v := range given {
		n, ok := v.(json.Number)
		if !ok {
			continue
		}
		if i, err := n.Int64(); err == nil {
			given[key] = i
		} else if f, err := n.Float64(); err == nil {
			given[key] = f
		} else {
			return nil, compress.Invalidf("read parameters: %s is %s, which is no number that fits", key, n)
		}
	}
	return given, nil
}

// MethodInfo describes a method for people.
type MethodInfo struct {
	Name        string               `json:"name"`
	Version     int                  `json:"version"`
	Description string               `json:"description"`
	Formats     []string             `json:"formats"` // output formats that can hold it, the default first
	Parameters  []compress.Parameter `json:"parameters"`
}

// Methods lists every method, sorted by name.
func Methods() ([]MethodInfo, error) {
	var out []MethodInfo
	for _, e := range registry() {
		m, err := NewMethod(e.name, nil)
		if err != nil {
			return nil, fmt.Errorf("list methods: %w", err)
		}
		out = append(out, MethodInfo{e.name, m.Version(), e.description, e.formats, e.params()})
	}
	slices.SortFunc(out, func(a, b MethodInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
