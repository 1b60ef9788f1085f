package compress

import (
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
)

// KindPlain is the kind of Plain.
const KindPlain = "plain"

// ComponentWeight is the component of Plain.
const ComponentWeight = "weight"

// Plain is the scheme of weights that are stored as floats, such as factors that nothing quantizes. Its one component is
//
//	weight  DType [rows, cols]
type Plain struct {
	DType string `json:"dtype"` // F32, F16 or BF16
}

// Kind implements Scheme.
func (s Plain) Kind() string { return KindPlain }

// CodeBits implements Scheme.
func (s Plain) CodeBits() int {
	d, err := tensor.ParseDType(s.DType)
	if err != nil {
		return 0
	}
	return 8 * d.Size()
}

// Validate implements Scheme.
func (s Plain) Validate(rows, cols int64) error {
	if rows < 1 || cols < 1 || rows > maxElements/cols {
		return Invalidf("decode scheme: %d × %d weights", rows, cols)
	}
	d, err := tensor.ParseDType(s.DType)
	if err != nil {
		return Invalidf("decode scheme: %w", err)
	}
	if d != tensor.F32 && d != tensor.F16 && d != tensor.BF16 {
		return Invalidf("decode scheme: weights are %s, not F32, F16 or BF16", s.DType)
	}
	return nil
}

// Components implements Scheme.
func (s Plain) Components(rows, cols int64) []Component {
	return []Component{{Name: ComponentWeight, DType: s.DType, Shape: []int64{rows, cols}}}
}

// Decode implements Scheme.
func (s Plain) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	d, err := tensor.ParseDType(s.DType)
	if err != nil {
		return fmt.Errorf("decode %d rows: %w", e.Rows, err)
	}
	tensor.ToFloat32(dst[:e.Rows*cols], e.Data[0], d)
	return nil
}
