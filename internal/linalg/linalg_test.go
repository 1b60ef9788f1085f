package linalg

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/shardpress/shardpress/internal/tensor"
)

func best(t testing.TB) *tensor.Kernels {
	t.Helper()
	k, err := tensor.ForName("")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func random(n int, seed uint64) []float64 {
	r := NewNoise(seed)
	x := make([]float64, n)
	for i := range x {
		x[i] = r.Uniform()
	}
	return x
}

func TestOrthonormal(t *testing.T) {
	t.Parallel()
	k := best(t)
	for _, size := range [][2]int{{1, 1}, {5, 3}, {24, 24}, {60, 25}, {130, 97}, {200, 50}} {
		n, r := size[0], size[1]
		for name, spoil := range map[string]func(a []float64){
			"random": func([]float64) {},
			"zeros":  func(a []float64) { clear(a) },
			"rank 1": func(a []float64) {
				for i := range a {
					a[i] = float64(i / r)
				}
			},
			"wide range": func(a []float64) {
				for i := range a {
					a[i] *= math.Ldexp(1, -(i%r)*7%200)
				}
			},
		} {
			a := random(n*r, 1)
			spoil(a)
			was, q := slices.Clone(a), make([]float64, n*r)
			Orthonormal(k, 1, n, r, a, q)
			qm := mat.NewDense(n, r, q)
			var gram, coeff, back mat.Dense
			gram.Mul(qm.T(), qm)
			for i := range r {
				for j := range r {
					want := 0.0
					if i == j {
						want = 1
					}
					if d := math.Abs(gram.At(i, j) - want); !(d < 1e-12) {
						t.Fatalf("%s %v: QᵀQ[%d,%d] is %g away", name, size, i, j, d)
					}
				}
			}
			wm := mat.NewDense(n, r, was)
			coeff.Mul(qm.T(), wm)
			back.Mul(qm, &coeff)
			for i := range was {
				if d := math.Abs(back.RawMatrix().Data[i] - was[i]); !(d < 1e-10*float64(n)) {
					t.Fatalf("%s %v: the basis does not hold the columns: %g away", name, size, d)
				}
			}
		}
	}
}

func TestSolve(t *testing.T) {
	t.Parallel()
	k := best(t)
	for _, n := range []int{1, 2, 16, 47, 48, 49, 150, 300} {
		const m = 37
		x := mat.NewDense(n+3, n, random((n+3)*n, 2))
		var g mat.Dense
		g.Mul(x.T(), x)
		u := slices.Clone(g.RawMatrix().Data)
		if k.Cholesky64(1, n, u, n) >= 0 {
			t.Fatalf("n=%d: not positive definite", n)
		}
		rhs := random(n*m, 3)
		sol := slices.Clone(rhs)
		Solve(k, 1, n, m, u, sol)
		var check mat.Dense
		check.Mul(&g, mat.NewDense(n, m, sol))
		if !mat.EqualApprox(&check, mat.NewDense(n, m, rhs), 1e-6) {
			t.Errorf("n=%d: the solution does not solve", n)
		}
	}
}

// spectra are singular values of matrices to be truncated.
func spectra(n int) map[string]func(i int) float64 {
	return map[string]func(i int) float64{
		"slow power":   func(i int) float64 { return math.Pow(1+float64(i), -0.5) },
		"fast power":   func(i int) float64 { return math.Pow(1+float64(i), -1.5) },
		"exponential":  func(i int) float64 { return math.Exp(-float64(i) * 6 / float64(n)) },
		"flat":         func(int) float64 { return 1 },
		"outliers":     func(i int) float64 { return 1 + 1000*math.Max(0, float64(3-i)) },
		"low rank":     func(i int) float64 { return math.Max(0, float64(n/8-i)) },
		"one":          func(i int) float64 { return math.Max(0, float64(1-i)) },
		"nothing":      func(int) float64 { return 0 },
		"a step":       func(i int) float64 { return math.Max(1e-3, math.Min(1, float64(n/4-i))) },
		"a tiny scale": func(i int) float64 { return 1e-30 / (1 + float64(i)) },
	}
}

func TestDominant(t *testing.T) {
	t.Parallel()
	k := best(t)
	const n = 96
	for name, value := range spectra(n) {
		for _, rank := range []int{1, 7, 30, 60, 95, 96} {
			t.Run(fmt.Sprint(name, " ", rank), func(t *testing.T) {
				t.Parallel()
				q := make([]float64, n*n)
				Orthonormal(k, 1, n, n, random(n*n, 4), q)
				g := make([]float64, n*n)
				total, least := 0.0, 0.0
				for i := range n {
					for j := range n {
						s := 0.0
						for l := range n {
							s += q[i*n+l] * q[j*n+l] * value(l) * value(l)
						}
						g[i*n+j] = s
					}
					total += value(i) * value(i)
					if i >= rank {
						least += value(i) * value(i)
					}
				}
				s, err := Dominant(t.Context(), k, 1, n, rank, g, 7, func() {})
				if err != nil {
					t.Fatal(err)
				}
				loss := s.Total - s.Energy
				if !(loss <= least*1.001+1e-11*total) || !(loss >= least-1e-11*total) {
					t.Errorf("loss %g, the least is %g (%+.4f %%) after %d products", loss, least, 100*(loss/least-1), s.Products)
				}
				qm := mat.NewDense(n, rank, s.Basis)
				var gram mat.Dense
				gram.Mul(qm.T(), qm)
				for i := range rank {
					gram.Set(i, i, gram.At(i, i)-1)
				}
				if d := mat.Norm(&gram, 2); !(d < 1e-11) {
					t.Errorf("the basis is %g away from orthonormal", d)
				}
			})
		}
	}
}

// Kernels and threads change no bit of what is found.
func TestDominantBits(t *testing.T) {
	t.Parallel()
	const n, rank = 90, 31
	x := random(n*n, 5)
	g := make([]float64, n*n)
	best(t).GEMM64(1, true, false, n, n, n, x, n, x, n, g, n, false)
	var want []float64
	for _, name := range []string{"scalar", "avx2", "avx512", ""} {
		k, err := tensor.ForName(name)
		if err != nil {
			continue // not this machine's
		}
		for _, threads := range []int{1, 3} {
			s, err := Dominant(t.Context(), k, threads, n, rank, g, 9, func() {})
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = s.Basis
			}
			for i, v := range s.Basis {
				if math.Float64bits(v) != math.Float64bits(want[i]) {
					t.Fatalf("kernel %q, %d threads: element %d is %v and not %v", name, threads, i, v, want[i])
				}
			}
		}
	}
}
