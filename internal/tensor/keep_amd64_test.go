//go:build amd64 && !noasm

package tensor

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
)

// Every loop that this CPU runs gives the same, those that it would not choose among them.
func TestKeepLoops(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(51, 52))
	for i := range 400 {
		m := 4 << (i % 2)
		n, cols := 1+rng.IntN(m), 32*(1+rng.IntN(40))
		src := make([]byte, cols*2)
		fillWeights(rng, src, BF16, rng.IntN(weightKinds))
		row := func() *keepRow {
			return &keepRow{mask: make([]byte, cols/8), kept: make([]byte, cols/m*n*2), src: src, d: BF16, n: n, m: m}
		}
		want := row()
		finite := want.plain()
		for loop := keepAVX2; loop <= Detect().keepLoop(); loop++ {
			got := row()
			switch f, served := got.vector(loop); {
			case !served || f != finite:
				t.Fatalf("loop %d: served %v, finite %v, want %v", loop, served, f, finite)
			case !finite:
			case !bytes.Equal(got.mask, want.mask) || !bytes.Equal(got.kept, want.kept):
				t.Fatalf("loop %d: %d of %d: mask %x, want %x; kept %x, want %x", loop, n, m, clip(got.mask), clip(want.mask), clip(got.kept), clip(want.kept))
			case math.Float64bits(got.error) != math.Float64bits(want.error) || math.Float64bits(got.power) != math.Float64bits(want.power):
				t.Fatalf("loop %d: sums %v %v, want %v %v", loop, got.error, got.power, want.error, want.power)
			}
		}
	}
}
