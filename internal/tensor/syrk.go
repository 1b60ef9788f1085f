package tensor

// SYRK computes the upper triangle, diagonal included, of C = AᵀA, or adds it to
// C with accumulate. A is kk × n with lda elements from row to row, its rows
// being samples; C is n × n. What lies below the diagonal is neither read nor
// written: [Mirror] fills it. An element is that of
// GEMM(threads, true, false, n, n, kk, a, lda, a, lda, c, ldc, accumulate), at
// half of its work.
func (k *Kernels) SYRK(threads, n, kk int, a []float32, lda int, c []float32, ldc int, accumulate bool) {
	p := newProduct("SYRK", true, false, n, n, kk, a, lda, a, lda, c, ldc, accumulate)
	p.upper = true
	run(tile32(k), k.lend32(), threads, p)
}

// SYRK64 is [Kernels.SYRK] of float64.
func (k *Kernels) SYRK64(threads, n, kk int, a []float64, lda int, c []float64, ldc int, accumulate bool) {
	p := newProduct("SYRK64", true, false, n, n, kk, a, lda, a, lda, c, ldc, accumulate)
	p.upper = true
	run(tile64(k), k.lend64(), threads, p)
}

// mirrorBlock is the side of the squares that [Mirror] copies: one of source and
// one of target fit the first-level cache.
const mirrorBlock = 32

// Mirror copies what is above the diagonal of the n × n matrix c, ldc elements
// from row to row, to below it.
func Mirror[T float32 | float64](n int, c []T, ldc int) {
	checkMatrix("Mirror", "c", c, n, n, ldc)
	for i0 := 0; i0 < n; i0 += mirrorBlock {
		for j0 := 0; j0 <= i0; j0 += mirrorBlock {
			for i := i0; i < min(i0+mirrorBlock, n); i++ {
				to := c[i*ldc:]
				for j := j0; j < min(j0+mirrorBlock, i); j++ {
					to[j] = c[j*ldc+i]
				}
			}
		}
	}
}
