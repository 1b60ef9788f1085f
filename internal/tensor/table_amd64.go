//go:build amd64 && !noasm

package tensor

import (
	"math"
	"math/bits"
)

// servesTable reports whether the vector code covers whole runs of block elements of a type.
func (k *Kernels) servesTable(d DType, block int) bool {
	return k.set() != scalar && d == BF16 && block%32 == 0
}

// runsAbsmaxVector serves whole runs.
func (k *Kernels) runsAbsmaxVector(dst []float32, src []byte, d DType, block int) int {
	size := block * d.Size()
	perBatch := min(max(batchBytes/size, 2), batchGroups)
	b := batch{group: block, ahead: 2 * perBatch * size}
	for first := 0; first < len(dst); first += b.groups {
		b.groups, b.src = min(perBatch, len(dst)-first), &src[first*size]
		k.absmax(&b, d)
		var bad uint32
		for i := range b.groups {
			if b.absmax[i] >= 0x7f800000 {
				bad |= 1 << i
			}
			dst[first+i] = math.Float32frombits(b.absmax[i])
		}
		if bad != 0 {
			return first + bits.TrailingZeros32(bad)
		}
	}
	return -1
}

// tableRuns is how many runs share one call of the assembly.
const tableRuns = 64

// tableBatch is what the assembly works on: a part of one row.
type tableBatch struct {
	src, codes   *byte
	inv, scale   *float32
	lookups      *tableLookups
	runs, blocks int // runs of blocks of 32 elements
	ahead        int // distance of the prefetch in bytes

	errors, powers [lanes]float32

	inverse [tableRuns]float32
}

func newTableBatch(t *Table4) *tableBatch { return &tableBatch{lookups: &t.lookups} }

// row encodes a row that begins and ends with a run.
func (b *tableBatch) row(k *Kernels, r *TableResult, src []byte, row, cols, block, ahead int, absmax, scale []float32) {
	b.errors, b.powers = [lanes]float32{}, [lanes]float32{}
	b.blocks, b.ahead = block/32, ahead
	codes := r.Codes[row*cols/2:]
	for first, n := 0, cols/block; first < n; first += b.runs {
		b.runs = min(tableRuns, n-first)
		copy(b.inverse[:], absmax[first:][:b.runs])
		tableInverseAVX2(b)
		b.src, b.codes = &src[2*first*block], &codes[first*block/2]
		b.inv, b.scale = &b.inverse[0], &scale[first]
		switch {
		case k.isa != avx512:
			tableBF16AVX2(b)
		case b.lookups.buckets && b.lookups.apart:
			bucketsZeroBF16AVX512(b)
		case b.lookups.buckets:
			bucketsBF16AVX512(b)
		default:
			tableBF16AVX512(b)
		}
	}
	r.Error[row], r.Power[row] = float64(addLanes(&b.errors)), float64(addLanes(&b.powers))
}
