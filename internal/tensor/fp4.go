package tensor

import (
	"fmt"
	"math"
)

// E2M1 is the 4-bit float of the OCP microscaling specification: a sign, two bits of exponent and one of
// fraction, that is 0, 0.5, 1, 1.5, 2, 3, 4 and 6, and their negatives.

// Columns that share a scale.
const (
	MXFP4Group = 32
	NVFP4Group = 16
)

// nvfp4Zero is the local scale of columns whose own rounds to zero: 0.125.
const nvfp4Zero = 0x20

// FP4Result receives what the encoders of 4-bit floats make of a panel of rows. The caller makes the slices long
// enough; their bytes beyond the panel stay untouched. Error and Power may be nil.
type FP4Result struct {
	// Codes holds rows × cols/2: sign<<3 | index of the magnitude, the even column in the low nibble.
	Codes []byte
	// Scales holds rows × cols/group, a byte each.
	Scales []byte
	// Error and Power hold for each row the sum of (w - w^)² and of w².
	Error, Power []float64
}

// EncodeMXFP4 makes 4-bit floats of rows × cols weights, row-major in type d (F32, F16 or BF16), that share a power
// of two in each 32 columns. It returns the index of the first row that holds a NaN or an infinity, whose outputs and
// all later ones are then unspecified, or -1.
//
// The numbers are those of compressed-tensors, for a largest magnitude top of the 32:
//
//	e    = floor(log2(top)), one more if top's significand is at least 1.75, unless that leaves the range of d
//	byte = max(e - 2 + 127, 0); 0 for top = 0. In F16, whose scales cannot be that small, 127 for top < 0.75 × 2^-14
//	q    = x / 2^(byte-127) in type d, the magnitude at most 6
//	code = q to the nearest, ties to even; the sign is set where q < 0, also if the code's magnitude is 0
//	e    = fma(-w, scale, x) with w the value of the code
//
// The error sum of a row is that of its runs of 1024 columns, each a float32 sum of 16 lanes: lane l takes the
// columns l, l+16, ... of the run by acc = fma(e, e, acc); lanes are added as a tree of distance 8, 4, 2, 1, and the
// sums of the runs go into the row's float64 in order. Power is summed alike over x. All kernels and builds give the
// same bits.
func (k *Kernels) EncodeMXFP4(r *FP4Result, src []byte, d DType, rows, cols int) (badRow int) {
	r.check(src, d, rows, cols, MXFP4Group)
	return k.encodeFP4(r, src, d, rows, cols, fp4Scheme{group: MXFP4Group})
}

// EncodeNVFP4 is [Kernels.EncodeMXFP4] with an E4M3 scale for each 16 columns, and one global scale, finite and
// above 0, for all:
//
//	byte  = E4M3(global × d(top / 6)), at most 448, where d() rounds to that type; 0.125 for what rounds to 0
//	scale = byte's value / global in float32
//	q     = x / scale in float32
func (k *Kernels) EncodeNVFP4(r *FP4Result, src []byte, d DType, rows, cols int, global float32) (badRow int) {
	r.check(src, d, rows, cols, NVFP4Group)
	if !(global > 0) || math.IsInf(float64(global), 0) {
		panic(fmt.Sprintf("tensor: global scale %v", global))
	}
	return k.encodeFP4(r, src, d, rows, cols, fp4Scheme{group: NVFP4Group, global: global})
}

func (r *FP4Result) check(src []byte, d DType, rows, cols, group int) {
	checkStored("encode", d)
	checkShape(rows, cols, group)
	need := func(what string, have, want int) {
		if have < want {
			panic(fmt.Sprintf("tensor: encode %d × %d as 4-bit floats: %s holds %d, want %d", rows, cols, what, have, want))
		}
	}
	need("source bytes", len(src), rows*cols*d.Size())
	need("codes", len(r.Codes), rows*cols/2)
	need("scales", len(r.Scales), rows*cols/group)
	if r.Error != nil {
		need("error", len(r.Error), rows)
	}
	if r.Power != nil {
		need("power", len(r.Power), rows)
	}
}

func (r *FP4Result) setSums(row int, errSum, powSum float64) {
	if r.Error != nil {
		r.Error[row] = errSum
	}
	if r.Power != nil {
		r.Power[row] = powSum
	}
}

// fp4Scheme says how scales are made: powers of two for groups of 32, else E4M3 under global.
type fp4Scheme struct {
	group  int
	global float32
}

// fp4Run is the number of columns whose errors are summed in float32.
const fp4Run = 1024

