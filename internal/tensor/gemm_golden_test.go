package tensor

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
)

// The bits of products and decompositions, on every kernel, architecture and
// build: a change here changes what users get.
func TestGEMMGolden(t *testing.T) {
	t.Parallel()
	const want = "cadb9252817ee7625bfc479737d7e1b8934ebe7997e915a9940c5b5300e1e8c4"
	for _, k := range allKernels(t) {
		t.Run(k.Name(), func(t *testing.T) {
			t.Parallel()
			const m, n, kk = 53, 90, 77
			x := uint64(7)
			next := func() float64 { // integer work only, exact in float32
				x = x*6364136223846793005 + 1442695040888963407
				return float64(int32(x>>40)-1<<23) * 0x1p-20
			}
			a32, b32, c32 := make([]float32, m*kk), make([]float32, kk*n), make([]float32, m*n)
			a64, b64, c64 := make([]float64, m*kk), make([]float64, kk*n), make([]float64, m*n)
			for i := range a32 {
				a64[i] = next()
				a32[i] = float32(a64[i])
			}
			for i := range b32 {
				b64[i] = next()
				b32[i] = float32(b64[i])
			}
			k.GEMM(2, false, false, m, n, kk, a32, kk, b32, n, c32, n, false)
			k.SubGEMM(2, true, true, m, n, kk, a32, m, b32, kk, c32, n)
			k.GEMM64(2, false, false, m, n, kk, a64, kk, b64, n, c64, n, false)
			k.SubGEMM64(2, true, true, m, n, kk, a64, m, b64, kk, c64, n)
			s32, s64 := make([]float32, m*m), make([]float64, m*m)
			k.SYRK(2, m, kk, a32, m, s32, m, false)
			k.SYRK64(2, m, kk, a64, m, s64, m, false)
			f32, f64 := clone(s32), clone(s64)
			if bad := k.InverseFactor(2, m, f32, m, make([]float32, m*m)); bad != -1 {
				t.Fatalf("pivot %d is bad", bad)
			}
			if bad := k.InverseFactor64(2, m, f64, m, make([]float64, m*m)); bad != -1 {
				t.Fatalf("pivot %d is bad", bad)
			}
			h := sha256.New()
			for _, v := range []any{c32, c64, s32, s64, f32, f64, k.Dot(b32, b32), k.Dot64(b64, b64)} {
				if err := binary.Write(h, binary.LittleEndian, v); err != nil {
					t.Fatal(err)
				}
			}
			if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
				t.Errorf("digest is %s, want %s", got, want)
			}
		})
	}
}
