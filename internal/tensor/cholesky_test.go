package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// triangles calls the algorithms of either precision by one name.
type triangles[T float] struct {
	cholesky func(k *Kernels, threads, n int, a []T, lda int) int
	trsm     func(k *Kernels, threads, m, n int, u []T, ldu int, b []T, ldb int)
	inverse  func(k *Kernels, threads, n int, u []T, ldu int, x []T, ldx int)
	factor   func(k *Kernels, threads, n int, h []T, ldh int, work []T) int
	epsilon  float64
}

func triangles32() triangles[float32] {
	return triangles[float32]{(*Kernels).Cholesky, (*Kernels).TRSM, (*Kernels).InverseTransposed, (*Kernels).InverseFactor, 0x1p-24}
}

func triangles64() triangles[float64] {
	return triangles[float64]{(*Kernels).Cholesky64, (*Kernels).TRSM64, (*Kernels).InverseTransposed64, (*Kernels).InverseFactor64, 0x1p-53}
}

// positive returns a symmetric positive definite matrix, of which only the upper
// triangle is there: NaN stands for what must not be read.
func positive[T float](rng *rand.Rand, n, ld int) []T {
	x := make([]float64, (n+8)*n)
	for i := range x {
		x[i] = rng.NormFloat64()
	}
	a := make([]T, max(0, (n-1)*ld+n))
	for i := range a {
		a[i] = T(math.NaN())
	}
	for i := range n {
		for j := i; j < n; j++ {
			s := 0.0
			for p := range n + 8 {
				s += x[p*n+i] * x[p*n+j]
			}
			if i == j {
				s += float64(n) / 100
			}
			a[i*ld+j] = T(s)
		}
	}
	return a
}

func textbookCholesky[T float](n int, a []T, lda int) {
	for i := range n {
		for j := i; j < n; j++ {
			s := a[i*lda+j]
			for p := range i {
				s = fmaOf(-a[p*lda+i], a[p*lda+j], s)
			}
			if j == i {
				s = T(math.Sqrt(float64(s)))
			} else {
				s /= a[i*lda+i]
			}
			a[i*lda+j] = s
		}
	}
}

func textbookSolve[T float](m, n int, u []T, ldu int, b []T, ldb int) {
	for i := range m {
		for j := range n {
			s := b[i*ldb+j]
			for p := range i {
				s = fmaOf(-u[p*ldu+i], b[p*ldb+j], s)
			}
			b[i*ldb+j] = s / u[i*ldu+i]
		}
	}
}

func clone[T float](s []T) []T { return append([]T(nil), s...) }

// Blocks, threads and kernels give the bits of the textbook's loops.
func testTriangles[T float](t *testing.T, f triangles[T], seed uint64) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed, 34))
	sizes := []int{0, 1, 2, 5, 6, 7, 8, 15, 16, 17, 33, 95, 96, 97, 130, 200}
	if testing.Short() {
		sizes = sizes[:len(sizes)-2]
	}
	for _, n := range sizes {
		lda := max(n, 1) + rng.IntN(5)
		a := positive[T](rng, n, lda)
		u := clone(a)
		textbookCholesky(n, u, lda)
		// The right sides; and the identity, which gives the inverse.
		cols := 1 + rng.IntN(200)
		ldb := cols + rng.IntN(5)
		b := make([]T, n*ldb)
		for i := range b {
			b[i] = T(rng.NormFloat64())
		}
		x := clone(b)
		textbookSolve(n, cols, u, lda, x, ldb)
		inv := make([]T, n*n)
		for i := range n {
			inv[i*n+i] = 1
		}
		textbookSolve(n, n, u, lda, inv, max(n, 1))
		for _, k := range allKernels(t) {
			for _, threads := range []int{1, 2, 3} {
				what := fmt.Sprintf("%s on %d threads: n=%d lda=%d: ", k.Name(), threads, n, lda)
				got := clone(a)
				if bad := f.cholesky(k, threads, n, got, lda); bad != -1 {
					t.Fatalf("%spivot %d is bad", what, bad)
				}
				sameBits(t, what+"cholesky", got, u, lda)
				got = clone(b)
				f.trsm(k, threads, n, cols, u, lda, got, ldb)
				sameBits(t, what+"trsm", got, x, ldb)
				got = make([]T, n*n)
				f.inverse(k, threads, n, u, lda, got, max(n, 1))
				sameBits(t, what+"inverse", got, inv, max(n, 1))
			}
		}
	}
}

