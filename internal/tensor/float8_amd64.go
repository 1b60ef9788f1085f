//go:build amd64 && !noasm

package tensor

// float8Row is what the assembly makes 8-bit floats of: groups runs of blocks × 32 elements, each run with a scale.
type float8Row struct {
	src, codes     *byte
	scales         *float32
	groups, blocks int
	ahead          int // distance of the prefetch in bytes, see batch
	sums           [2]float32
	inverse, split [8]float32 //nolint:unused // the assembly writes and reads them
}

// Quotients of BF16 and F16 come from inv, the rounded inverse of the scale, and of F32 from a division. With p bits of precision, 8 or
// 11, and c = 2^(24-p)+1, the steps are
//
//	a = x·(c·inv);  b = fma(x, inv, -a);  y = a + b
//
// the splitting of Veltkamp and Dekker (Dekker, "A floating-point technique for extending the available precision", 1971), whose first
// two steps leave x·inv rounded to p bits: a is a multiple of the unit that the rounding of b cuts off at. It is x/s rounded to p bits
// because neither lies near a midpoint m between two numbers of p bits: m has p+1 bits, the last one odd, so x = ms would need p+1 bits,
// too, and cannot be; and x and ms, multiples of one unit of which ms has less than 2^(2p+1), are more than 2^-23 of each other
// apart, while inv is within 2^-24 of 1/s. The float32 of x/s, which the plain code rounds a second time, is within 2^-24 as well.
//
// Between these scales neither inv nor c·inv leaves the normal numbers. A quotient for which a is infinite makes y not a number, and
// the minimum of it and the largest E4M3 is the latter.
const (
	float8Low  = 0x1p-108
	float8High = 0x1p126
)

// float8Ahead is a distance at which the next rows have come from memory when the first step needs them, see batch.
const float8Ahead = 24 << 10

func (k *Kernels) maxMagnitudes(dst []uint32, src []byte, d DType, group int) bool {
	if k.set() == scalar || group%32 != 0 {
		return false
	}
	wide := k.isa == avx512
	to, from, groups, blocks := &dst[0], &src[0], len(dst), group/32
	switch {
	case d == BF16 && wide:
		magnitudesBF16AVX512(to, from, groups, blocks)
	case d == BF16:
		magnitudesBF16AVX2(to, from, groups, blocks)
	case d == F16 && wide:
		magnitudesF16AVX512(to, from, groups, blocks)
	case d == F16:
		magnitudesF16AVX2(to, from, groups, blocks)
	case wide:
		magnitudesF32AVX512(to, from, groups, blocks)
	default:
		magnitudesF32AVX2(to, from, groups, blocks)
	}
	return true
}

func (k *Kernels) encodeE4M3(codes, src []byte, d DType, scales []float32) (errSum, powSum float64, ok bool) {
	group := len(codes) / len(scales)
	if k.set() == scalar || group%32 != 0 {
		return 0, 0, false
	}
	for _, s := range scales {
		if !(s >= float8Low && s <= float8High) {
			return 0, 0, false
		}
	}
	r := float8Row{
		src: &src[0], codes: &codes[0], scales: &scales[0], groups: len(scales), blocks: group / 32, ahead: float8Ahead,
	}
	wide := k.isa == avx512
	switch {
	case d == BF16 && wide:
		e4m3BF16AVX512(&r)
	case d == BF16:
		e4m3BF16AVX2(&r)
	case d == F16 && wide:
		e4m3F16AVX512(&r)
	case d == F16:
		e4m3F16AVX2(&r)
	case wide:
		e4m3F32AVX512(&r)
	default:
		e4m3F32AVX2(&r)
	}
	return float64(r.sums[0]), float64(r.sums[1]), true
}
