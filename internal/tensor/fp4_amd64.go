//go:build amd64 && !noasm

package tensor

// fp4Batch is what the assembly works on: a run of up to 1024 BF16 weights, or a pair of whole ones, in three steps. The first finds the largest magnitude of each
// 16, the second makes scales, the third codes.
type fp4Batch struct {
	src, codes *byte
	blocks     int // of 32 weights
	eights     int // of scales, with some to spare
	global     float32
	flush      float32 // AVX2: quotients below it have a sign; AVX-512: magnitudes above it
	low, high  uint32  // bits of the scales that the inverse serves
	beyond     uint32  // bits of local scales that the plain code has to see
	bad, slow  uint32  // whether some weights are not finite; whether the plain code has to do it

	near uint32 // whether the code for pairs does not serve

	error, power   float32
	error2, power2 float32 // of the second run of a pair

	tops       [2 * fp4Run / NVFP4Group]uint32  // float32 bits
	scale, inv [2 * fp4Run / NVFP4Group]float32 //nolint:unused // the assembly writes and reads them
	zero       [2 * fp4Run / MXFP4Group]uint32  //nolint:unused // MXFP4: an eighth of the scale as BF16, twice
	stored     [2 * fp4Run / NVFP4Group]byte
}

// fp4Low and fp4High bound the scales of NVFP4 for which quotients are made without a division: q0 = x·inv, r = fma(-q0, s, x),
// q = fma(r, inv, q0), with inv the rounded 1/s (Markstein, "Computation of elementary functions on the IBM RISC System/6000
// processor", 1990). q is not always the rounded x/s, but has its code, for a BF16 x:
//
//   - q0 is within 1.5 units of the last place of x/s, and r and inv err by 2^-24 of themselves, so before its last rounding q has x/s
//     with a relative error below 2^-45.
//   - The code changes where the rounded quotient passes a point, which is where x/s passes the midpoint next to it. By enumeration of all
//     significands of x (TestNVFP4Midpoints), no x/s is within 2^-44 of such a midpoint, but for a power of two over
//     an s whose significand is all ones: there the plain code divides.
//   - With s from 2^-90 to 2^10 no step leaves the normal range where |x/s| is above 1/8: the unit of r is at least 2^-149. A smaller
//     quotient has the code of zero whatever its last bits are, and is not so small that it loses its sign.
const (
	fp4Low    = 0x12800000 // 2^-90
	fp4High   = 0x44800000 // 2^10
	fp4Beyond = 0x4f000000 // 2^31
)

// fp4Run encodes a run of one row. It refuses what is not finite.
func (k *Kernels) fp4Run(b *fp4Batch, codes, scales, src []byte, d DType, s fp4Scheme) (errSum, powSum float32, ok bool) {
	if k.set() == scalar || d != BF16 || len(src)%64 != 0 {
		return fp4RunPlain(codes, scales, src, d, s)
	}
	wide := k.isa == avx512
	b.src, b.codes, b.blocks = &src[0], &codes[0], len(src)/64
	if wide {
		fp4TopsAVX512(b)
	} else {
		fp4TopsAVX2(b)
	}
	if s.group == MXFP4Group {
		b.eights = (b.blocks + 7) / 8
		clear(b.tops[2*b.blocks : 16*b.eights])
		mxfp4Scales(b)
		if b.bad != 0 {
			return 0, 0, false
		}
		switch {
		case !wide:
			b.flush = -fp4Flush(d, s)
			mxfp4CodesAVX2(b)
		case b.slow != 0: // no quotient over a scale up to 1 vanishes
			b.flush = fp4Flush(d, s)
			mxfp4CodesFlushAVX512(b)
		default:
			mxfp4CodesAVX512(b)
		}
	} else {
		b.eights = (2*b.blocks + 7) / 8
		clear(b.tops[2*b.blocks : (b.eights+1)/2*16])
		b.global, b.low, b.high, b.beyond = s.global, fp4Low, fp4High, fp4Beyond
		if wide {
			nvfp4ScalesAVX512(b)
		} else {
			nvfp4ScalesAVX2(b)
		}
		switch {
		case b.bad != 0:
			return 0, 0, false
		case b.slow != 0:
			return fp4RunPlain(codes, scales, src, d, s)
		case wide:
			nvfp4CodesAVX512(b)
		default:
			b.flush = -fp4Flush(d, s)
			nvfp4CodesAVX2(b)
		}
	}
	copy(scales, b.stored[:])
	return b.error, b.power, true
}

// fp4Pair encodes two runs of 1024 weights of one row, if they are such that it can; sums holds error and power of the first, then of the second.
//
// The codes of MXFP4 come from the bits of the weights, less the exponent of the scale: exact, where no weight above a quarter of the scale is
// subnormal and scales are up to 1 (beyond, quotients can vanish). For those of NVFP4, q0 = x·inv does, cut to 16 bits: it is within 2^-23 of
// x/s, relatively, so it is on the same side of each point p as x/s, unless x is as near p·s. A BF16 x is not, if the rounded p·s is
// more than eight units of its last place from any float32 whose lower 16 bits are zero. Nor can x/s then be p.
func (k *Kernels) fp4Pair(b *fp4Batch, codes, scales, src []byte, d DType, s fp4Scheme) (sums [4]float32, ok bool) {
	if k.set() == scalar || k.isa != avx512 || d != BF16 {
		return sums, false
	}
	b.src, b.codes, b.blocks = &src[0], &codes[0], len(src)/64
	fp4TopsAVX512(b)
	b.eights = len(scales) / 8
	if s.group == MXFP4Group {
		mxfp4Scales(b)
	} else {
		b.global, b.low, b.high, b.beyond = s.global, fp4Low, fp4High, fp4Beyond
		nvfp4ScalesAVX512(b)
	}
	if b.bad|b.slow|b.near != 0 {
		return sums, false
	}
	if s.group == MXFP4Group {
		mxfp4PairAVX512(b)
	} else {
		nvfp4PairAVX512(b)
	}
	copy(scales, b.stored[:])
	return [4]float32{b.error, b.power, b.error2, b.power2}, true
}
