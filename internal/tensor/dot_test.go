package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// dotOracle is the definition, with the vectors made longer by zeros.
func dotOracle[T float](x, y []T, lanes int) T {
	sums := make([]T, lanes)
	for i := range (len(x) + lanes - 1) / lanes * lanes {
		a, b := T(0), T(0)
		if i < len(x) {
			a, b = x[i], y[i]
		}
		sums[i%lanes] = fmaOf(a, b, sums[i%lanes])
	}
	for len(sums) > 1 {
		half := len(sums) / 2
		for l := range half {
			sums[l] += sums[half+l]
		}
		sums = sums[:half]
	}
	return sums[0]
}

func testVectors[T float](t *testing.T, lanes int, dot func(k *Kernels, x, y []T) T, axpy func(k *Kernels, alpha T, x, y []T)) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(uint64(lanes), 37))
	odd := []float64{0, math.Copysign(0, -1), 1e-40, -1e-40, 1e30, math.Inf(1), math.Inf(-1), math.NaN()}
	for n := range 300 {
		x, y := make([]T, n), make([]T, n)
		for i := range x {
			x[i], y[i] = T(rng.NormFloat64()), T(rng.NormFloat64())
			if n%3 == 0 && rng.IntN(20) == 0 {
				x[i] = T(odd[rng.IntN(5+n%2*3)])
			}
			if n%7 == 0 { // sums that end in zeros of either sign
				x[i], y[i] = T(math.Copysign(1e-30, x64(x[i]))), T(1e-30)
				if lanes == lanes64 {
					x[i], y[i] = T(math.Copysign(1e-200, x64(x[i]))), T(1e-200)
				}
			}
		}
		alpha := T(rng.NormFloat64())
		sum := []T{dotOracle(x, y, lanes)}
		moved := clone(y)
		for i := range moved {
			moved[i] = fmaOf(alpha, x[i], moved[i])
		}
		for _, k := range allKernels(t) {
			what := fmt.Sprintf("%s: n=%d", k.Name(), n)
			sameBits(t, what+": dot", []T{dot(k, x, y)}, sum, 1)
			got := clone(y)
			axpy(k, alpha, x, got)
			sameBits(t, what+": axpy", got, moved, n)
		}
	}
}

func x64[T float](x T) float64 { return float64(x) }

func TestVectors32(t *testing.T) { testVectors(t, lanes32, (*Kernels).Dot, (*Kernels).AXPY) }
func TestVectors64(t *testing.T) { testVectors(t, lanes64, (*Kernels).Dot64, (*Kernels).AXPY64) }

func TestGEMV(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 38))
	for i := range 40 {
		m, n := rng.IntN(60), rng.IntN(60)
		if i%8 == 0 { // enough for threads, and for more than one block of y
			m, n = 30+rng.IntN(20), 2000+rng.IntN(2000)
		}
		if i%16 == 0 {
			m, n = n, m
		}
		lda := max(n, 1) + rng.IntN(3)
		a := make([]float64, m*lda)
		for i := range a {
			a[i] = rng.NormFloat64()
		}
		x := make([]float64, m+n)
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		rows, cols := make([]float64, m), make([]float64, n)
		for i := range rows {
			rows[i] = dotOracle(a[i*lda:][:n], x[:n], lanes64)
		}
		for _, k := range allKernels(t) {
			(*Kernels)(nil).GEMM64(1, true, false, n, 1, m, a, lda, x, 1, cols, 1, false)
			for threads := range 4 {
				what := fmt.Sprintf("%s on %d threads: m=%d n=%d", k.Name(), threads, m, n)
				y := make([]float64, m)
				k.GEMV64(threads, false, m, n, a, lda, x[:n], y)
				sameBits(t, what, y, rows, m)
				y = make([]float64, n)
				k.GEMV64(threads, true, m, n, a, lda, x[:m], y)
				sameBits(t, what+" transposed", y, cols, n)
			}
		}
	}
}
