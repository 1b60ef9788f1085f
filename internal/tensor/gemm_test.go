package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// gemmCase is one call of any of the products, in either precision.
type gemmCase[T float] struct {
	transA, transB          bool
	m, n, k                 int
	lda, ldb, ldc           int
	a, b, c                 []T
	accumulate, sub, square bool // square: A in place of B, and the upper triangle only
}

func (g gemmCase[T]) String() string {
	return fmt.Sprintf("transA=%t transB=%t m=%d n=%d k=%d lda=%d ldb=%d ldc=%d accumulate=%t sub=%t square=%t",
		g.transA, g.transB, g.m, g.n, g.k, g.lda, g.ldb, g.ldc, g.accumulate, g.sub, g.square)
}

// newGEMMCase makes a call with sizes of at most most; alloc makes its matrices.
func newGEMMCase[T float](rng *rand.Rand, most int, alloc func(n int) []T) gemmCase[T] {
	size := func() int {
		if rng.IntN(4) == 0 {
			return 1 + rng.IntN(min(most, 8))
		}
		return 1 + rng.IntN(most)
	}
	gap := func() int { return rng.IntN(3) * rng.IntN(20) }
	g := gemmCase[T]{
		transA: rng.IntN(2) == 0, transB: rng.IntN(2) == 0, m: size(), n: size(), k: size(),
		accumulate: rng.IntN(2) == 0, sub: rng.IntN(4) == 0, square: rng.IntN(4) == 0,
	}
	if rng.IntN(40) == 0 {
		g.k = 0
	}
	if g.square {
		g.transA, g.transB, g.sub, g.m = true, false, false, g.n
	}
	g.accumulate = g.accumulate || g.sub
	make2 := func(rows, cols int) ([]T, int) {
		ld := max(cols, 1) + gap()
		if rows*cols == 0 {
			return nil, ld
		}
		s := alloc((rows-1)*ld + cols)
		for i := range s {
			s[i] = T(rng.NormFloat64())
		}
		return s, ld
	}
	if g.transA {
		g.a, g.lda = make2(g.k, g.m)
	} else {
		g.a, g.lda = make2(g.m, g.k)
	}
	if g.transB {
		g.b, g.ldb = make2(g.n, g.k)
	} else {
		g.b, g.ldb = make2(g.k, g.n)
	}
	g.c, g.ldc = make2(g.m, g.n)
	return g
}

// element returns element i, p of op(A) and p, j of op(B).
func (g gemmCase[T]) element(i, j, p int) (x, y T) {
	if g.transA {
		x = g.a[p*g.lda+i]
	} else {
		x = g.a[i*g.lda+p]
	}
	switch {
	case g.square:
		y = g.a[p*g.lda+j]
	case g.transB:
		y = g.b[j*g.ldb+p]
	default:
		y = g.b[p*g.ldb+j]
	}
	if g.sub {
		x = -x
	}
	return x, y
}

func fmaOf[T float](x, y, z T) T {
	if s, ok := any(x).(float32); ok {
		return T(FMA32(s, float32(y), float32(z)))
	}
	return T(math.FMA(float64(x), float64(y), float64(z)))
}

// want is the definition: one chain for each element.
func (g gemmCase[T]) want() []T {
	c := append([]T(nil), g.c...)
	for i := range g.m {
		for j := range g.n {
			if g.square && j < i {
				continue
			}
			s := T(0)
			if g.accumulate {
				s = g.c[i*g.ldc+j]
			}
			for p := range g.k {
				x, y := g.element(i, j, p)
				s = fmaOf(x, y, s)
			}
			c[i*g.ldc+j] = s
		}
	}
	return c
}

// run computes the call into c, which holds what g.c did.
func (g gemmCase[T]) run(k *Kernels, threads int, c []T) {
	switch c := any(c).(type) {
	case []float32:
		a, _ := any(g.a).([]float32)
		b, _ := any(g.b).([]float32)
		switch {
		case g.square:
			k.SYRK(threads, g.n, g.k, a, g.lda, c, g.ldc, g.accumulate)
		case g.sub:
			k.SubGEMM(threads, g.transA, g.transB, g.m, g.n, g.k, a, g.lda, b, g.ldb, c, g.ldc)
		default:
			k.GEMM(threads, g.transA, g.transB, g.m, g.n, g.k, a, g.lda, b, g.ldb, c, g.ldc, g.accumulate)
		}
	case []float64:
		a, _ := any(g.a).([]float64)
		b, _ := any(g.b).([]float64)
		switch {
		case g.square:
			k.SYRK64(threads, g.n, g.k, a, g.lda, c, g.ldc, g.accumulate)
		case g.sub:
			k.SubGEMM64(threads, g.transA, g.transB, g.m, g.n, g.k, a, g.lda, b, g.ldb, c, g.ldc)
		default:
			k.GEMM64(threads, g.transA, g.transB, g.m, g.n, g.k, a, g.lda, b, g.ldb, c, g.ldc, g.accumulate)
		}
	}
}

