package linalg

import (
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// panelCols is how many columns are reduced before the others are brought up to date by matrix products.
const panelCols = 24

// Orthonormal puts into q an orthonormal basis, n × r, of the column space of a, n × r, row-major, n ≥ r. a is overwritten.
// Where a has fewer independent columns than r, other directions complete the basis: it is orthonormal whatever a holds.
//
// It is Householder's method in blocks, I − V·T·Vᵀ for each (Schreiber and Van Loan 1989): 4·n·r² flops, nearly all of them in
// products.
func Orthonormal(k *tensor.Kernels, threads, n, r int, a, q []float64) {
	var triangles [][]float64 // T of each block, row-major, upper
	work := make([]float64, panelCols*(n+2*r))
	for at := 0; at < r; at += panelCols {
		b := min(panelCols, r-at)
		rows := n - at
		cols := work[:b*rows] // the panel by columns
		for i := range rows {
			for j := range b {
				cols[j*rows+i] = a[(at+i)*r+at+j]
			}
		}
		t := reflect(cols, rows, b)
		triangles = append(triangles, t)
		// V takes the panel's place, its ones and zeros included: what R would be is not wanted.
		for i := range rows {
			for j := range b {
				a[(at+i)*r+at+j] = cols[j*rows+i]
			}
		}
		apply(k, threads, a[at*r+at:], r, rows, b, t, true, a[at*r+at+b:], r, r-at-b, work)
	}
	clear(q[:n*r])
	for i := range r {
		q[i*r+i] = 1
	}
	for i := len(triangles) - 1; i >= 0; i-- {
		at := i * panelCols
		b := min(panelCols, r-at)
		apply(k, threads, a[at*r+at:], r, n-at, b, triangles[i], false, q[at*r+at:], r, r-at, work)
	}
}

// reflect turns b columns of length rows, one after the other, into the unit vectors' reflectors v (v[j] = 1 in row j, zeros above), and returns
// the triangle T of their product I − V·T·Vᵀ, b × b, row-major, upper.
func reflect(cols []float64, rows, b int) []float64 {
	t := make([]float64, b*b)
	z := make([]float64, b)
	for j := range b {
		v := cols[j*rows : (j+1)*rows]
		x := v[j:]
		// Golub and Van Loan, algorithm 5.1.1, with the sign that cancels nothing.
		norm := math.Sqrt(dot(x, x))
		tau := 0.0
		if norm != 0 {
			alpha := x[0]
			beta := -math.Copysign(norm, alpha)
			tau = (beta - alpha) / beta
			scale := 1 / (alpha - beta)
			for i := range x {
				x[i] *= scale
			}
		}
		clear(v[:j])
		x[0] = 1
		for next := j + 1; next < b; next++ {
			y := cols[next*rows+j : (next+1)*rows]
			axpy(-tau*dot(x, y), x, y)
		}
		// T's column j is −tau·T·Vᵀv, then tau.
		for i := range j {
			z[i] = dot(cols[i*rows+j:(i+1)*rows], x)
		}
		for i := range j {
			var s float64
			for l := i; l < j; l++ {
				s += float64(t[i*b+l] * z[l])
			}
			t[i*b+j] = -tau * s
		}
		t[j*b+j] = tau
	}
	return t
}

// apply multiplies c, rows × cols with leading dimension ldc, by I − V·T·Vᵀ, or by its transpose, from the left. v is rows × b with leading dimension
// ldv. work has room for 2·b·cols.
func apply(k *tensor.Kernels, threads int, v []float64, ldv, rows, b int, t []float64, transposed bool, c []float64, ldc, cols int, work []float64) {
	if cols == 0 {
		return
	}
	z, tz := work[:b*cols], work[b*cols:2*b*cols]
	k.GEMM64(threads, true, false, b, cols, rows, v, ldv, c, ldc, z, cols, false)
	k.GEMM64(1, transposed, false, b, cols, b, t, b, z, cols, tz, cols, false)
	k.SubGEMM64(threads, false, false, rows, cols, b, v, ldv, tz, cols, c, ldc)
}
