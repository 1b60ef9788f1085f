package tensor

import (
	"fmt"
	"sync"
)

// GEMV computes y = A·x, or y = Aᵀ·x with trans. A is m × n, row-major with lda
// elements from row to row. Without trans an element is a [Kernels.Dot]; with it, the
// chain over rows of a [Kernels.GEMM], whose y it would be. Neither depends on
// threads or kernels. y must not overlap x or A.
func (k *Kernels) GEMV(threads int, trans bool, m, n int, a []float32, lda int, x, y []float32) {
	gemv("GEMV", threads, trans, m, n, a, lda, x, y, k.Dot, k.AXPY)
}

// GEMV64 is [Kernels.GEMV] of float64.
func (k *Kernels) GEMV64(threads int, trans bool, m, n int, a []float64, lda int, x, y []float64) {
	gemv("GEMV64", threads, trans, m, n, a, lda, x, y, k.Dot64, k.AXPY64)
}

// gemvWork is the least number of elements of A that is worth a goroutine.
const gemvWork = 1 << 15

// gemvColumns of y stay in the first-level cache while the rows go by.
const gemvColumns = 2048

func gemv[T float](op string, threads int, trans bool, m, n int, a []T, lda int, x, y []T, dot func(x, y []T) T, axpy func(alpha T, x, y []T)) {
	checkMatrix(op, "a", a, m, n, lda)
	in, out := n, m
	if trans {
		in, out = m, n
	}
	if len(x) != in || len(y) != out {
		panic(fmt.Sprintf("tensor: %s of %d × %d, trans=%t: x has %d elements and y has %d", op, m, n, trans, len(x), len(y)))
	}
	threads = max(min(threads, m*n/gemvWork), 1)
	one := func(i0, i1 int) { // elements of y
		if !trans {
			for i := i0; i < i1; i++ {
				y[i] = 0
				if n > 0 {
					y[i] = dot(a[i*lda:][:n], x)
				}
			}
			return
		}
		clear(y[i0:i1])
		for ; i0 < i1; i0 += gemvColumns {
			to := y[i0:min(i0+gemvColumns, i1)]
			for p := range m {
				axpy(x[p], a[p*lda+i0:][:len(to)], to)
			}
		}
	}
	var wg sync.WaitGroup
	for i := 1; i < threads; i++ {
		wg.Go(func() { one(cut(out, i, threads, 16, false), cut(out, i+1, threads, 16, false)) })
	}
	one(0, cut(out, 1, threads, 16, false))
	wg.Wait()
}