// sameBits compares everything, what lies between the rows too. One NaN is as
// good as another.
func sameBits[T float](t *testing.T, what string, got, want []T, ld int) {
	t.Helper()
	for i := range want {
		x, y := float64(got[i]), float64(want[i])
		if math.Float64bits(x) != math.Float64bits(y) && (x == x || y == y) {
			t.Fatalf("%s: row %d column %d is %v, want %v", what, i/ld, i%ld, got[i], want[i])
		}
	}
}

// allKernels returns every kernel, the plain code first.
func allKernels(tb testing.TB) []*Kernels {
	return append([]*Kernels{nil}, vectorKernels(tb)...)
}

func (g gemmCase[T]) check(t *testing.T) {
	t.Helper()
	want := g.want()
	for _, k := range allKernels(t) {
		for threads := range 4 {
			c := append([]T(nil), g.c...)
			g.run(k, threads, c)
			sameBits(t, fmt.Sprintf("%s on %d threads: %v", k.Name(), threads, g), c, want, g.ldc)
		}
	}
}

func testGEMM[T float](t *testing.T, seed uint64) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed, 31))
	alloc := func(n int) []T { return make([]T, n) }
	for range 150 {
		newGEMMCase(rng, 40, alloc).check(t)
	}
	cases := 12
	if testing.Short() {
		cases = 3
	}
	for range cases {
		newGEMMCase(rng, 200, alloc).check(t)
	}
}

func TestGEMM32(t *testing.T) { testGEMM[float32](t, 1) }
func TestGEMM64(t *testing.T) { testGEMM[float64](t, 2) }

// Every size around those of the tiles, where whole and partial ones meet.
func TestGEMMEdges(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 31))
	for _, m := range []int{1, 5, 6, 7, 11, 12, 13} {
		for _, n := range []int{1, 7, 8, 15, 16, 17, 23, 24, 31, 32, 33, 63, 64, 65, 127, 128, 129} {
			for _, k := range []int{1, 2, 3, 4, 5, 8, 15, 16, 17} {
				g := newGEMMCase(rng, 1, func(n int) []float32 { return make([]float32, n) })
				g.m, g.n, g.k, g.square, g.sub = m, n, k, false, false
				g.lda, g.ldb, g.ldc = max(m, k), max(n, k), n
				fill := func(n int) []float32 {
					s := make([]float32, n)
					for i := range s {
						s[i] = float32(rng.NormFloat64())
					}
					return s
				}
				g.a, g.b, g.c = fill(g.lda*g.lda), fill(g.ldb*g.ldb), fill(m*n)
				g.check(t)
			}
		}
	}
}

// More than one block in every direction, against the plain code.
func TestGEMMBlocks(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("multiplies larger matrices")
	}
	rng := rand.New(rand.NewPCG(4, 31))
	for i := range 6 {
		g := newGEMMCase(rng, 1, func(n int) []float32 { return make([]float32, n) })
		g.transA, g.transB, g.square, g.sub, g.accumulate = i&1 != 0, i&2 != 0, false, false, i&4 != 0
		g.m, g.n, g.k = 391, 61, 1100
		if i&2 != 0 {
			g.m, g.n = 19, 2200
		}
		g.lda, g.ldb, g.ldc = max(g.m, g.k), max(g.n, g.k), g.n
		fill := func(n int) []float32 {
			s := make([]float32, n)
			for i := range s {
				s[i] = rng.Float32() - 0.5
			}
			return s
		}
		g.a, g.b, g.c = fill(g.lda*g.lda), fill(g.ldb*g.ldb), fill(g.m*g.n)
		want := append([]float32(nil), g.c...)
		g.run(nil, 2, want)
		for _, k := range vectorKernels(t) {
			for _, threads := range []int{1, 3} {
				c := append([]float32(nil), g.c...)
				g.run(k, threads, c)
				sameBits(t, fmt.Sprintf("%s on %d threads: %v", k.Name(), threads, g), c, want, g.ldc)
			}
		}
	}
}

