package compress

import (
	"encoding/binary"
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// KindNVFP4 is the kind of NVFP4.
const KindNVFP4 = "nvfp4"

// NVFP4 is the scheme of 4-bit floats (E2M1) with an 8-bit float as the scale of each 16 columns and one scale for all of those, as
// compressed-tensors stores it: w ≈ value · (scale / global).
//
//	codes   U8 [rows, cols/2]        as in MXFP4
//	scales  F8_E4M3 [rows, cols/16]
//	global  F32 [1], whole           divides; the same for linears that engines fuse
type NVFP4 struct{}

// Kind implements Scheme.
func (NVFP4) Kind() string { return KindNVFP4 }

// CodeBits implements Scheme.
func (NVFP4) CodeBits() int { return 4 }

// Validate implements Scheme.
func (NVFP4) Validate(_, cols int64) error { return validGroups(KindNVFP4, cols, tensor.NVFP4Group) }

// Components implements Scheme.
func (NVFP4) Components(rows, cols int64) []Component {
	return []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{rows, cols / 2}},
		{Name: ComponentScales, DType: "F8_E4M3", Shape: []int64{rows, cols / tensor.NVFP4Group}},
		{Name: ComponentGlobal, DType: "F32", Shape: []int64{1}, Whole: true},
	}
}

// Decode implements Scheme: scale / global is rounded to float32, and its product with the value again.
func (s NVFP4) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	global := math.Float32frombits(binary.LittleEndian.Uint32(e.Data[2]))
	if !(global > 0) || math.IsInf(float64(global), 0) {
		return Invalidf("decode %d rows of %d: the global scale is %v, not a finite number above 0", e.Rows, cols, global)
	}
	var local [256]float32
	tensor.ToFloat32(local[:], everyByte(), tensor.F8E4M3)
	const group = tensor.NVFP4Group
	for i, b := range e.Data[1] {
		if b&0x7f == 0x7f {
			return Invalidf("decode %d rows of %d: scale %d is no number", e.Rows, cols, i)
		}
		tensor.DecodeFP4(dst[i*group:][:group], e.Data[0][i*group/2:], local[b]/global)
	}
	return nil
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}
