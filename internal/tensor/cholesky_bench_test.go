package tensor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkCholesky measures the decomposition of a Hessian, n³/3 operations, and
// the factor of its inverse, 2n³/3, turn by turn with the loop of multiply-adds: in
// processor time of one thread, as a share of that loop's speed.
//
//	go test -run - -bench Cholesky -benchtime 5x ./internal/tensor
func BenchmarkCholesky(b *testing.B) {
	k := Detect()
	for _, n := range []int{1024, 4096} {
		b.Run(fmt.Sprintf("f32/%d", n), func(b *testing.B) { benchCholesky(b, n, triangles32(), k.FMALoop, k.SYRK) })
		b.Run(fmt.Sprintf("f64/%d", n), func(b *testing.B) { benchCholesky(b, n, triangles64(), k.FMALoop64, k.SYRK64) })
	}
}

func benchCholesky[T float](b *testing.B, n int, f triangles[T], peak func(turns int) int,
	syrk func(threads, n, kk int, a []T, lda int, c []T, ldc int, accumulate bool)) {
	rng := rand.New(rand.NewPCG(1, 36))
	k := Detect()
	x := make([]T, 2*n*n)
	for i := range x {
		x[i] = T(rng.Float32() - 0.5)
	}
	h, a, work := make([]T, n*n), make([]T, n*n), make([]T, n*n)
	syrk(2, n, 2*n, x, n, h, n, false)
	var loop, one, factor []time.Duration
	const turns = 1 << 22
	operations := peak(turns)
	for b.Loop() {
		loop = append(loop, busy(func() { peak(turns) }))
		copy(a, h)
		one = append(one, busy(func() {
			if bad := f.cholesky(k, 1, n, a, n); bad >= 0 {
				b.Fatal(bad)
			}
		}))
		copy(a, h)
		factor = append(factor, busy(func() {
			if bad := f.factor(k, 1, n, a, n, work); bad >= 0 {
				b.Fatal(bad)
			}
		}))
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)/2].Seconds()
	}
	cube := float64(n) * float64(n) * float64(n) / 3
	full := float64(operations) / median(loop)
	b.ReportMetric(median(one), "cholesky-s")
	b.ReportMetric(median(factor), "factor-s")
	b.ReportMetric(cube/median(one)/full, "cholesky-of-peak")
	b.ReportMetric(2*cube/median(factor)/full, "factor-of-peak")
}

// BenchmarkDot is in the second-level cache: vectors of 4096.
func BenchmarkDot(b *testing.B) {
	x, y := make([]float64, 4096), make([]float64, 4096)
	for _, k := range allKernels(b) {
		b.Run("dot64/"+k.Name(), func(b *testing.B) {
			b.SetBytes(8 * 2 * 4096)
			for b.Loop() {
				k.Dot64(x, y)
			}
		})
		b.Run("axpy64/"+k.Name(), func(b *testing.B) {
			b.SetBytes(8 * 2 * 4096)
			for b.Loop() {
				k.AXPY64(0.5, x, y)
			}
		})
	}
}
