package tensor

// InverseTransposed writes the inverse of Uᵀ, lower triangular and with zeros
// above, to the n × n matrix X. U is n × n and upper triangular, what is below its
// diagonal is not read; the two must not overlap. Both are row-major, with ldu and
// ldx elements from row to row. X is what [Kernels.TRSM] makes of the identity, at a
// third of the work.
func (k *Kernels) InverseTransposed(threads, n int, u []float32, ldu int, x []float32, ldx int) {
	solver32(k, threads).inverse("InverseTransposed", n, u, ldu, x, ldx)
}

// InverseTransposed64 is [Kernels.InverseTransposed] of float64.
func (k *Kernels) InverseTransposed64(threads, n int, u []float64, ldu int, x []float64, ldx int) {
	solver64(k, threads).inverse("InverseTransposed64", n, u, ldu, x, ldx)
}

func (s solver[T]) inverse(op string, n int, u []T, ldu int, x []T, ldx int) {
	checkMatrix(op, "u", u, n, n, ldu)
	checkMatrix(op, "x", x, n, n, ldx)
	for i := range n {
		clear(x[i*ldx:][:n])
		x[i*ldx+i] = 1
	}
	s.invert(n, u, ldu, x, ldx)
}

// invert is inverse, of x that holds the identity.
func (s solver[T]) invert(n int, u []T, ldu int, x []T, ldx int) {
	block := s.blockOf(n)
	for i := 0; i < n; i += block {
		b := min(block, n-i)
		// Right of column i+b these rows are zero, and stay so.
		if block == solveBlock {
			s.block(b, i+b, u[i*ldu+i:], ldu, x[i*ldx:], ldx)
		} else {
			s.invert(b, u[i*ldu+i:], ldu, x[i*ldx+i:], ldx)
			s.solve(b, i, u[i*ldu+i:], ldu, x[i*ldx:], ldx)
		}
		s.update(n-i-b, i+b, b, u, i, i+b, ldu, x, ldx)
	}
}

// InverseFactor replaces the symmetric positive definite n × n matrix H by the
// upper triangular U of H⁻¹ = UᵀU, which is what GPTQ wants of a Hessian
// (Frantar et al., "GPTQ", 2022, section 3.3), without the inverse that the paper
// goes by: if P turns the order of rows round and PHP = LLᵀ, then U = PL⁻¹P. That is
// half of the work. Of H the upper triangle is read; U has zeros below the
// diagonal. work holds n × n elements, H is row-major with ldh elements from row
// to row. It returns -1, or the row of H whose pivot is not positive and finite,
// which is the first from below, and H is then as it was.
func (k *Kernels) InverseFactor(threads, n int, h []float32, ldh int, work []float32) int {
	return solver32(k, threads).inverseFactor("InverseFactor", n, h, ldh, work)
}

// InverseFactor64 is [Kernels.InverseFactor] of float64.
func (k *Kernels) InverseFactor64(threads, n int, h []float64, ldh int, work []float64) int {
	return solver64(k, threads).inverseFactor("InverseFactor64", n, h, ldh, work)
}

func (s solver[T]) inverseFactor(op string, n int, h []T, ldh int, work []T) int {
	checkMatrix(op, "h", h, n, n, ldh)
	checkMatrix(op, "work", work, n, n, max(n, 1))
	// Both triangles are upper ones: work[i][j] = H[n-1-j][n-1-i], in squares.
	for i0 := 0; i0 < n; i0 += mirrorBlock {
		for j0 := i0; j0 < n; j0 += mirrorBlock {
			for i := i0; i < min(i0+mirrorBlock, n); i++ {
				to := work[i*n:][:n]
				for j := max(i, j0); j < min(j0+mirrorBlock, n); j++ {
					to[j] = h[(n-1-j)*ldh+n-1-i]
				}
			}
		}
	}
	if bad := s.cholesky(n, work, max(n, 1)); bad >= 0 {
		return n - 1 - bad
	}
	s.inverse(op, n, work, max(n, 1), h, ldh)
	for i := range n - n/2 {
		top, bottom := h[i*ldh:][:n], h[(n-1-i)*ldh:][:n]
		if i == n-1-i { // the middle row
			for j := range n / 2 {
				top[j], top[n-1-j] = top[n-1-j], top[j]
			}
			break
		}
		for j := range top {
			top[j], bottom[n-1-j] = bottom[n-1-j], top[j]
		}
	}
	return -1
}
