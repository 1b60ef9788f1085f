package tensor

import (
	"encoding/binary"
	"math"
)

// lanes is the width of the error sums: one 512-bit register, two 256-bit ones.
const lanes = 16

// roundMagic rounds a float32 of magnitude below 2^22 to an integer, ties to
// even, when added and taken away: the sum has a unit in the last place of 1.
const roundMagic = 0x1.8p23

func roundEven(v float32) float32 { return v + roundMagic - roundMagic }

// codeRange returns the smallest and the largest code of a width.
func codeRange(bits int) (qmin, qmax float32) {
	h := float32(int(1) << (bits - 1))
	return -h, h - 1
}

// encodeGroups is the plain kernel and the oracle of the vector ones.
func encodeGroups(r *GroupResult, src []byte, d DType, rows, cols, group, width int, scale DType) int {
	var (
		half       = float32(int(1)<<width-1) / 2
		qmin, qmax = codeRange(width)
		size       = d.Size()
		rowBytes   = PackedRowBytes(cols, width)
		groups     = cols / group
		x          [256]float32
		codes      = r.scratch(cols)
	)
	for row := range rows {
		var errSum, powSum float64
		for g := range groups {
			at := src[(row*cols+g*group)*size:][:group*size]
			// Magnitudes order like their bits, with NaN and infinity on top.
			var bits uint32
			for i := 0; i < group; i += len(x) {
				n := min(len(x), group-i)
				ToFloat32(x[:n], at[i*size:], d)
				for _, v := range x[:n] {
					bits = max(bits, math.Float32bits(v)&^(1<<31))
				}
			}
			if bits >= 0x7f800000 {
				return row
			}
			top := math.Float32frombits(bits)
			s := storeScale(r.Scales, row*groups+g, top/half, top == 0, scale)
			var e2, p2 [lanes]float32
			for i := 0; i < group; i += len(x) {
				n := min(len(x), group-i) // len(x) is a multiple of lanes
				ToFloat32(x[:n], at[i*size:], d)
				out := codes[g*group+i:][:n]
				for j, v := range x[:n] {
					q := roundEven(clamp(v/s, qmin, qmax))
					out[j] = uint8(int32(q - qmin))
					addSquares(&e2[j%lanes], &p2[j%lanes], v, q, s)
				}
			}
			errSum += float64(addLanes(&e2))
			powSum += float64(addLanes(&p2))
		}
		PackRow(r.Codes[row*rowBytes:][:rowBytes], codes[:cols], width)
		r.setSums(row, errSum, powSum)
	}
	return -1
}

// encodeGroupsAsymmetric is the plain kernel with zero points.
func encodeGroupsAsymmetric(r *GroupResult, src []byte, d DType, rows, cols, group, bits int, scale DType) int {
	var (
		steps      = float32(int(1)<<bits - 1)
		qmin, qmax = codeRange(bits)
		size       = d.Size()
		rowBytes   = PackedRowBytes(cols, bits)
		groups     = cols / group
		x          [256]float32
		codes      = r.scratch(cols)
	)
	for row := range rows {
		var errSum, powSum float64
		for g := range groups {
			at := src[(row*cols+g*group)*size:][:group*size]
			var low, high float32 // the range always includes 0
			for i := 0; i < group; i += len(x) {
				n := min(len(x), group-i)
				ToFloat32(x[:n], at[i*size:], d)
				for _, v := range x[:n] {
					if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
						return row
					}
					low, high = min(low, v), max(high, v)
				}
			}
			s := storeScale(r.Scales, row*groups+g, (high-low)/steps, low == high, scale)
			zp := roundEven(clamp(qmin-float32(low/s), qmin, qmax))
			r.Zeros[row*groups+g] = uint8(int32(zp - qmin))
			var e2, p2 [lanes]float32
			for i := 0; i < group; i += len(x) {
				n := min(len(x), group-i)
				ToFloat32(x[:n], at[i*size:], d)
				out := codes[g*group+i:][:n]
				for j, v := range x[:n] {
					q := roundEven(clamp(float32(v/s)+zp, qmin, qmax))
					out[j] = uint8(int32(q - qmin))
					addSquares(&e2[j%lanes], &p2[j%lanes], v, q-zp, s)
				}
			}
			errSum += float64(addLanes(&e2))
			powSum += float64(addLanes(&p2))
		}
		PackRow(r.Codes[row*rowBytes:][:rowBytes], codes[:cols], bits)
		r.setSums(row, errSum, powSum)
	}
	return -1
}

func clamp(v, low, high float32) float32 {
	if v < low {
		return low
	}
	if v > high {
		return high
	}
	return v
}

// addSquares adds the squares of fma(-q, s, v) and of v to the sums of a lane.
// It is FMA32 three times, written out for speed.
func addSquares(e2, p2 *float32, v, q, s float32) {
	w := float64(v)
	t := w - float64(q)*float64(s)
	e := float32(t)
	if fmaUnsafe(t) {
		e = fma32Odd(-q, s, v)
	}
	t = float64(e)*float64(e) + float64(*e2)
	if sum := float32(t); !fmaUnsafe(t) {
		*e2 = sum
	} else {
		*e2 = fma32Odd(e, e, *e2)
	}
	t = w*w + float64(*p2)
	if sum := float32(t); !fmaUnsafe(t) {
		*p2 = sum
	} else {
		*p2 = fma32Odd(v, v, *p2)
	}
}

func (r *GroupResult) scratch(n int) []byte {
	if cap(r.bytes) < n {
		r.bytes = make([]byte, n)
	}
	return r.bytes[:n]
}

func (r *GroupResult) setSums(row int, errSum, powSum float64) {
	if r.Error != nil {
		r.Error[row] = errSum
	}
	if r.Power != nil {
		r.Power[row] = powSum
	}
}

// addLanes adds the lanes as a tree of distance 8, 4, 2, 1.
func addLanes(v *[lanes]float32) float32 {
	for d := lanes / 2; d > 0; d /= 2 {
		for l := range d {
			v[l] += v[l+d]
		}
	}
	return v[0]
}

// storeScale rounds s to the stored type, writes it as scale i and returns it
// as float32. A scale that cannot be divided by is replaced: that of a group of
// zeros by the type's epsilon, an underflow by the smallest subnormal; an
// overflow by the largest finite value.
func storeScale(dst []byte, i int, s float32, zeros bool, d DType) float32 {
	switch d {
	case BF16:
		h := min(bf16FromFloat32(s), 0x7f7f)
		if zeros {
			h = 0x3c00 // 2^-7
		} else if h == 0 {
			h = 1
		}
		binary.LittleEndian.PutUint16(dst[2*i:], h)
		return bf16ToFloat32(h)
	case F16:
		h := min(f16FromFloat32(s), 0x7bff)
		if zeros {
			h = 0x1400 // 2^-10
		} else if h == 0 {
			h = 1
		}
		binary.LittleEndian.PutUint16(dst[2*i:], h)
		return f16ToFloat32(h)
	}
	u := min(math.Float32bits(s), 0x7f7fffff)
	if zeros {
		u = 0x34000000 // 2^-23
	} else if u == 0 {
		u = 1
	}
	binary.LittleEndian.PutUint32(dst[4*i:], u)
	return math.Float32frombits(u)
}