// The chain against a sum of exact products in float64: the error of k roundings
// is at most k*2^-24 times the sum of magnitudes (Higham, "Accuracy and
// Stability of Numerical Algorithms", 2002, section 3.1).
func TestGEMMError(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 31))
	for range 40 {
		g := newGEMMCase(rng, 120, func(n int) []float32 { return make([]float32, n) })
		for _, k := range allKernels(t) {
			c := append([]float32(nil), g.c...)
			g.run(k, 2, c)
			for i := range g.m {
				for j := range g.n {
					if g.square && j < i {
						continue
					}
					sum, size := 0.0, 0.0
					if g.accumulate {
						sum = float64(g.c[i*g.ldc+j])
						size = math.Abs(sum)
					}
					for p := range g.k {
						x, y := g.element(i, j, p)
						sum += float64(x) * float64(y)
						size += math.Abs(float64(x) * float64(y))
					}
					if err := math.Abs(float64(c[i*g.ldc+j]) - sum); err > float64(g.k+1)*0x1p-24*size {
						t.Fatalf("%s: %v: row %d column %d is %v, want %v", k.Name(), g, i, j, c[i*g.ldc+j], sum)
					}
				}
			}
		}
	}
}

// A product in pieces along k is the product.
func TestGEMMContinues(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(6, 31))
	const m, n, k = 37, 70, 111
	a, b := make([]float32, m*k), make([]float32, k*n)
	for i := range a {
		a[i] = rng.Float32() - 0.5
	}
	for i := range b {
		b[i] = rng.Float32() - 0.5
	}
	for _, ker := range allKernels(t) {
		want, got := make([]float32, m*n), make([]float32, m*n)
		ker.GEMM(1, false, false, m, n, k, a, k, b, n, want, n, false)
		for p := 0; p < k; {
			w := 1 + rng.IntN(k-p)
			ker.GEMM(1, false, false, m, n, w, a[p:], k, b[p*n:], n, got, n, true)
			p += w
		}
		sameBits(t, ker.Name(), got, want, n)
	}
}

func TestGEMMNotFinite(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 31))
	odd := nasty()
	for range 60 {
		g := newGEMMCase(rng, 50, func(n int) []float32 { return make([]float32, n) })
		for _, s := range [][]float32{g.a, g.b, g.c} {
			for range len(s) / 10 {
				s[rng.IntN(len(s))] = odd[rng.IntN(len(odd))]
			}
		}
		g.check(t)
	}
	for range 30 {
		g := newGEMMCase(rng, 50, func(n int) []float64 { return make([]float64, n) })
		for _, s := range [][]float64{g.a, g.b, g.c} {
			for range len(s) / 20 {
				s[rng.IntN(len(s))] = []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 0x1p-1074, math.Copysign(0, -1)}[rng.IntN(6)]
			}
		}
		g.check(t)
	}
}

func TestMirror(t *testing.T) {
	t.Parallel()
	for n := range 70 {
		ld := n + 3
		c := make([]float64, n*ld)
		for i := range c {
			c[i] = float64(i)
		}
		Mirror(n, c, ld)
		for i := range n {
			for j := range ld {
				want := float64(i*ld + j)
				if j < i {
					want = float64(j*ld + i)
				}
				if c[i*ld+j] != want {
					t.Fatalf("n=%d: row %d column %d is %v, want %v", n, i, j, c[i*ld+j], want)
				}
			}
		}
	}
}

func TestGEMMArguments(t *testing.T) {
	t.Parallel()
	s := make([]float32, 12)
	for _, tt := range []struct {
		name string
		call func()
	}{
		{"negative size", func() { Detect().GEMM(1, false, false, -1, 3, 4, s, 4, s, 3, s, 3, false) }},
		{"short a", func() { Detect().GEMM(1, false, false, 3, 1, 4, s[:11], 4, s, 1, s, 1, false) }},
		{"short b", func() { Detect().GEMM(1, false, true, 1, 3, 4, s, 4, s[:11], 4, s, 3, false) }},
		{"short c", func() { Detect().GEMM(1, false, false, 3, 4, 1, s, 1, s, 4, s[:11], 4, false) }},
		{"lda", func() { Detect().GEMM(1, false, false, 2, 2, 4, s, 3, s, 3, s, 3, false) }},
		{"overflow", func() { Detect().GEMM(1, true, false, 1, 1, math.MaxInt, s, math.MaxInt, s, 1, s, 1, false) }},
		{"mirror", func() { Mirror(4, s, 4) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tt.call()
		})
	}
	// Nothing to do is no mistake.
	Detect().GEMM(1, false, false, 0, 3, 4, nil, 4, s, 3, nil, 3, false)
	Detect().SYRK(2, 0, 5, nil, 1, nil, 1, false)
	c := []float32{1, 2}
	Detect().GEMM(1, false, false, 1, 2, 0, nil, 1, nil, 2, c, 2, true)
	Detect().GEMM(1, false, false, 1, 1, 0, nil, 1, nil, 2, c, 2, false)
	if c[0] != 0 || c[1] != 2 {
		t.Errorf("products over no k leave %v, want 0 and 2", c)
	}
}
