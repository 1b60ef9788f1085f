package tensor

import "math"

// Constants of Exp32. ln2High has so few bits that its product with any exponent
// that is not out of range is exact in a fused step.
const (
	log2E   = 1.44269504088896340736
	ln2High = 0.693145751953125 // 16 bits
	ln2Low  = 1.428606820309417232e-06
	// roundShift added to a float32 below 2^22 leaves no bits of a fraction: the sum
	// is rounded to a whole number, ties to even.
	roundShift = 3 << 22
	// expHigh is the least float32 whose power is above the largest one, expLow
	// one whose power is less than half the smallest.
	expHigh = 88.72284
	expLow  = -104
)

// Exp32 returns e to the x, within 1 unit in the last place of a normal result.
//
// With n = x/ln 2 rounded to a whole number and r = x - n·ln 2, at most ln 2 / 2 in
// magnitude, it is 2^n times the Taylor polynomial of degree 7 of e^r: what is
// left out is below r^8/8! = 5.2e-9 of it, a twelfth of a unit. Every step is one
// operation of float32, fused where it is a product and a sum, so that vector code
// does the same. Infinities and NaN are as in mathematics.
func Exp32(x float32) float32 {
	switch {
	case x != x:
		return x
	case x >= expHigh:
		return float32(math.Inf(1))
	case x < expLow:
		return 0
	}
	n := FMA32(x, log2E, roundShift) - roundShift
	r := FMA32(-n, ln2High, x)
	r = FMA32(-n, ln2Low, r)
	p := float32(1.0 / 5040)
	p = FMA32(p, r, 1.0/720)
	p = FMA32(p, r, 1.0/120)
	p = FMA32(p, r, 1.0/24)
	p = FMA32(p, r, 1.0/6)
	p = FMA32(p, r, 0.5)
	p = FMA32(p, r, 1)
	p = FMA32(p, r, 1)
	// Two factors, neither of them out of range: the first product is exact and
	// only the second rounds, which it does for subnormal results.
	half := int32(n) >> 1
	return float32(p*powerOf2(half)) * powerOf2(int32(n)-half)
}

// powerOf2 is 2^n for a normal float32.
func powerOf2(n int32) float32 { return math.Float32frombits(uint32(127+n) << 23) }

// ExpSum returns the largest of the elements and the sum of e^(x-max): lane l
// of 16 adds up the elements l, l+16, ... in order, then the upper half of the
// lanes is added to the lower until one is left. It is NaN if any element is.
// No elements give -Inf and 0.
func (k *Kernels) ExpSum(x []float32) (most, sum float32) {
	most = maximum(x)
	var sums [lanes]float32
	for i, v := range x {
		sums[i%lanes] += Exp32(v - most)
	}
	return most, addLanes(&sums)
}

// Softmax replaces every x[i] by e^(t[i]-max t) / Σ e^(t[j]-max t), with
// t[i] = scale·x[i] rounded to float32 and the sum as in [Kernels.ExpSum].
func (k *Kernels) Softmax(scale float32, x []float32) {
	for i, v := range x {
		x[i] = scale * v
	}
	most := maximum(x)
	var sums [lanes]float32
	for i, v := range x {
		e := Exp32(v - most)
		x[i] = e
		sums[i%lanes] += e
	}
	sum := addLanes(&sums)
	for i, e := range x {
		x[i] = e / sum
	}
}

// maximum returns the largest element, a NaN if there is one, and -Inf of none.
func maximum(x []float32) float32 {
	most := float32(math.Inf(-1))
	for _, v := range x {
		if v > most || v != v {
			most = v
		}
	}
	return most
}

// SiLU replaces every gate[i] by gate[i]/(1+e^-gate[i])·up[i], the gated unit of
// Llama's MLP (Shazeer, "GLU Variants Improve Transformer", 2020, equation 6):
// quotient and product are rounded each.
func (k *Kernels) SiLU(gate, up []float32) {
	checkVectors("SiLU", len(gate), len(up))
	for i, g := range gate {
		gate[i] = float32(g/(1+Exp32(-g))) * up[i]
	}
}
