package tensor

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The vector code gives the bits of the plain code, for all lengths, far and near zero points and values beyond the grid.
func TestGridError(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(31, 32))
	for i := range 3000 {
		x := make([]float32, 1+rng.IntN(80))
		if i%3 > 0 {
			x = make([]float32, 16*(1+rng.IntN(20)))
		}
		qmin, qmax := codeRange(2 + i%7)
		for j := range x {
			switch rng.IntN(10) {
			case 0:
				x[j] = float32(rng.IntN(64)-32) / 2 // ties
			case 1:
				x[j] = float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(250)-140))
			default:
				x[j] = float32(rng.NormFloat64()) * qmax
			}
		}
		zero := float32(rng.NormFloat64() * math.Pow(10, float64(rng.IntN(6)-2)))
		if i%5 == 0 {
			zero = roundEven(zero)
		}
		var k *Kernels
		abs, sum, top := k.GridError(x, zero, qmin, qmax)
		if wantAbs, wantSum, wantTop := gridErrorOracle(x, zero, qmin, qmax); abs != wantAbs || sum != wantSum || top != wantTop {
			t.Fatalf("%d elements: %v %v %v, the oracle says %v %v %v", len(x), abs, sum, top, wantAbs, wantSum, wantTop)
		}
		for _, k := range vectorKernels(t) {
			a, s, m := k.GridError(x, zero, qmin, qmax)
			if math.Float32bits(a) != math.Float32bits(abs) || math.Float32bits(s) != math.Float32bits(sum) || math.Float32bits(m) != math.Float32bits(top) {
				t.Fatalf("%s: %d elements: %v %v %v, plain code says %v %v %v", k.Name(), len(x), a, s, m, abs, sum, top)
			}
		}
	}
}

// gridErrorOracle says it with the standard library's rounding.
func gridErrorOracle(x []float32, zero, qmin, qmax float32) (abs, sum, top float32) {
	var a, s [16]float32
	for i, v := range x {
		q := float32(math.RoundToEven(math.Min(math.Max(float64(v+zero), float64(qmin)), float64(qmax))))
		p := q - zero
		r := p - v
		a[i%16] += float32(math.Abs(float64(r)))
		s[i%16] += r
		top = max(top, float32(math.Abs(float64(r))))
	}
	for d := 8; d > 0; d /= 2 {
		for l := range d {
			a[l] += a[l+d]
			s[l] += s[l+d]
		}
	}
	return a[0], s[0], top
}
