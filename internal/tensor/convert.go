package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// ToFloat32 converts len(dst) elements of a float type to float32. All types
// but F64 convert exactly; F64 is rounded to nearest, ties to even. It panics
// when src is too short or d is not a float type.
func ToFloat32(dst []float32, src []byte, d DType) {
	if !d.Float() {
		panic(fmt.Sprintf("tensor: convert %v to float32: not a float type", d))
	}
	src = src[:len(dst)*d.Size()]
	switch d {
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = f16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BF16:
		n := widenBF16(dst, src)
		for i := n; i < len(dst); i++ {
			dst[i] = bf16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case F8E4M3:
		for i := range dst {
			dst[i] = e4m3ToFloat32(src[i])
		}
	case F8E5M2:
		for i := range dst {
			// E5M2 is the high byte of a binary16.
			dst[i] = f16ToFloat32(uint16(src[i]) << 8)
		}
	case F8E8M0:
		for i := range dst {
			dst[i] = e8m0ToFloat32(src[i])
		}
	}
}

func bf16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// f16ToFloat32 converts IEEE binary16. A NaN keeps its sign and payload and
// becomes quiet, as the vector instruction does it.
func f16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch {
	case exp == 0x1f && frac != 0:
		return math.Float32frombits(sign | 0x7fc00000 | frac<<13)
	case exp == 0x1f:
		return math.Float32frombits(sign | 0x7f800000)
	case exp == 0:
		// frac * 2^-24 is exact; the sign bit goes in afterwards for -0.
		return math.Float32frombits(math.Float32bits(float32(frac)*0x1p-24) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// e4m3ToFloat32 converts the E4M3 type of the OCP 8-bit specification: no
// infinities, all-ones is NaN, largest value 448.
func e4m3ToFloat32(b byte) float32 {
	sign := uint32(b&0x80) << 24
	exp, frac := uint32(b>>3)&0xf, uint32(b)&7
	switch {
	case exp == 0xf && frac == 7:
		return math.Float32frombits(sign | 0x7fc00000)
	case exp == 0:
		return math.Float32frombits(math.Float32bits(float32(frac)*0x1p-9) | sign)
	}
	return math.Float32frombits(sign | (exp+120)<<23 | frac<<20)
}

// e8m0ToFloat32 converts the exponent-only scale type of the OCP microscaling
// specification: 2^(b-127), 255 is NaN.
func e8m0ToFloat32(b byte) float32 {
	switch b {
	case 0xff:
		return math.Float32frombits(0x7fc00000)
	case 0:
		return 0x1p-127 // a subnormal float32
	}
	return math.Float32frombits(uint32(b) << 23)
}

// FromFloat32 rounds src to F32, BF16 or F16, nearest with ties to even, and
// writes len(src) little-endian elements. Overflow gives an infinity, NaN stays
// NaN and is quiet. It panics for any other type or when dst is too short.
func FromFloat32(dst []byte, src []float32, d DType) {
	switch d {
	case F32:
		for i, v := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case BF16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], bf16FromFloat32(v))
		}
	case F16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], f16FromFloat32(v))
		}
	default:
		panic(fmt.Sprintf("tensor: convert float32 to %v: only F32, BF16 and F16 can be written", d))
	}
}

func bf16FromFloat32(v float32) uint16 {
	u := math.Float32bits(v)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

func f16FromFloat32(v float32) uint16 {
	u := math.Float32bits(v)
	sign := uint16(u>>16) & 0x8000
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00 | uint16(u>>13)&0x3ff
	case u >= 0x47800000: // 65536 and up
		return sign | 0x7c00
	case u < 0x38800000: // below 2^-14: subnormal, spaced 2^-24
		// Adding 0.5 leaves the multiple of 2^-24 in the low bits, rounded to
		// nearest even by the addition itself.
		r := math.Float32frombits(u) + 0.5
		return sign | uint16(math.Float32bits(r)-math.Float32bits(0.5))
	}
	// A carry out of the fraction moves into the exponent, up to infinity.
	u += 0xfff + u>>13&1
	return sign | uint16((u-112<<23)>>13)
}
