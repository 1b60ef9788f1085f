package tensor

import "fmt"

// GEMM computes C = op(A)·op(B), or C += op(A)·op(B) with accumulate, where op
// transposes if transA or transB says so. op(A) is m × k, op(B) k × n and C
// m × n, all row-major with lda, ldb and ldc elements from one stored row to the
// next: A is stored m × k, or k × m with transA, B likewise. A layer's x·Wᵀ is
// GEMM(threads, false, true, tokens, out, in, x, in, w, in, y, out, false).
//
// # What every element is
//
// An element of C is one chain of fused multiply-adds in order of k,
//
//	s = +0, or what C held if it accumulates
//	s = fma(op(A)[i][p], op(B)[p][j], s)   for p = 0, 1, ..., k-1
//
// each rounded once ([FMA32], or math.FMA for float64). That is all there is
// to it: kernel, threads, shape, position and leading dimensions change no bit
// (but which NaN it is). Since a chain continues from C, a product cut anywhere
// along k and accumulated in order is the whole product, so that neither the
// block that fits a cache nor the block size of an algorithm above shows in the
// result: a blocked factorisation is the textbook's loops, bit for bit. A sum
// over very many k that wants the smaller error of partial sums is cut by its
// caller, at places that the caller's definition names.
//
// threads are the goroutines that share the work, less than two meaning the
// caller's own. C must not overlap A or B. A slice that is too short, like any
// argument that contradicts another, is a mistake of the caller and panics.
func (k *Kernels) GEMM(threads int, transA, transB bool, m, n, kk int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, accumulate bool) {
	run(tile32(k), k.lend32(), threads, newProduct("GEMM", transA, transB, m, n, kk, a, lda, b, ldb, c, ldc, accumulate))
}

// SubGEMM computes C -= op(A)·op(B): the chain of [Kernels.GEMM] that
// accumulates, with the signs of A turned round, which is exact.
func (k *Kernels) SubGEMM(threads int, transA, transB bool, m, n, kk int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int) {
	p := newProduct("SubGEMM", transA, transB, m, n, kk, a, lda, b, ldb, c, ldc, true)
	p.negate = true
	run(tile32(k), k.lend32(), threads, p)
}

// GEMM64 is [Kernels.GEMM] of float64.
func (k *Kernels) GEMM64(threads int, transA, transB bool, m, n, kk int, a []float64, lda int, b []float64, ldb int, c []float64, ldc int, accumulate bool) {
	run(tile64(k), k.lend64(), threads, newProduct("GEMM64", transA, transB, m, n, kk, a, lda, b, ldb, c, ldc, accumulate))
}

// SubGEMM64 is [Kernels.SubGEMM] of float64.
func (k *Kernels) SubGEMM64(threads int, transA, transB bool, m, n, kk int, a []float64, lda int, b []float64, ldb int, c []float64, ldc int) {
	p := newProduct("SubGEMM64", transA, transB, m, n, kk, a, lda, b, ldb, c, ldc, true)
	p.negate = true
	run(tile64(k), k.lend64(), threads, p)
}

// newProduct checks the arguments of a call named op.
func newProduct[T float](op string, transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int, load bool) product[T] {
	if m < 0 || n < 0 || k < 0 {
		panic(fmt.Sprintf("tensor: %s of m=%d n=%d k=%d: negative size", op, m, n, k))
	}
	p := product[T]{m: m, n: n, k: k, a: a, b: b, c: c, ldc: ldc, load: load}
	if transA {
		checkMatrix(op, "a", a, k, m, lda)
		p.aRow, p.aCol = 1, lda
	} else {
		checkMatrix(op, "a", a, m, k, lda)
		p.aRow, p.aCol = lda, 1
	}
	if transB {
		checkMatrix(op, "b", b, n, k, ldb)
		p.bRow, p.bCol = 1, ldb
	} else {
		checkMatrix(op, "b", b, k, n, ldb)
		p.bRow, p.bCol = ldb, 1
	}
	checkMatrix(op, "c", c, m, n, ldc)
	return p
}

// checkMatrix panics unless s holds rows × cols elements, ld apart.
func checkMatrix[T float](op, name string, s []T, rows, cols, ld int) {
	if ld < max(1, cols) {
		panic(fmt.Sprintf("tensor: %s: rows of %s are %d elements apart but hold %d", op, name, ld, cols))
	}
	if rows == 0 || cols == 0 {
		return
	}
	// len(s) bounds the quotient, so the product below cannot overflow.
	if len(s) < cols || (len(s)-cols)/ld < rows-1 {
		panic(fmt.Sprintf("tensor: %s: %s has %d elements, too few for %d × %d with rows %d apart", op, name, len(s), rows, cols, ld))
	}
}

// FMALoop computes nothing, by as many fused multiply-adds of float32 as the
// processor can, and returns how many floating-point operations those were: the
// time it takes is the yardstick of products. One turn is about six cycles.
func (k *Kernels) FMALoop(turns int) int { return fmaLoop32(k, max(turns, 1)) }

// FMALoop64 is [Kernels.FMALoop] of float64.
func (k *Kernels) FMALoop64(turns int) int { return fmaLoop64(k, max(turns, 1)) }
