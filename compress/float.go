package compress

import (
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// KindFloat is the kind of Float.
const KindFloat = "float"

// Float is the scheme of 8-bit floats: w ≈ scale · code.
//
// Its components are
//
//	codes   Element [rows, cols]
//	scales  ScaleDType [1], whole, per tensor; [rows, 1] per channel; [ceil(rows/BlockRows), cols/BlockCols] per block
//
// as compressed-tensors stores them. The last tile of rows may be lower than the others.
type Float struct {
	Element    string `json:"element"` // F8_E4M3 or F8_E5M2
	Strategy   string `json:"strategy"`
	BlockRows  int64  `json:"block_rows,omitempty"` // of a tile that shares a scale; with strategy block only
	BlockCols  int64  `json:"block_cols,omitempty"`
	ScaleDType string `json:"scale_dtype"`
}

// Kind implements Scheme.
func (s Float) Kind() string { return KindFloat }

// CodeBits implements Scheme.
func (s Float) CodeBits() int { return 8 }

// Validate implements Scheme.
func (s Float) Validate(_, cols int64) error {
	if _, err := s.element(); err != nil {
		return err
	}
	switch {
	case cols < 1:
		return Invalidf("decode scheme: %d columns", cols)
	case s.Strategy == StrategyBlock:
		if s.BlockRows < 1 || s.BlockRows > maxBlock || s.BlockCols < 1 || cols%s.BlockCols != 0 {
			return Invalidf("decode scheme: blocks of %d × %d do not divide %d columns", s.BlockRows, s.BlockCols, cols)
		}
	case s.Strategy != StrategyChannel && s.Strategy != StrategyTensor:
		return Invalidf("decode scheme: strategy %q is not known", s.Strategy)
	case s.BlockRows != 0 || s.BlockCols != 0:
		return Invalidf("decode scheme: strategy %s with blocks of %d × %d", s.Strategy, s.BlockRows, s.BlockCols)
	}
	_, err := scaleDType(s.ScaleDType)
	return err
}

// maxBlock bounds the height of a tile.
const maxBlock = 1 << 20

func (s Float) element() (tensor.DType, error) {
	d, err := tensor.ParseDType(s.Element)
	if err != nil || d != tensor.F8E4M3 && d != tensor.F8E5M2 {
		return 0, Invalidf("decode scheme: elements are %.40q, not F8_E4M3 or F8_E5M2", s.Element)
	}
	return d, nil
}

// scaleDType reads the type of scales that are plain floats.
func scaleDType(name string) (tensor.DType, error) {
	d, err := tensor.ParseDType(name)
	if err != nil {
		return 0, Invalidf("decode scheme: %w", err)
	}
	if d != tensor.F32 && d != tensor.F16 && d != tensor.BF16 {
		return 0, Invalidf("decode scheme: scales are %s, not F32, F16 or BF16", name)
	}
	return d, nil
}

// Components implements Scheme.
func (s Float) Components(rows, cols int64) []Component {
	scales := Component{Name: ComponentScales, DType: s.ScaleDType}
	switch s.Strategy {
	case StrategyTensor:
		scales.Shape, scales.Whole = []int64{1}, true
	case StrategyBlock:
		per := max(s.BlockRows, 1)
		scales.Shape, scales.RowsPer = []int64{(rows + per - 1) / per, cols / max(s.BlockCols, 1)}, per
	default:
		scales.Shape = []int64{rows, 1}
	}
	return []Component{{Name: ComponentCodes, DType: s.Element, Shape: []int64{rows, cols}}, scales}
}

// Decode implements Scheme. Each weight is the code's value, exact, times the scale, rounded once.
func (s Float) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	element, err := s.element()
	if err != nil {
		return err
	}
	d, err := scaleDType(s.ScaleDType)
	if err != nil {
		return err
	}
	scales := make([]float32, len(e.Data[1])/d.Size())
	tensor.ToFloat32(scales, e.Data[1], d)
	if i := firstNotFinite(scales); i >= 0 {
		return Invalidf("decode %d rows of %d: scale %d is %v", e.Rows, cols, i, scales[i])
	}
	group, rowsPer, perRow := cols, 1, 1
	switch s.Strategy {
	case StrategyTensor:
		rowsPer = max(e.Rows, 1)
	case StrategyBlock:
		group, rowsPer, perRow = int(s.BlockCols), int(s.BlockRows), cols/int(s.BlockCols)
	}
	return decodeFloat8(dst, cols, e, element, func(row, g int) float32 { return scales[row/rowsPer*perRow+g] }, group)
}

// decodeFloat8 decodes rows of 8-bit floats; scale gives that of group g of a row.
func decodeFloat8(dst []float32, cols int, e *Encoded, element tensor.DType, scale func(row, g int) float32, group int) error {
	values := tensor.Float8Values(element)
	for row := range e.Rows {
		for g := range cols / group {
			at := row*cols + g*group
			if bad := tensor.DecodeFloat8(dst[at:], e.Data[0][at:][:group], values, scale(row, g)); bad >= 0 {
				return Invalidf("decode %d rows of %d: code %#02x at row %d, column %d is no finite %s",
					e.Rows, cols, e.Data[0][at+bad], e.Row+int64(row), g*group+bad, element)
			}
		}
	}
	return nil
}

// powerOfTwo is 2^(b−127), what an E8M0 byte below 255 stands for.
func powerOfTwo(b byte) float32 {
	if b == 0 {
		return 0x1p-127 // a subnormal float32
	}
	return math.Float32frombits(uint32(b) << 23)
}
