//go:build amd64 && !noasm

package tensor

import (
	"math"
	"math/bits"

	"golang.org/x/sys/cpu"
)

//go:generate go run ./internal/kerngen

func best() isa {
	x := &cpu.X86
	switch {
	case !x.HasAVX2 || !x.HasFMA || !x.HasF16C:
		return scalar
	case x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ:
		return avx512
	}
	return avx2
}

// serves reports whether the vector code covers the shape. At one bit the offset
// is odd and would turn the rounding of ties around.
func (k *Kernels) serves(group, bits int) bool {
	return k.set() != scalar && group%32 == 0 && bits > 1
}

// batchGroups is the number of groups that share one call of each step.
const batchGroups = 32

// batchBytes of source go through all steps before the next ones do, to be read
// from the first-level cache the second time.
const batchBytes = 16 << 10

// batch is what the assembly works on: up to 32 groups, in three steps. The
// first finds the magnitudes, the second makes the scales of all groups at once
// (a division takes as long for eight as for one), the third makes the codes.
type batch struct {
	src, codes    *byte
	groups, group int
	// ahead is the distance of the prefetch in bytes. Two batches: the first step
	// of the next batch reads faster than memory can follow, so what it reads must
	// have been asked for during the step before. One batch costs a tenth of the
	// speed, none nearly half.
	ahead int

	half       float32 // (2^bits-1)/2
	magic      float32 // roundMagic + 2^(bits-1): the sum's low bits are the code
	tiny, zero uint32  // bits of the smallest scale; of it exclusive-or epsilon
	low, high  uint32  // bits of the scales that the inverse serves
	bad, slow  uint32  // groups that are not finite; that need a division

	absmax     [batchGroups]uint32         // float32 bits
	scale, inv [batchGroups]float32        //nolint:unused // the assembly writes and reads them
	sums       [batchGroups + 1][2]float32 // of errors and of powers; one to spare
	stored     [4 * batchGroups]byte

	qmin, qmax [8]float32
}

// inverseLow and inverseHigh bound the scales for which q is made without a
// division: q0 = x*inv, r = fma(-q0, s, x), q = fma(r, inv, q0), with inv the
// rounded 1/s (Markstein, "Computation of elementary functions on the IBM
// RISC System/6000 processor", 1990). Why q is then the rounded x/s, for a
// stored s of at most 11 significant bits and |x/s| >= 0.49:
//
//   - q0 = x/s (1+d) and inv = (1+e)/s with |d| < 2^-22.9, |e| <= 2^-24, and r
//     is -xd with relative error at most 2^-24, so before its last rounding the
//     second fma has x/s (1+f) with |f| < 2^-45.
//   - x/s is no midpoint m of two float32, since m*s has more bits than x; and
//     if not equal, x and m*s are 2^-36 of each other apart, because both are
//     multiples of a unit that is 2^-36 of them. So no midpoint lies between.
//   - With s from 2^-100 to 2^100 no step leaves the normal range: the unit of
//     r is at least 2^-136.
//
// A smaller |x/s| gives |q| < 1/2 by the same bounds, and the code of zero. F32
// scales have too many bits for the second point, and always divide.
//
// These kernels have no lower clamp either: a scale that is normal and was not
// replaced is within 2^-8 of absmax/half, so |x/s| < half*(1+2^-7.9), which never
// rounds below qmin. Subnormal and replaced scales divide too.
const (
	inverseLow  = 0x0d800000 // 2^-100
	inverseHigh = 0x71800000 // 2^100
)

func (b *batch) setScaleType(d DType) {
	epsilon := uint32(0)
	switch d {
	case BF16:
		b.tiny, epsilon = 0x00010000, 0x3c000000 // 2^-133, 2^-7
	case F16:
		b.tiny, epsilon = 0x33800000, 0x3a800000 // 2^-24, 2^-10
	case F32:
		b.tiny, epsilon = 1, 0x34000000 // 2^-149, 2^-23
	}
	b.zero = b.tiny ^ epsilon
	b.low, b.high = inverseLow, inverseHigh
	switch d {
	case F16: // normal and not replaced
		b.low, b.high = 0x38800000, 0x477fc000 // 2^-14, 65472
	case F32: // never
		b.low = math.MaxInt32
	}
}

