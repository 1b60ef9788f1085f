package compress

import (
	"encoding/json"
	"fmt"
)

// KindCorrected is the kind of Corrected.
const KindCorrected = "corrected"

// Corrected is the scheme of weights with a correction of low rank: w ≈ base + left · right, added in float32. Its components are those of the base, named
// base.<name>, then those of Factors.
type Corrected struct {
	Base       Scheme
	Correction Factors
}

// correctedJSON is how Corrected is written.
type correctedJSON struct {
	Base       json.RawMessage `json:"base"`
	Correction Factors         `json:"correction"`
}

// MarshalJSON implements json.Marshaler.
func (s Corrected) MarshalJSON() ([]byte, error) {
	base, err := MarshalScheme(s.Base)
	if err != nil {
		return nil, err
	}
	return json.Marshal(correctedJSON{base, s.Correction})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Corrected) UnmarshalJSON(b []byte) error {
	var j correctedJSON
	if err := unmarshalStrict(b, &j); err != nil {
		return err
	}
	s.Correction = j.Correction
	var err error
	if s.Base, err = parseSimple(j.Base); err != nil {
		return fmt.Errorf("base: %w", err)
	}
	return nil
}

// Kind implements Scheme.
func (s Corrected) Kind() string { return KindCorrected }

// CodeBits implements Scheme: those of the base's codes.
func (s Corrected) CodeBits() int { return s.Base.CodeBits() }

// Validate implements Scheme.
func (s Corrected) Validate(rows, cols int64) error {
	if s.Base == nil || composite(s.Base) {
		return Invalidf("decode scheme: a correction without a base of its own")
	}
	if err := s.Base.Validate(rows, cols); err != nil {
		return fmt.Errorf("base: %w", err)
	}
	for _, c := range s.Base.Components(rows, cols) {
		if c.Ragged {
			return Invalidf("decode scheme: a base with the ragged component %s", c.Name)
		}
	}
	return s.Correction.Validate(rows, cols)
}

// Components implements Scheme.
func (s Corrected) Components(rows, cols int64) []Component {
	return append(prefixed(prefixBase, s.Base.Components(rows, cols)), s.Correction.Components(rows, cols)...)
}

// Decode implements Scheme.
func (s Corrected) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	n := len(s.Base.Components(int64(max(e.Rows, 1)), int64(cols)))
	if err := s.Base.Decode(dst, cols, &Encoded{Row: e.Row, Rows: e.Rows, Data: e.Data[:n]}); err != nil {
		return err
	}
	more := make([]float32, e.Rows*cols)
	if err := s.Correction.Decode(more, cols, &Encoded{Row: e.Row, Rows: e.Rows, Data: e.Data[n:]}); err != nil {
		return err
	}
	for i, v := range more {
		dst[i] += v
	}
	return nil
}
