package compress

import "github.com/shardpress/shardpress/internal/tensor"

// KindMXFP4 is the kind of MXFP4.
const KindMXFP4 = "mxfp4"

// MXFP4 is the scheme of the OCP microscaling format of that name, as compressed-tensors stores it: 4-bit floats (E2M1) that share a power
// of two in each 32 columns.
//
//	codes   U8 [rows, cols/2]   sign<<3 | index into 0, 0.5, 1, 1.5, 2, 3, 4, 6; the even column in the low nibble
//	scales  U8 [rows, cols/32]  E8M0: 2^(byte-127); 255 is no number
type MXFP4 struct{}

// Kind implements Scheme.
func (MXFP4) Kind() string { return KindMXFP4 }

// CodeBits implements Scheme.
func (MXFP4) CodeBits() int { return 4 }

// Validate implements Scheme.
func (MXFP4) Validate(_, cols int64) error { return validGroups(KindMXFP4, cols, tensor.MXFP4Group) }

// Components implements Scheme.
func (MXFP4) Components(rows, cols int64) []Component {
	return []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{rows, cols / 2}},
		{Name: ComponentScales, DType: "U8", Shape: []int64{rows, cols / tensor.MXFP4Group}},
	}
}

// Decode implements Scheme: value × scale, which is exact but for the smallest of float32.
func (s MXFP4) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	const group = tensor.MXFP4Group
	for i, b := range e.Data[1] {
		if b == 0xff {
			return Invalidf("decode %d rows of %d: scale %d is no number", e.Rows, cols, i)
		}
		scale := [1]float32{}
		tensor.ToFloat32(scale[:], []byte{b}, tensor.F8E8M0)
		tensor.DecodeFP4(dst[i*group:][:group], e.Data[0][i*group/2:], scale[0])
	}
	return nil
}

// validGroups refuses columns that do not divide into groups of a fixed size.
func validGroups(kind string, cols, group int64) error {
	if cols < 1 || cols%group != 0 {
		return Invalidf("decode scheme: %s has groups of %d, which do not divide %d columns", kind, group, cols)
	}
	return nil
}
