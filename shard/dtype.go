package shard

import "math"

// DType is the name that safetensors gives an element type, "BF16" for example.
type DType string

// The element types of safetensors.
const (
	F64    DType = "F64"
	F32    DType = "F32"
	F16    DType = "F16"
	BF16   DType = "BF16"
	F8E4M3 DType = "F8_E4M3"
	F8E5M2 DType = "F8_E5M2"
	F8E8M0 DType = "F8_E8M0"
	I64    DType = "I64"
	I32    DType = "I32"
	I16    DType = "I16"
	I8     DType = "I8"
	U64    DType = "U64"
	U32    DType = "U32"
	U16    DType = "U16"
	U8     DType = "U8"
	Bool   DType = "BOOL"
)

// Size returns the bytes of one element, and 0 for a name that is no element type.
func (d DType) Size() int64 {
	switch d {
	case F64, I64, U64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case F8E4M3, F8E5M2, F8E8M0, I8, U8, Bool:
		return 1
	}
	return 0
}

// Float reports whether elements are floating-point numbers.
func (d DType) Float() bool {
	switch d {
	case F64, F32, F16, BF16, F8E4M3, F8E5M2, F8E8M0:
		return true
	}
	return false
}

// elements multiplies the dimensions of a shape. It fails for a negative dimension and when the product of the dimensions that are
// not zero does not fit, so that any partial product a reader may form of a legal shape fits too.
func elements(shape []int64) (n int64, ok bool) {
	n = 1
	empty := false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, false
		case d == 0:
			empty = true
		case n > math.MaxInt64/d:
			return 0, false
		default:
			n *= d
		}
	}
	if empty {
		return 0, true
	}
	return n, true
}

// byteLength returns the bytes of a tensor, and false when they do not fit in 63 bits.
func byteLength(d DType, shape []int64) (int64, bool) {
	n, ok := elements(shape)
	size := d.Size()
	if !ok || size == 0 || n > math.MaxInt64/size {
		return 0, false
	}
	return n * size, true
}
