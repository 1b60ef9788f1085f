package tensor

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// guardedFloats returns n elements next to memory that cannot be touched.
func guardedFloats[T float](t *testing.T, n int, front bool) []T {
	t.Helper()
	p := guarded(t, n*int(unsafe.Sizeof(*new(T))), front)
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(p))), n)
}

func testGEMMGuardPages[T float](t *testing.T, seed uint64) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed, 32))
	for i := range 120 {
		g := newGEMMCase(rng, 150, func(n int) []T { return guardedFloats[T](t, n, i%2 == 0) })
		if len(g.c) == 0 {
			continue
		}
		first := append([]T(nil), g.c...)
		want := append([]T(nil), g.c...)
		g.run(nil, 1, want)
		for _, k := range vectorKernels(t) {
			copy(g.c, first)
			g.run(k, 1+i%2, g.c)
			sameBits(t, fmt.Sprintf("%s: %v", k.Name(), g), g.c, want, g.ldc)
		}
	}
}

// The vector code neither reads nor writes outside the matrices.
func TestGEMMGuardPages32(t *testing.T) { testGEMMGuardPages[float32](t, 1) }
func TestGEMMGuardPages64(t *testing.T) { testGEMMGuardPages[float64](t, 2) }

func TestVectorsGuardPages(t *testing.T) {
	t.Parallel()
	for n := range 200 {
		x32, y32 := guardedFloats[float32](t, n, n%2 == 0), guardedFloats[float32](t, n, n%2 == 0)
		x64, y64 := guardedFloats[float64](t, n, n%2 == 0), guardedFloats[float64](t, n, n%2 == 0)
		for _, k := range vectorKernels(t) {
			k.Dot(x32, y32)
			k.AXPY(2, x32, y32)
			k.Dot64(x64, y64)
			k.AXPY64(2, x64, y64)
		}
	}
}
