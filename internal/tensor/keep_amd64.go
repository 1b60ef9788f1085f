//go:build amd64 && !noasm

package tensor

import "golang.org/x/sys/cpu"

// keepBatch is what the assembly works on: a row of whole blocks of 32 BF16 columns.
type keepBatch struct {
	src, mask, kept *byte
	blocks          int
	step            int    // bytes that are kept of 8 columns
	below           uint32 // the most that the count comes to for a column that is not kept, twice 16 bits
	bad             uint32 // set unless all are finite
	error, power    float64
}

// keepOver is how much the assembly may write behind what is kept of a row: it stores 16 or 64 bytes at a time.
const keepOver = 64

// keepLoop is a choice of assembly.
type keepLoop int

const (
	keepNone keepLoop = iota
	keepAVX2
	keepAVX512
	keepVBMI2 // AVX-512 with the instructions that compress words
)

func (k *Kernels) keepLoop() keepLoop {
	switch k.set() {
	case avx2:
		return keepAVX2
	case avx512:
		if cpu.X86.HasAVX512VBMI2 {
			return keepVBMI2
		}
		return keepAVX512
	}
	return keepNone
}

// keepVector keeps the largest of a row with vector code; served is false where there is none for it.
func (k *Kernels) keepVector(r *keepRow) (finite, served bool) { return r.vector(k.keepLoop()) }

func (r *keepRow) vector(loop keepLoop) (finite, served bool) {
	cols := len(r.src) / 2
	if loop == keepNone || r.d != BF16 || r.m != 4 && r.m != 8 || cols == 0 || cols%32 != 0 {
		return false, false
	}
	kept := r.kept[:cap(r.kept)] // of the panel: later rows are written later
	own := len(kept)-len(r.kept) < keepOver
	if own {
		kept = make([]byte, len(r.kept)+keepOver)
	}
	b := keepBatch{
		src: &r.src[0], mask: &r.mask[0], kept: &kept[0], blocks: cols / 32, step: 16 * r.n / r.m,
		// Minus one for each column that goes before; each of the m/2-1 comparisons that are turned back counts one too few.
		below: uint32(uint16(r.m/2-1-r.n)) * 0x10001,
	}
	switch four := r.m == 4; {
	case loop == keepVBMI2 && four:
		keep4VBMI2(&b)
	case loop == keepVBMI2:
		keep8VBMI2(&b)
	case loop == keepAVX512 && four:
		keep4AVX512(&b)
	case loop == keepAVX512:
		keep8AVX512(&b)
	case four:
		keep4AVX2(&b)
	default:
		keep8AVX2(&b)
	}
	if own {
		copy(r.kept, kept)
	}
	r.error, r.power = b.error, b.power
	return b.bad == 0, true
}