func TestTriangles32(t *testing.T) { testTriangles(t, triangles32(), 1) }
func TestTriangles64(t *testing.T) { testTriangles(t, triangles64(), 2) }

// Wide blocks give the bits of narrow ones.
func TestTrianglesWide(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 34))
	const n, cols = 600, 70
	a := positive[float64](rng, n, n)
	b := make([]float64, n*cols)
	for i := range b {
		b[i] = rng.NormFloat64()
	}
	k := Detect()
	var want [3][]float64
	for _, wide := range []int{n, 4 * solveBlock} {
		s := solver64(k, 2)
		s.wide = wide
		got := [3][]float64{clone(a), clone(b), make([]float64, n*n)}
		if bad := s.cholesky(n, got[0], n); bad != -1 {
			t.Fatalf("pivot %d is bad", bad)
		}
		s.solve(n, cols, got[0], n, got[1], cols)
		s.inverse("inverse", n, got[0], n, got[2], n)
		if wide == n {
			want = got
		}
		for i, ld := range []int{n, cols, n} {
			sameBits(t, fmt.Sprintf("wide=%d: result %d", wide, i), got[i], want[i], ld)
		}
	}
}

// UᵀU times H is the identity, up to the error that the condition of H allows.
func testInverseFactor[T float](t *testing.T, f triangles[T], seed uint64) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed, 35))
	for _, n := range []int{0, 1, 2, 3, 17, 64, 97, 150} {
		ldh := max(n, 1) + rng.IntN(4)
		h := positive[T](rng, n, ldh)
		for i := range n { // far from singular
			h[i*ldh+i] += T(n)
		}
		var first []T
		for _, k := range allKernels(t) {
			u, work := clone(h), make([]T, n*n)
			if bad := f.factor(k, 2, n, u, ldh, work); bad != -1 {
				t.Fatalf("%s: n=%d: pivot %d is bad", k.Name(), n, bad)
			}
			if first == nil {
				first = u
			}
			sameBits(t, fmt.Sprintf("%s: n=%d", k.Name(), n), u, first, ldh)
		}
		full := clone(h)
		Mirror(n, full, ldh)
		for i := range n {
			for j := range i {
				if first[i*ldh+j] != 0 {
					t.Fatalf("n=%d: row %d column %d is %v, want 0", n, i, j, first[i*ldh+j])
				}
			}
			// Row i of UᵀUH.
			row := make([]float64, n)
			for p := range i + 1 {
				for q := p; q < n; q++ {
					row[q] += float64(first[p*ldh+i]) * float64(first[p*ldh+q])
				}
			}
			for j := range n {
				s := 0.0
				for q := range n {
					s += row[q] * float64(full[q*ldh+j])
				}
				want := 0.0
				if i == j {
					want = 1
				}
				if math.Abs(s-want) > 100*float64(n)*f.epsilon {
					t.Fatalf("n=%d: element %d, %d of UᵀUH is %v, want %v", n, i, j, s, want)
				}
			}
		}
	}
}

func TestInverseFactor32(t *testing.T) { testInverseFactor(t, triangles32(), 1) }
func TestInverseFactor64(t *testing.T) { testInverseFactor(t, triangles64(), 2) }

func TestCholeskyBadPivot(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 34))
	const n = 120
	for _, row := range []int{0, 1, 15, 16, 50, 95, 96, 119} {
		for _, value := range []float64{0, -1, math.NaN(), math.Inf(1)} {
			a := positive[float64](rng, n, n)
			a[row*n+row] = value
			for _, k := range allKernels(t) {
				if bad := k.Cholesky64(2, n, clone(a), n); bad != row {
					t.Errorf("%s: pivot %v in row %d: Cholesky64 says row %d", k.Name(), value, row, bad)
				}
				h := clone(a)
				if bad := k.InverseFactor64(2, n, h, n, make([]float64, n*n)); bad != row {
					t.Errorf("%s: pivot %v in row %d: InverseFactor64 says row %d", k.Name(), value, row, bad)
				}
				sameBits(t, "H", h, a, n)
			}
		}
	}
	// A dead input: a row and column of zeros.
	a := make([]float32, 9)
	a[0], a[8] = 1, 1
	if bad := Detect().Cholesky(1, 3, a, 3); bad != 1 {
		t.Errorf("zeros in row 1: Cholesky says row %d", bad)
	}
}
