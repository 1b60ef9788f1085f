package quantize

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestPower(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(41, 42))
	for range 20000 {
		x := math.Ldexp(0.5+rng.Float64(), rng.IntN(280)-140)
		y := 4*rng.Float64() - 2
		want := math.Pow(x, y)
		if got := power(x, y); math.Abs(got-want) > 2e-11*want {
			t.Fatalf("%g^%g = %.17g, want %.17g", x, y, got, want)
		}
	}
	for _, test := range [][3]float64{{1, 0.3, 1}, {4, 0.5, 2}, {4, -0.5, 0.5}, {10, 0, 1}, {2, 5000, math.MaxFloat64}, {2, -5000, 0}} {
		if got := power(test[0], test[1]); got != test[2] {
			t.Errorf("%g^%g = %.17g, want %.17g", test[0], test[1], got, test[2])
		}
	}
}
