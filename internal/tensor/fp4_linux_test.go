package tensor

import (
	"math/rand/v2"
	"testing"
)

// A step outside of the panel or its results is a fault.
func TestVectorFP4GuardPages(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(47, 47))
	for i := range 120 {
		rows, cols := 1+rng.IntN(3), 32*(1+rng.IntN(70))
		src := guarded(t, rows*cols*2, i%2 == 0)
		fillWeights(rng, src, BF16, rng.IntN(weightKinds))
		for _, s := range fp4Schemes(rng, src, BF16) {
			checkFP4(t, src, BF16, rows, cols, s, func(n int) []byte { return guarded(t, n, i%2 == 0) })
		}
	}
}
