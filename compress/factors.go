package compress

import (
	"encoding/json"
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
)

// KindFactors is the kind of Factors.
const KindFactors = "factors"

// Prefixes of the components of nested schemes.
const (
	prefixLeft  = "left."
	prefixRight = "right."
	prefixBase  = "base."
)

// Factors is the scheme of a product of two thin matrices: w ≈ left · right, left rows × Rank, right Rank × cols, each in a scheme of its
// own. An element is one chain of fused multiply-adds over the rank (tensor.Kernels.GEMM).
//
// Its components are those of the left factor, named left.<name>, and those of the right one, right.<name>, which are whole.
type Factors struct {
	Rank  int64
	Left  Scheme
	Right Scheme
}

// factorsJSON is how Factors is written.
type factorsJSON struct {
	Rank  int64           `json:"rank"`
	Left  json.RawMessage `json:"left"`
	Right json.RawMessage `json:"right"`
}

// MarshalJSON implements json.Marshaler.
func (s Factors) MarshalJSON() ([]byte, error) {
	left, err := MarshalScheme(s.Left)
	if err != nil {
		return nil, err
	}
	right, err := MarshalScheme(s.Right)
	if err != nil {
		return nil, err
	}
	return json.Marshal(factorsJSON{s.Rank, left, right})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Factors) UnmarshalJSON(b []byte) error {
	var j factorsJSON
	if err := unmarshalStrict(b, &j); err != nil {
		return err
	}
	s.Rank = j.Rank
	var err error
	if s.Left, err = parseSimple(j.Left); err != nil {
		return fmt.Errorf("left factor: %w", err)
	}
	if s.Right, err = parseSimple(j.Right); err != nil {
		return fmt.Errorf("right factor: %w", err)
	}
	return nil
}

// parseSimple reads a scheme that may not hold another one: files nest no deeper than this program writes them.
func parseSimple(raw json.RawMessage) (Scheme, error) {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, Invalidf("read scheme: %w", err)
	}
	if head.Kind == KindFactors || head.Kind == KindCorrected {
		return nil, Invalidf("read scheme: a scheme of kind %s inside of another", head.Kind)
	}
	return ParseScheme(raw)
}

// composite reports whether a scheme holds others.
func composite(s Scheme) bool {
	switch s.(type) {
	case Factors, Corrected:
		return true
	}
	return false
}

// Kind implements Scheme.
func (s Factors) Kind() string { return KindFactors }

// CodeBits implements Scheme: those of the factors' elements.
func (s Factors) CodeBits() int { return s.Left.CodeBits() }

// Validate implements Scheme.
func (s Factors) Validate(rows, cols int64) error {
	if s.Left == nil || s.Right == nil || composite(s.Left) || composite(s.Right) {
		return Invalidf("decode scheme: factors without schemes of their own")
	}
	if s.Rank < 1 || rows < 1 || cols < 1 || s.Rank > cols || cols > 1<<26 || s.Rank > maxElements/max(rows, cols) {
		return Invalidf("decode scheme: rank %d of %d × %d weights", s.Rank, rows, cols)
	}
	if err := s.Left.Validate(rows, s.Rank); err != nil {
		return fmt.Errorf("left factor: %w", err)
	}
	if err := s.Right.Validate(s.Rank, cols); err != nil {
		return fmt.Errorf("right factor: %w", err)
	}
	for _, c := range append(s.Left.Components(rows, s.Rank), s.Right.Components(s.Rank, cols)...) {
		if c.Ragged {
			return Invalidf("decode scheme: factors with the ragged component %s", c.Name)
		}
	}
	return nil
}

// Components implements Scheme.
func (s Factors) Components(rows, cols int64) []Component {
	out := prefixed(prefixLeft, s.Left.Components(rows, s.Rank))
	right := prefixed(prefixRight, s.Right.Components(s.Rank, cols))
	for i := range right {
		right[i].Whole, right[i].RowsPer = true, 0
	}
	return append(out, right...)
}

func prefixed(prefix string, components []Component) []Component {
	for i := range components {
		components[i].Name = prefix + components[i].Name
	}
	return components
}

// Decode implements Scheme.
func (s Factors) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	right := make([]float32, int(s.Rank)*cols)
	if err := s.DecodeRight(right, cols, e); err != nil {
		return err
	}
	return s.Product(dst, make([]float32, e.Rows*int(s.Rank)), right, cols, e)
}

// DecodeRight writes the right factor of e, Rank × cols, row-major.
func (s Factors) DecodeRight(dst []float32, cols int, e *Encoded) error {
	n := len(s.Left.Components(1, s.Rank))
	return s.Right.Decode(dst, cols, &Encoded{Rows: int(s.Rank), Data: e.Data[n:]})
}

// Product writes left · right for the rows of e, rows × cols, row-major. right is what DecodeRight gives; left is room for rows × Rank.
func (s Factors) Product(dst, left, right []float32, cols int, e *Encoded) error {
	n, rank := len(s.Left.Components(1, s.Rank)), int(s.Rank)
	if err := s.Left.Decode(left, rank, &Encoded{Row: e.Row, Rows: e.Rows, Data: e.Data[:n]}); err != nil {
		return err
	}
	k, err := tensor.ForName("")
	if err != nil {
		return err
	}
	if e.Rows > 0 {
		k.GEMM(1, false, false, e.Rows, cols, rank, left, rank, right, cols, dst, cols, false)
	}
	return nil
}
