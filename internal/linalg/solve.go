package linalg

import "github.com/shardpress/shardpress/internal/tensor"

// solveRows is how many rows of a triangle are solved before the others lose what they have of them by a matrix product.
const solveRows = 48

// Solve overwrites x, n × m, row-major, with the solution of UᵀU·X = x, for the factor that tensor.Kernels.Cholesky64 left in u, n × n.
func Solve(k *tensor.Kernels, threads, n, m int, u, x []float64) {
	k.TRSM64(threads, n, m, u, n, x, m)
	for end := n; end > 0; { // U·X = Y, from the last row up
		at := (end - 1) / solveRows * solveRows
		b := end - at
		if end < n {
			k.SubGEMM64(threads, false, false, b, m, n-end, u[at*n+end:], n, x[end*m:], m, x[at*m:], m)
		}
		for i := end - 1; i >= at; i-- {
			row := x[i*m : (i+1)*m]
			for j := i + 1; j < end; j++ {
				axpy(-u[i*n+j], x[j*m:(j+1)*m], row)
			}
			for c := range row {
				row[c] /= u[i*n+i]
			}
		}
		end = at
	}
}
