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
	runs, blocks int // runs of blocks of 32 elements
	ahead        int // distance of the prefetch in bytes

	errors, powers [lanes]float32 //nolint:unused // the assembly reads and writes most of these

	// The search for a place among the bounds, with the bound in the middle first. AVX-512 looks up the next one by the place as far as it
	// is known: at 0 and 8, at 0, 4, 8, 12, at even numbers.
	middle                 float32
	level2, level3, level4 [16]float32
	values                 [16]float32 // by place
	places                 [16]uint32  // codes by place
	// AVX2 has registers of 8 and looks them up by what it counts, from 0 down, modulo 8.
	lower2, lower3, lower4 [8]float32
	lowValues, highValues  [8]float32
	lookup                 [32]uint8 // codes by place from 0 down, modulo 16; twice

	inverse [tableRuns]float32
}

// fill prepares the lookups.
func (b *tableBatch) fill(t *Table4) {
	b.middle = t.Bounds[7]
	for i := range 2 {
		b.level2[8*i], b.lower2[(8-i)%8] = t.Bounds[3+8*i], t.Bounds[3+8*i]
	}
	for i := range 4 {
		b.level3[4*i], b.lower3[(8-i)%8] = t.Bounds[1+4*i], t.Bounds[1+4*i]
	}
	for i := range 8 {
		b.level4[2*i], b.lower4[(8-i)%8] = t.Bounds[2*i], t.Bounds[2*i]
		b.lowValues[(8-i)%8], b.highValues[(8-i)%8] = t.Values[t.Codes[i]], t.Values[t.Codes[8+i]]
	}
	for i, c := range t.Codes {
		b.values[i], b.places[i] = t.Values[c], uint32(c)
		b.lookup[(16-i)%16], b.lookup[16+(16-i)%16] = c, c
	}
}

// row encodes a row that begins and ends with a run.
func (b *tableBatch) row(k *Kernels, r *TableResult, src []byte, row, cols, block int, absmax, scale []float32) {
	b.errors, b.powers = [lanes]float32{}, [lanes]float32{}
	b.blocks = block / 32
	codes := r.Codes[row*cols/2:]
	for first, n := 0, cols/block; first < n; first += b.runs {
		b.runs = min(tableRuns, n-first)
		for i, v := range absmax[first:][:b.runs] {
			b.inverse[i] = 1 / max(v, MinAbsmax)
		}
		b.src, b.codes = &src[2*first*block], &codes[first*block/2]
		b.inv, b.scale = &b.inverse[0], &scale[first]
		if k.isa == avx512 {
			tableBF16AVX512(b)
		} else {
			tableBF16AVX2(b)
		}
	}
	r.Error[row], r.Power[row] = float64(addLanes(&b.errors)), float64(addLanes(&b.powers))
}
