//go:build amd64 && !noasm

package tensor

// Sizes of the blocks: a panel of B (kc × cols) and the packed block of A
// (mc × kc) lie in the second-level cache together, a panel of A (rows × kc) in
// the first-level one.

func tile32(k *Kernels) *tiles[float32] {
	switch k.set() {
	case avx512:
		return &tiles[float32]{rows: 6, cols: 64, mc: 180, kc: 512, nc: 2048, kernel: tile6x64F32AVX512, packB: packB32}
	case avx2:
		return &tiles[float32]{rows: 6, cols: 16, mc: 180, kc: 512, nc: 2048, kernel: tile6x16F32AVX2, packB: packB32}
	}
	return plainTiles32()
}

func tile64(k *Kernels) *tiles[float64] {
	switch k.set() {
	case avx512:
		return &tiles[float64]{rows: 8, cols: 24, mc: 120, kc: 384, nc: 1536, kernel: tile8x24F64AVX512, packB: packB64}
	case avx2:
		return &tiles[float64]{rows: 6, cols: 8, mc: 120, kc: 384, nc: 1536, kernel: tile6x8F64AVX2, packB: packB64}
	}
	return plainTiles64()
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