func (k *Kernels) encodeVector(r *GroupResult, src []byte, d DType, rows, cols, group, width int, scale DType) int {
	var (
		groups   = cols / group
		total    = rows * groups
		size     = group * d.Size()
		perBatch = min(max(batchBytes/size, 2), batchGroups)
		stored   = scale.Size()
		scratch  []byte
		b        batch
	)
	if width != 4 && width != 8 {
		scratch = r.scratch(perBatch * group)
	}
	b.group, b.ahead = group, 2*perBatch*size
	b.half = float32(int(1)<<width-1) / 2
	qmin, qmax := codeRange(width)
	b.magic = roundMagic - qmin
	b.setScaleType(scale)
	for i := range b.qmin {
		b.qmin[i], b.qmax[i] = qmin, qmax
	}
	var errSum, powSum float64
	for first, row, left := 0, 0, groups; first < total; first += b.groups {
		b.groups, b.src = min(perBatch, total-first), &src[first*size]
		clear(b.absmax[b.groups:])
		k.absmax(&b, d)
		switch scale {
		case BF16:
			scalesBF16(&b)
		case F16:
			scalesF16(&b)
		case F32:
			scalesF32(&b)
		}
		if b.bad != 0 {
			return (first + bits.TrailingZeros32(b.bad)) / groups
		}
		copy(r.Scales[first*stored:(first+b.groups)*stored], b.stored[:])
		// A group is a multiple of 32 codes, hence whole words.
		to := r.Codes[first*group*width/8:]
		if scratch != nil {
			b.codes = &scratch[0]
			k.bytes(&b, d)
			PackRow(to, scratch[:b.groups*group], width)
		} else {
			b.codes = &to[0]
			if width == 4 {
				k.nibbles(&b, d)
			} else {
				k.bytes(&b, d)
			}
		}
		for i := range b.groups {
			errSum += float64(b.sums[i][0])
			powSum += float64(b.sums[i][1])
			if left--; left == 0 {
				r.setSums(row, errSum, powSum)
				row, left, errSum, powSum = row+1, groups, 0, 0
			}
		}
	}
	return -1
}

func (k *Kernels) absmax(b *batch, d DType) {
	wide := k.isa == avx512
	switch {
	case d == BF16 && wide:
		absmaxBF16AVX512(b)
	case d == BF16:
		absmaxBF16AVX2(b)
	case d == F16 && wide:
		absmaxF16AVX512(b)
	case d == F16:
		absmaxF16AVX2(b)
	case wide:
		absmaxF32AVX512(b)
	default:
		absmaxF32AVX2(b)
	}
}

func (k *Kernels) nibbles(b *batch, d DType) {
	wide, divide := k.isa == avx512, b.slow != 0
	switch {
	case d == BF16 && wide && divide:
		nibblesDivideBF16AVX512(b)
	case d == BF16 && wide:
		nibblesBF16AVX512(b)
	case d == BF16 && divide:
		nibblesDivideBF16AVX2(b)
	case d == BF16:
		nibblesBF16AVX2(b)
	case d == F16 && wide && divide:
		nibblesDivideF16AVX512(b)
	case d == F16 && wide:
		nibblesF16AVX512(b)
	case d == F16 && divide:
		nibblesDivideF16AVX2(b)
	case d == F16:
		nibblesF16AVX2(b)
	case wide && divide:
		nibblesDivideF32AVX512(b)
	case wide:
		nibblesF32AVX512(b)
	case divide:
		nibblesDivideF32AVX2(b)
	default:
		nibblesF32AVX2(b)
	}
}

func (k *Kernels) bytes(b *batch, d DType) {
	wide, divide := k.isa == avx512, b.slow != 0
	switch {
	case d == BF16 && wide && divide:
		bytesDivideBF16AVX512(b)
	case d == BF16 && wide:
		bytesBF16AVX512(b)
	case d == BF16 && divide:
		bytesDivideBF16AVX2(b)
	case d == BF16:
		bytesBF16AVX2(b)
	case d == F16 && wide && divide:
		bytesDivideF16AVX512(b)
	case d == F16 && wide:
		bytesF16AVX512(b)
	case d == F16 && divide:
		bytesDivideF16AVX2(b)
	case d == F16:
		bytesF16AVX2(b)
	case wide && divide:
		bytesDivideF32AVX512(b)
	case wide:
		bytesF32AVX512(b)
	case divide:
		bytesDivideF32AVX2(b)
	default:
		bytesF32AVX2(b)
	}
}

// widenBF16 converts a prefix of dst and returns its length. Every kernel gives
// the same bits, so this needs no choice by the caller.
func widenBF16(dst []float32, src []byte) int {
	blocks := len(dst) / 32
	if blocks == 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	widenBF16AVX2(&dst[0], &src[0], blocks)
	return blocks * 32
}