func (k *Kernels) encodeFP4(r *FP4Result, src []byte, d DType, rows, cols int, s fp4Scheme) int {
	size := d.Size()
	var b fp4Batch
	tries := 8 // at pairs of runs: what is not for them seldom comes alone
	for row := range rows {
		var errSum, powSum float64
		for at := 0; at < cols; at += fp4Run {
			n := min(fp4Run, cols-at)
			i := row*cols + at
			if m := 2 * fp4Run; cols-at >= m && tries > 0 {
				if sums, ok := k.fp4Pair(&b, r.Codes[i/2:][:m/2], r.Scales[i/s.group:][:m/s.group], src[i*size:][:m*size], d, s); ok {
					errSum = errSum + float64(sums[0]) + float64(sums[2])
					powSum = powSum + float64(sums[1]) + float64(sums[3])
					at += fp4Run
					continue
				}
				tries--
			}
			e, p, ok := k.fp4Run(&b, r.Codes[i/2:][:n/2], r.Scales[i/s.group:][:n/s.group], src[i*size:][:n*size], d, s)
			if !ok {
				return row
			}
			errSum += float64(e)
			powSum += float64(p)
		}
		r.setSums(row, errSum, powSum)
	}
	return -1
}

// fp4RunPlain encodes a run of one row, and is the oracle of the vector kernels. It refuses what is not finite.
func fp4RunPlain(codes, scales, src []byte, d DType, s fp4Scheme) (errSum, powSum float32, ok bool) {
	var e2, p2 [lanes]float32
	var x [MXFP4Group]float32
	x16 := x[:s.group]
	flush := fp4Flush(d, s)
	for g := range scales {
		at := src[g*s.group*d.Size():]
		top := maxMagnitude(at[:s.group*d.Size()], d)
		if top >= 0x7f800000 {
			return 0, 0, false
		}
		var scale float32
		scales[g], scale = s.scale(top, d)
		ToFloat32(x16, at, d)
		out := codes[g*s.group/2:]
		for i, v := range x16 {
			q := v / scale
			code, w := toE2M1(math.Float32frombits(math.Float32bits(q) &^ (1 << 31)))
			if q < -flush {
				code |= 8
			}
			if v < 0 {
				w = -w
			}
			addSquares(&e2[i%lanes], &p2[i%lanes], v, w, scale)
			if i%2 == 0 {
				out[i/2] = code
			} else {
				out[i/2] |= code << 4
			}
		}
	}
	return addLanes(&e2), addLanes(&p2), true
}

// fp4Flush is the magnitude up to which a quotient of type d is rounded to zero, and loses its sign. The quotients of NVFP4 are
// float32 whatever d is, and those round by themselves.
func fp4Flush(d DType, s fp4Scheme) float32 {
	switch {
	case s.group == NVFP4Group || d == F32:
		return 0
	case d == F16:
		return 0x1p-25
	}
	return 0x1p-134
}

// scale makes a scale of the bits of the largest magnitude in type d: as stored, and as a float32.
func (s fp4Scheme) scale(top uint32, d DType) (stored byte, value float32) {
	if s.group == MXFP4Group {
		if d == F16 && top < 0x38400000 { // 0.75 × 2^-14
			return 127, 1
		}
		e := (top + 1<<21) >> 23 // a significand of 1.75 carries
		e = min(e, 254)
		if d == F16 {
			e = min(e, 127+15)
		}
		stored = byte(max(e, 2) - 2)
		return stored, e8m0ToFloat32(stored)
	}
	sixth := roundTo(math.Float32frombits(top)/6, d)
	stored = ToE4M3(float32(s.global * sixth))
	if stored == 0 {
		stored = nvfp4Zero
	}
	return stored, e4m3ToFloat32(stored) / s.global
}

// roundTo rounds v to the nearest number of type d.
func roundTo(v float32, d DType) float32 {
	switch d {
	case BF16:
		return bf16ToFloat32(bf16FromFloat32(v))
	case F16:
		return f16ToFloat32(f16FromFloat32(v))
	}
	return v
}

// toE2M1 rounds a, which is not negative, to the nearest magnitude, ties to even, with 6 for all beyond it. Adding a
// number whose unit in the last place is the distance of magnitudes around a does the rounding; that number's low
// bits are chosen so that those of the sum are the code: they count magnitudes, of which there are two
// below 1 and two in each power of two above.
func toE2M1(a float32) (code uint8, value float32) {
	a = min(a, 6)
	e := max(math.Float32bits(a)>>23, 127)
	c := math.Float32frombits((e+22)<<23 | 1<<22 | 2*(e-127))
	t := a + c
	return uint8(math.Float32bits(t) & 7), t - c
}

// DecodeFP4 writes scale × value of each code, rounded once, to dst; codes holds an even number of them, len(dst) in all.
func DecodeFP4(dst []float32, codes []byte, scale float32) {
	var v [16]float32
	for i, m := range [8]float32{0, 0.5, 1, 1.5, 2, 3, 4, 6} {
		v[i], v[8+i] = m*scale, -m*scale
	}
	for i, b := range codes[:len(dst)/2] {
		dst[2*i], dst[2*i+1] = v[b&15], v[b>>4]
	}
}
