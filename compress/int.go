package compress

import (
	"github.com/shardpress/shardpress/internal/tensor"
)

// KindInt is the kind of Int.
const KindInt = "int"

// Int is the scheme of integer codes on an even grid: w ≈ scale · (code − zeroPoint).
//
// Its components, for codes of b bits, are
//
//	codes   U8 [rows, 4·ceil(cols·b/32)]  q + 2^(b-1), each row one bit stream, lowest bit first, padded to 32-bit words
//	scales  ScaleDType [rows, cols/Group]; [1], whole, per tensor
//	zeros   U8 like scales: zero point + 2^(b-1), one byte each; only if not Symmetric
//
// with q and zero points in [-2^(b-1), 2^(b-1)-1], as compressed-tensors packs them.
type Int struct {
	Bits       int    `json:"bits"`
	Symmetric  bool   `json:"symmetric"`
	Strategy   string `json:"strategy"`
	Group      int64  `json:"group"` // columns that share a scale: all of them for channel and tensor
	ScaleDType string `json:"scale_dtype"`
}

// Kind implements Scheme.
func (s Int) Kind() string { return KindInt }

// CodeBits implements Scheme.
func (s Int) CodeBits() int { return s.Bits }

// Validate implements Scheme.
func (s Int) Validate(_, cols int64) error {
	switch {
	case s.Bits < 2 || s.Bits > 8:
		return Invalidf("decode scheme: %d bits, not 2 to 8", s.Bits)
	case cols < 1 || s.Group < 1 || cols%s.Group != 0:
		return Invalidf("decode scheme: groups of %d do not divide %d columns", s.Group, cols)
	}
	switch s.Strategy {
	case StrategyGroup:
	case StrategyChannel, StrategyTensor:
		if s.Group != cols {
			return Invalidf("decode scheme: strategy %s with groups of %d in %d columns", s.Strategy, s.Group, cols)
		}
	default:
		return Invalidf("decode scheme: strategy %q is not known", s.Strategy)
	}
	_, err := s.scaleDType()
	return err
}

func (s Int) scaleDType() (tensor.DType, error) {
	d, err := tensor.ParseDType(s.ScaleDType)
	if err != nil {
		return 0, Invalidf("decode scheme: %w", err)
	}
	if d != tensor.F32 && d != tensor.F16 && d != tensor.BF16 {
		return 0, Invalidf("decode scheme: scales are %s, not F32, F16 or BF16", s.ScaleDType)
	}
	return d, nil
}

// Components implements Scheme.
func (s Int) Components(rows, cols int64) []Component {
	shared := []int64{rows, cols / s.Group}
	whole := s.Strategy == StrategyTensor
	if whole {
		shared = []int64{1}
	}
	out := []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{rows, int64(tensor.PackedRowBytes(int(cols), s.Bits))}},
		{Name: ComponentScales, DType: s.ScaleDType, Shape: shared, Whole: whole},
	}
	if !s.Symmetric {
		out = append(out, Component{Name: ComponentZeros, DType: "U8", Shape: shared, Whole: whole})
	}
	return out
}

// Decode writes the rows of e as rows × cols float32: what the codes mean. Each weight is
// the integer code − zeroPoint, exact, times the scale, rounded once. It checks sizes and zero points, as
// the components may come from a file.
func (s Int) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	d, err := s.scaleDType()
	if err != nil {
		return err
	}
	var zeros []byte
	if !s.Symmetric {
		zeros = e.Data[2]
		for i, z := range zeros {
			if int(z)>>s.Bits != 0 {
				return Invalidf("decode %d rows of %d: zero point %d of group %d does not fit %d bits", e.Rows, cols, z, i, s.Bits)
			}
		}
	}
	if s.Strategy != StrategyTensor {
		tensor.DecodeGroups(dst, e.Data[0], e.Data[1], zeros, e.Rows, cols, int(s.Group), s.Bits, d)
		return nil
	}
	// Rows of a tensor share one scale, which DecodeGroups wants a row at a time.
	codes := e.Data[0]
	for row := range e.Rows {
		n := len(codes) / e.Rows
		tensor.DecodeGroups(dst[row*cols:], codes[row*n:], e.Data[1], zeros, 1, cols, cols, s.Bits, d)
	}
	return nil
}
