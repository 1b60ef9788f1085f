package tensor

import (
	"math/rand/v2"
	"testing"
)

// A step too far is a fault here.
func TestKeepGuardPages(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(41, 42))
	for i := range 200 {
		m := 4 << (i % 2)
		n, rows, cols, front := 1+rng.IntN(m), 1+rng.IntN(4), 32*(1+rng.IntN(12)), i%3 == 0
		src := guarded(t, rows*cols*2, front)
		fillWeights(rng, src, BF16, 0)
		want := keepOracle(src, BF16, rows, cols, n, m)
		for _, k := range vectorKernels(t) {
			got := newKeep(BF16, rows, cols, n, m)
			got.Mask, got.Kept = guarded(t, len(got.Mask), front), guarded(t, len(got.Kept), front)
			if bad := k.KeepLargest(got, src, BF16, rows, cols, n, m); bad >= 0 {
				t.Fatalf("%s: row %d is refused", k.Name(), bad)
			}
			sameKeep(t, k.Name(), got, want)
		}
	}
}
