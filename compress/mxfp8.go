package compress

import (
	"bytes"

	"github.com/shardpress/shardpress/internal/tensor"
)

// KindMXFP8 is the kind of MXFP8.
const KindMXFP8 = "mxfp8"

// MXGroup is how many columns share a scale in the microscaling formats (OCP Microscaling Formats specification 1.0, 5.2).
const MXGroup = 32

// MXFP8 is the scheme of E4M3 floats whose scale is a power of two for 32 columns: w ≈ 2^(scale−127) · code.
//
// Its components are
//
//	codes   F8_E4M3 [rows, cols]
//	scales  U8 [rows, cols/32]: E8M0 exponents; 255, which is no number, does not occur
//
// as compressed-tensors stores them.
type MXFP8 struct{}

// Kind implements Scheme.
func (s MXFP8) Kind() string { return KindMXFP8 }

// CodeBits implements Scheme.
func (s MXFP8) CodeBits() int { return 8 }

// Validate implements Scheme.
func (s MXFP8) Validate(_, cols int64) error {
	if cols < 1 || cols%MXGroup != 0 {
		return Invalidf("decode scheme: groups of %d do not divide %d columns", MXGroup, cols)
	}
	return nil
}

// Components implements Scheme.
func (s MXFP8) Components(rows, cols int64) []Component {
	return []Component{
		{Name: ComponentCodes, DType: tensor.F8E4M3.String(), Shape: []int64{rows, cols}},
		{Name: ComponentScales, DType: tensor.U8.String(), Shape: []int64{rows, cols / MXGroup}},
	}
}

// Decode implements Scheme. The products are exact but for those below 2^-126.
func (s MXFP8) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	scales, perRow := e.Data[1], cols/MXGroup
	if i := bytes.IndexByte(scales, 0xff); i >= 0 {
		return Invalidf("decode %d rows of %d: scale %d is no number", e.Rows, cols, i)
	}
	return decodeFloat8(dst, cols, e, tensor.F8E4M3, func(row, g int) float32 { return powerOfTwo(scales[row*perRow+g]) }, MXGroup)
}
