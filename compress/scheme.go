package compress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Strategies: what shares a scale.
const (
	StrategyTensor  = "tensor"
	StrategyChannel = "channel" // an output row
	StrategyGroup   = "group"   // a run of columns of a row
	StrategyBlock   = "block"   // a tile of rows and columns
)

// Components that several schemes have. Formats find them by name.
const (
	ComponentCodes  = "codes"
	ComponentScales = "scales"
	ComponentZeros  = "zeros"
	ComponentGlobal = "global" // the scale of all scales
)

// Scheme says what the components of an encoded linear mean: the one definition of its decoded weights. It is plain data with
// JSON tags, so that a result can carry it; [MarshalScheme] and [ParseScheme] write and read it.
type Scheme interface {
	// Kind names the scheme: "int", "float".
	Kind() string
	// CodeBits is the nominal size of a weight's code for reports: 4 for int4. What all components come to is Layout.Bytes.
	CodeBits() int
	// Validate refuses, with ErrInvalid, a scheme that nothing can decode for a linear of rows × cols. Schemes may come from files:
	// after it, Components and Decode are safe.
	Validate(rows, cols int64) error
	// Components lists what a linear of rows × cols becomes, in the order of Encoded.Data. The scheme has to be valid.
	Components(rows, cols int64) []Component
	// Decode writes the rows of e as rows × cols float32, row-major. It checks sizes and codes, as they may come from a file.
	Decode(dst []float32, cols int, e *Encoded) error
}

// RaggedScheme is a scheme with ragged components. Readers ask it how much of one belongs to a panel.
type RaggedScheme interface {
	Scheme
	// RaggedBytes is the size of the rows' part of component i, as the other components of e say.
	RaggedBytes(i, cols int, e *Encoded) (int64, error)
}

// parsers lists every kind of scheme.
func parsers() map[string]func(json.RawMessage) (Scheme, error) {
	return map[string]func(json.RawMessage) (Scheme, error){
		KindAffine:    strict[Affine],
		KindBinary:    strict[Binary],
		KindCorrected: strict[Corrected],
		KindFactors:   strict[Factors],
		KindFloat:     strict[Float],
		KindInt:       strict[Int],
		KindMXFP4:     strict[MXFP4],
		KindMXFP8:     strict[MXFP8],
		KindNVFP4:     strict[NVFP4],
		KindPairs:     strict[Pairs],
		KindPlain:     strict[Plain],
		KindCodebook:  strict[Codebook],
		KindLLMInt8:   strict[LLMInt8],
		KindSparse:    strict[Sparse],
	}
}

// SchemeKinds lists every kind of scheme in order.
func SchemeKinds() []string { return slices.Sorted(maps.Keys(parsers())) }

// MarshalScheme writes a scheme as JSON with its kind as the first member.
func MarshalScheme(s Scheme) (json.RawMessage, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write scheme: %w", err)
	}
	out := fmt.Appendf(nil, `{"kind":%q`, s.Kind())
	if len(body) > 2 { // more than {}
		out = append(out, ',')
	}
	return append(out, body[1:]...), nil
}

// ParseScheme reads what MarshalScheme wrote. Unknown kinds and members are refused.
func ParseScheme(raw json.RawMessage) (Scheme, error) {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, Invalidf("read scheme: %w", err)
	}
	parse, ok := parsers()[head.Kind]
	if !ok {
		return nil, Invalidf("read scheme: kind %.40q is not known", head.Kind)
	}
	return parse(raw)
}

// strict reads a scheme's members, of which kind is one.
func strict[S Scheme](raw json.RawMessage) (Scheme, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, Invalidf("read scheme: %w", err)
	}
	delete(members, "kind")
	rest, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("read scheme: %w", err)
	}
	var s S
	if err := unmarshalStrict(rest, &s); err != nil {
		return nil, Invalidf("read scheme: %w", err)
	}
	return s, nil
}

// unmarshalStrict reads one JSON value without unknown members.
func unmarshalStrict(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// CheckDecode is what every Decode begins with: that the scheme is valid, that dst has room, and that the components of e hold
// what its rows need. Ragged components are left to the scheme.
func CheckDecode(s Scheme, dst []float32, cols int, e *Encoded) error {
	if err := s.Validate(int64(max(e.Rows, 1)), int64(cols)); err != nil {
		return err
	}
	if e.Rows < 0 || len(dst)/cols < e.Rows {
		return fmt.Errorf("decode %d rows of %d: room for %d weights", e.Rows, cols, len(dst))
	}
	parts := s.Components(int64(e.Rows), int64(cols))
	if len(e.Data) != len(parts) {
		return Invalidf("decode %d rows of %d: %d components, not %d", e.Rows, cols, len(e.Data), len(parts))
	}
	for i, c := range parts {
		if want := c.PanelBytes(int64(e.Rows)); !c.Ragged && int64(len(e.Data[i])) != want {
			return Invalidf("decode %d rows of %d: %s hold %d bytes, not %d", e.Rows, cols, c.Name, len(e.Data[i]), want)
		}
	}
	return nil
}
