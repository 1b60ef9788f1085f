package tensor

import "math"

// Cholesky replaces the upper triangle of the symmetric n × n matrix A, row-major
// with lda elements from row to row, by the upper triangular U of A = UᵀU. What is
// below the diagonal is neither read nor written, so that the result of
// [Kernels.SYRK] goes in as it is. It returns -1, or the first row whose pivot is
// not positive and finite; A is then spoiled. An element is
//
//	s = A[i][j];  s = fma(-U[p][i], U[p][j], s) for p = 0, ..., i-1
//	U[i][i] = sqrt(s), U[i][j] = s/U[i][i]
//
// whatever the blocks, threads and kernels; see [Kernels.GEMM], also for what
// panics.
func (k *Kernels) Cholesky(threads, n int, a []float32, lda int) int {
	checkMatrix("Cholesky", "a", a, n, n, lda)
	return solver32(k, threads).cholesky(n, a, lda)
}

// Cholesky64 is [Kernels.Cholesky] of float64.
func (k *Kernels) Cholesky64(threads, n int, a []float64, lda int) int {
	checkMatrix("Cholesky64", "a", a, n, n, lda)
	return solver64(k, threads).cholesky(n, a, lda)
}

// smallCholesky is the largest matrix that is decomposed by the textbook's loops.
const smallCholesky = 16

func (s solver[T]) cholesky(n int, a []T, lda int) int {
	block := s.blockOf(n)
	switch {
	case n <= smallCholesky:
		return s.textbook(n, a, lda)
	case n <= solveBlock:
		block = smallCholesky
	}
	for i := 0; i < n; i += block {
		b := min(block, n-i)
		if bad := s.cholesky(b, a[i*lda+i:], lda); bad >= 0 {
			return i + bad
		}
		rest := n - i - b
		if rest == 0 {
			break
		}
		right := a[i*lda+i+b:]
		s.solve(b, rest, a[i*lda+i:], lda, right, lda)
		run(s.t, s.lend, s.threads, product[T]{
			m: rest, n: rest, k: b, a: right, aRow: 1, aCol: lda, b: right, bRow: lda, bCol: 1,
			c: a[(i+b)*(lda+1):], ldc: lda, load: true, negate: true, upper: true,
		})
	}
	return -1
}

func (s solver[T]) textbook(n int, a []T, lda int) int {
	for i := range n {
		row := a[i*lda:][:n]
		for p := range i {
			above := a[p*lda:][:n]
			x := -above[i]
			for j := i; j < n; j++ {
				row[j] = s.t.fma(x, above[j], row[j])
			}
		}
		if !(row[i] > 0 && float64(row[i]) <= math.MaxFloat64) {
			return i
		}
		// The root of a float32, rounded to float64 and then to float32, is rounded
		// as if once (Figueroa, "When is double rounding innocuous?", 1995).
		d := T(math.Sqrt(float64(row[i])))
		row[i] = d
		for j := i + 1; j < n; j++ {
			row[j] /= d
		}
	}
	return -1
}
