package tensor

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded returns n bytes that end where memory that cannot be touched begins,
// or, with front set, that begin where it ends.
func guarded(t *testing.T, n int, front bool) []byte {
	t.Helper()
	page := os.Getpagesize()
	pages := (n + page - 1) / page * page
	all, err := unix.Mmap(-1, 0, pages+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	for _, guard := range [][]byte{all[:page], all[page+pages:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	from := page + pages - n
	if front {
		from = page
	}
	return all[from : from+n : from+n]
}

// The vector code neither reads nor writes outside the panel and its results: a
// step too far is a fault here.
func TestVectorGuardPages(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(21, 22))
	types := []DType{BF16, F16, F32}
	for i := range 240 {
		d, front := types[i%3], i%2 == 0
		p := panel{d: d, scale: types[rng.IntN(3)], rows: 1 + rng.IntN(4), group: 32 * (1 + rng.IntN(5)), bits: 2 + rng.IntN(7)}
		p.cols = p.group * (1 + rng.IntN(20))
		p.src = guarded(t, p.rows*p.cols*d.Size(), front)
		fillWeights(rng, p.src, d, rng.IntN(weightKinds))
		want := p.result()
		bad := p.encode(nil, want)
		for _, k := range vectorKernels(t) {
			got := p.result()
			got.Codes = guarded(t, len(got.Codes), front)
			got.Scales = guarded(t, len(got.Scales), front)
			if b := p.encode(k, got); b != bad {
				t.Fatalf("%s: %v: bad row %d, want %d", k.Name(), p, b, bad)
			}
			compareResults(t, k.Name()+": "+p.String(), got, want)
		}
	}
	for n := range 130 {
		ToFloat32(make([]float32, n), guarded(t, 2*n, n%2 == 0), BF16)
	}
	for bits := 1; bits <= 8; bits++ {
		for n := range 70 {
			codes, packed := guarded(t, n, false), guarded(t, PackedRowBytes(n, bits), false)
			PackRow(packed, codes, bits)
			UnpackRow(codes, packed, bits)
		}
	}
}

// Likewise for 8-bit floats.
func TestFloat8GuardPages(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(23, 24))
	for i := range 120 {
		d, front := []DType{BF16, F16, F32}[i%3], i%2 == 0
		groups, group := 1+rng.IntN(6), 32*(1+rng.IntN(9))
		n := groups * group
		src, codes, want := guarded(t, n*d.Size(), front), guarded(t, n, front), make([]byte, n)
		copy(src, float8Weights(rng, d, n, 0.01))
		scales := make([]float32, groups)
		for g := range scales {
			scales[g] = 0.015625
		}
		encodeFloat8(want, src, d, scales, F8E4M3)
		for _, k := range vectorKernels(t) {
			top, plain := make([]uint32, groups), make([]uint32, groups)
			k.MaxMagnitudes(top, src, d, group)
			(*Kernels)(nil).MaxMagnitudes(plain, src, d, group)
			k.EncodeFloat8(codes, src, d, scales, F8E4M3)
			if !slices.Equal(codes, want) || !slices.Equal(top, plain) {
				t.Fatalf("%s: %v, %d groups of %d: other codes or magnitudes than plain", k.Name(), d, groups, group)
			}
		}
	}
}
