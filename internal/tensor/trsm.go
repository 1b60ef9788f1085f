package tensor

import "sync"

// TRSM replaces B by U⁻ᵀB, the solution X of UᵀX = B. U is m × m and upper
// triangular: what is below its diagonal is not read. B is m × n, both are
// row-major with ldu and ldb elements from row to row. An element is
//
//	s = B[i][j];  s = fma(-U[p][i], X[p][j], s) for p = 0, ..., i-1;  X[i][j] = s/U[i][i]
//
// whatever the blocks, threads and kernels; see [Kernels.GEMM], also for what
// panics. A zero on the diagonal gives infinities, as it does by hand.
func (k *Kernels) TRSM(threads, m, n int, u []float32, ldu int, b []float32, ldb int) {
	solver32(k, threads).trsm("TRSM", m, n, u, ldu, b, ldb)
}

// TRSM64 is [Kernels.TRSM] of float64.
func (k *Kernels) TRSM64(threads, m, n int, u []float64, ldu int, b []float64, ldb int) {
	solver64(k, threads).trsm("TRSM64", m, n, u, ldu, b, ldb)
}

// solver is what the algorithms on triangles share.
type solver[T float] struct {
	t       *tiles[T]
	lend    *lender[T]
	threads int
	wide    int // triangles of more rows, at least 4*solveBlock, are worked on in wide blocks
}

func solver32(k *Kernels, threads int) solver[float32] {
	return solver[float32]{tile32(k), k.lend32(), threads, wideTriangle}
}

func solver64(k *Kernels, threads int) solver[float64] {
	return solver[float64]{tile64(k), k.lend64(), threads, wideTriangle}
}

// wideTriangle is where wide blocks begin to be faster.
const wideTriangle = 1536

// solveBlock is the size of the triangles that are solved in cache: whole tiles
// of every kernel.
const solveBlock = 96

// blockOf returns the size of the blocks of a triangle of n rows: an update reads
// and writes the rest of the matrix, which is to happen the less often the less of
// it is in cache.
func (s solver[T]) blockOf(n int) int {
	if n > s.wide {
		return 4 * solveBlock
	}
	return solveBlock
}

func (s solver[T]) trsm(op string, m, n int, u []T, ldu int, b []T, ldb int) {
	checkMatrix(op, "u", u, m, m, ldu)
	checkMatrix(op, "b", b, m, n, ldb)
	s.solve(m, n, u, ldu, b, ldb)
}

// solve is trsm, at first in wide blocks where there is much to update.
func (s solver[T]) solve(m, n int, u []T, ldu int, b []T, ldb int) {
	if n == 0 {
		return
	}
	block := s.blockOf(m)
	for i := 0; i < m; i += block {
		mb := min(block, m-i)
		if block == solveBlock {
			s.block(mb, n, u[i*ldu+i:], ldu, b[i*ldb:], ldb)
		} else {
			s.solve(mb, n, u[i*ldu+i:], ldu, b[i*ldb:], ldb)
		}
		s.update(m-i-mb, n, mb, u, i, i+mb, ldu, b, ldb)
	}
}

// update subtracts from the m rows of b that end it, n wide, the multiples of
// the mb rows solved before them, from row i; their part of u begins at column j.
func (s solver[T]) update(m, n, mb int, u []T, i, j, ldu int, b []T, ldb int) {
	if m == 0 {
		return
	}
	run(s.t, s.lend, s.threads, product[T]{
		m: m, n: n, k: mb, a: u[i*ldu+j:], aRow: 1, aCol: ldu,
		b: b[i*ldb:], bRow: ldb, bCol: 1, c: b[(i+mb)*ldb:], ldc: ldb, load: true, negate: true,
	})
}

// block solves for m rows, at most solveBlock, n wide.
func (s solver[T]) block(m, n int, u []T, ldu int, b []T, ldb int) {
	threads := s.threads
	if work := m * m / 2 * n; work < threadWork*threads {
		threads = work / threadWork
	}
	threads = max(threads, 1)
	var wg sync.WaitGroup
	for i := 1; i < threads; i++ {
		j0, j1 := cut(n, i, threads, s.t.cols, false), cut(n, i+1, threads, s.t.cols, false)
		if j0 < j1 {
			wg.Go(func() { s.columns(m, j1-j0, u, ldu, b[j0:], ldb) })
		}
	}
	if j1 := cut(n, 1, threads, s.t.cols, false); j1 > 0 {
		s.columns(m, j1, u, ldu, b, ldb)
	}
	wg.Wait()
}

// columns is the part of block that one thread does.
func (s solver[T]) columns(m, n int, u []T, ldu int, b []T, ldb int) {
	rows, cols := s.t.rows, s.t.cols
	whole := (m + rows - 1) / rows * rows
	w := s.lend.get()
	defer s.lend.put(w)
	all := w.take(whole * (whole + cols))
	l, x := all[:whole*whole], all[whole*whole:]
	// Uᵀ, and ones where it is made larger to whole tiles.
	for i := range whole {
		row := l[i*whole:][:i+1]
		if i >= m {
			clear(row)
			row[i] = 1
			continue
		}
		for p := range row {
			row[p] = u[p*ldu+i]
		}
	}
	clear(x)
	for j := 0; j < n; j += cols {
		nb := min(cols, n-j)
		for i := range m {
			copy(x[i*cols:][:nb], b[i*ldb+j:])
		}
		for i := 0; i < m; i += rows {
			if i > 0 {
				s.t.subtract(i, &l[i*whole], whole, 1, &x[0], &x[i*cols], cols, true)
			}
			s.t.solve(&l[i*whole+i], whole, &x[i*cols])
		}
		for i := range m {
			copy(b[i*ldb+j:][:nb], x[i*cols:])
		}
	}
}
