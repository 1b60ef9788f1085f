//go:build amd64 && !noasm

package tensor

import (
	"math"
	"unsafe"
)

// Sizes of the blocks: a panel of B (kc × cols) and the packed block of A
// (mc × kc) lie in the second-level cache together, a panel of A (rows × kc) in
// the first-level one.

func tile32(k *Kernels) *tiles[float32] {
	t := &tiles[float32]{mc: 180, kc: 512, nc: 1024, fma: FMA32, packA: packA32, packB: packB32}
	switch k.set() {
	case avx512:
		t.rows, t.cols = 6, 64
		t.kernel, t.subtract, t.solve = tile6x64F32AVX512, subTile6x64F32AVX512, solve6x64F32AVX512
	case avx2:
		t.rows, t.cols = 6, 16
		t.kernel, t.subtract, t.solve = tile6x16F32AVX2, subTile6x16F32AVX2, solve6x16F32AVX2
	default:
		return plainTiles32()
	}
	return t
}

func tile64(k *Kernels) *tiles[float64] {
	t := &tiles[float64]{mc: 96, kc: 512, nc: 768, fma: math.FMA, packB: packB64}
	switch k.set() {
	case avx512:
		t.rows, t.cols, t.packA = 8, 24, packA64x8
		t.kernel, t.subtract, t.solve = tile8x24F64AVX512, subTile8x24F64AVX512, solve8x24F64AVX512
	case avx2:
		t.rows, t.cols, t.packA = 6, 8, packA64x6
		t.kernel, t.subtract, t.solve = tile6x8F64AVX2, subTile6x8F64AVX2, solve6x8F64AVX2
	default:
		return plainTiles64()
	}
	return t
}

func packA32(dst, src []float32, k, aCol int) {
	copyRows24AVX2(unsafe.Pointer(&dst[0]), unsafe.Pointer(&src[0]), k, 4*aCol)
}

func packA64x6(dst, src []float64, k, aCol int) {
	copyRows48AVX2(unsafe.Pointer(&dst[0]), unsafe.Pointer(&src[0]), k, 8*aCol)
}

func packA64x8(dst, src []float64, k, aCol int) {
	copyRows64AVX2(unsafe.Pointer(&dst[0]), unsafe.Pointer(&src[0]), k, 8*aCol)
}

// packB32 transposes squares of 8.
func packB32(dst, src []float32, k, cols, bCol int) int {
	if k < 8 {
		return 0
	}
	for j := 0; j < cols; j += 8 {
		transpose8F32AVX2(&dst[j], &src[j*bCol], k/8, 4*bCol, 4*cols)
	}
	return k &^ 7
}

// packB64 transposes squares of 4.
func packB64(dst, src []float64, k, cols, bCol int) int {
	if k < 4 {
		return 0
	}
	for j := 0; j < cols; j += 4 {
		transpose4F64AVX2(&dst[j], &src[j*bCol], k/4, 8*bCol, 8*cols)
	}
	return k &^ 3
}

// loopSums is the number of registers in a turn of the loops.
const loopSums = 12

func fmaLoop32(k *Kernels, turns int) int {
	switch k.set() {
	case avx512:
		loopF32AVX512(turns)
		return turns * loopSums * 16 * 2
	case avx2:
		loopF32AVX2(turns)
		return turns * loopSums * 8 * 2
	}
	return plainLoop(turns)
}

func fmaLoop64(k *Kernels, turns int) int {
	switch k.set() {
	case avx512:
		loopF64AVX512(turns)
		return turns * loopSums * 8 * 2
	case avx2:
		loopF64AVX2(turns)
		return turns * loopSums * 4 * 2
	}
	return plainLoop(turns)
}
