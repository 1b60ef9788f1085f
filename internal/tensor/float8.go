package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Largest finite values of the 8-bit floats.
const (
	MaxE4M3 = 448
	MaxE5M2 = 57344
)

// ToE4M3 rounds v to the E4M3 type of the OCP 8-bit specification, nearest with ties to even. Magnitudes beyond 448, infinities
// included, become 448; NaN becomes 0x7f.
func ToE4M3(v float32) byte { return toFloat8(v, 3, -6, MaxE4M3, 0x7f) }

// ToE5M2 rounds v to the E5M2 type of the same specification, with 57344 for all beyond it; NaN becomes 0x7f.
func ToE5M2(v float32) byte { return toFloat8(v, 2, -14, MaxE5M2, 0x7f) }

// toFloat8 rounds to a float of mantissa stored bits whose smallest normal number is 2^low.
func toFloat8(v float32, mantissa, low int, top float32, nan byte) byte {
	u := math.Float32bits(v)
	sign := byte(u >> 24 & 0x80)
	u &= 0x7fffffff
	if u > 0x7f800000 {
		return nan | sign
	}
	a := min(math.Float32frombits(u), top)
	// Adding a power of two whose unit in the last place is that of the result rounds to it, and leaves the count of
	// those units in the low bits.
	e := max(math.Float32bits(a)>>23, uint32(127+low))
	c := (e + uint32(23-mantissa)) << 23
	n := math.Float32bits(a+math.Float32frombits(c)) - c // up to twice 2^mantissa: the carry goes into the exponent
	return sign | byte((e-uint32(127+low))<<mantissa+n)
}

// MaxMagnitudes raises dst, one entry for each run of group elements of src, to the largest magnitude of the run, as bits of a float32:
// infinities and NaN are at 0x7f800000 and above. It panics when src is not len(dst) runs or d is not F32, F16 or BF16.
func (k *Kernels) MaxMagnitudes(dst []uint32, src []byte, d DType, group int) {
	checkStored("look for magnitudes in", d)
	checkShape(len(dst), group, max(group, 1))
	size := group * d.Size()
	if len(src) < len(dst)*size {
		panic(fmt.Sprintf("tensor: %d runs of %d elements in %d bytes", len(dst), group, len(src)))
	}
	if len(dst) == 0 || group == 0 {
		return
	}
	if k.maxMagnitudes(dst, src, d, group) {
		return
	}
	for i := range dst {
		dst[i] = max(dst[i], maxMagnitude(src[i*size:][:size], d))
	}
}

// maxMagnitude is the plain kernel.
func maxMagnitude(src []byte, d DType) uint32 {
	var bits uint32
	switch d {
	case BF16:
		for ; len(src) >= 2; src = src[2:] {
			bits = max(bits, uint32(binary.LittleEndian.Uint16(src)&0x7fff)<<16)
		}
	case F16:
		for ; len(src) >= 2; src = src[2:] {
			bits = max(bits, uint32(binary.LittleEndian.Uint16(src)&0x7fff)) // order as their float32 do
		}
		bits = math.Float32bits(f16ToFloat32(uint16(bits)))
	default:
		for ; len(src) >= 4; src = src[4:] {
			bits = max(bits, binary.LittleEndian.Uint32(src)&0x7fffffff)
		}
	}
	return bits
}

// EncodeFloat8 makes 8-bit floats of type e (F8E4M3 or F8E5M2) of a row of finite weights in type d (F32, F16 or BF16), whose runs of
// len(codes)/len(scales) elements share a scale, a positive number. It returns the sums of (w − ŵ)² and of w² over the row.
//
// The numbers (compressed-tensors' rules, which divides in the type of the weights):
//
//	y = clamp(stored(float32(x/scale)), -max, max), rounded to float32 and to the type d
//	code = y rounded to e, ties to even
//	error = fma(-value(code), scale, x)
//
// The sums have 32 float32 lanes: lane l takes the elements l, l+32, ... of the row by acc = fma(error, error, acc). Lanes 2l and 2l+1
// are added, and then the 16 of those as a tree of distance 8, 4, 2, 1. All kernels and builds give the same bits.
//
// It panics when the slices do not fit each other.
func (k *Kernels) EncodeFloat8(codes, src []byte, d DType, scales []float32, e DType) (errSum, powSum float64) {
	checkStored("encode", d)
	if e != F8E4M3 && e != F8E5M2 {
		panic(fmt.Sprintf("tensor: encode as %v: want F8_E4M3 or F8_E5M2", e))
	}
	if len(codes) == 0 {
		return 0, 0
	}
	if len(scales) == 0 || len(codes)%len(scales) != 0 || len(src) < len(codes)*d.Size() {
		panic(fmt.Sprintf("tensor: encode %d floats of %d scales from %d bytes", len(codes), len(scales), len(src)))
	}
	if e == F8E4M3 {
		if errSum, powSum, ok := k.encodeE4M3(codes, src, d, scales); ok {
			return errSum, powSum
		}
	}
	return encodeFloat8(codes, src, d, scales, e)
}

// float8Lanes is the width of the sums: one 512-bit register each of even and of odd elements.
const float8Lanes = 2 * lanes

// encodeFloat8 is the plain kernel and the oracle of the vector ones.
func encodeFloat8(codes, src []byte, d DType, scales []float32, e DType) (errSum, powSum float64) {
	var (
		e2, p2 [float8Lanes]float32
		x      [256]float32
		group  = len(codes) / len(scales)
		size   = d.Size()
		value  = Float8Values(e)
		limit  = float32(MaxE4M3)
		encode = ToE4M3
	)
	if e == F8E5M2 {
		limit, encode = MaxE5M2, ToE5M2
	}
	for at := 0; at < len(codes); at += len(x) {
		n := min(len(x), len(codes)-at)
		ToFloat32(x[:n], src[at*size:], d)
		for i, v := range x[:n] {
			s := scales[(at+i)/group]
			y := v / s
			switch d {
			case BF16:
				y = bf16ToFloat32(bf16FromFloat32(y))
			case F16:
				y = f16ToFloat32(f16FromFloat32(y))
			}
			c := encode(clamp(y, -limit, limit))
			codes[at+i] = c
			addSquares(&e2[i%float8Lanes], &p2[i%float8Lanes], v, value[c], s) // len(x) is a multiple of float8Lanes
		}
	}
	return float64(addFloat8Lanes(&e2)), float64(addFloat8Lanes(&p2))
}

func addFloat8Lanes(v *[float8Lanes]float32) float32 {
	var half [lanes]float32
	for l := range half {
		half[l] = v[2*l] + v[2*l+1]
	}
	return addLanes(&half)
}

// Float8Values lists the values of all codes of F8E4M3 or F8E5M2.
func Float8Values(d DType) *[256]float32 {
	var t [256]float32
	var b [256]byte
	for i := range b {
		b[i] = byte(i)
	}
	ToFloat32(t[:], b[:], d)
	return &t
}

// DecodeFloat8 multiplies 8-bit floats, whose values are listed, by one scale, each product rounded once. It returns the place of
// the first code that is not finite, or -1.
func DecodeFloat8(dst []float32, codes []byte, values *[256]float32, scale float32) (bad int) {
	bad = -1
	for i, c := range codes {
		v := values[c]
		if bad < 0 && math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			bad = i
		}
		dst[i] = v * scale
	}
	return bad
}
