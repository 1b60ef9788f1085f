//go:build amd64 && !noasm

package tensor

import (
	"math"
	"math/bits"
)

func (k *Kernels) servesTable(DType, int) bool { return false }

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

func (k *Kernels) encodeTableVector(*TableResult, []byte, int, int, int, []float32, []float32, *Table4) {
}
