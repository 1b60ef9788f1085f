package tensor

import "math"

// Exp, Log, Sin and Cos of float64 for tables and losses, within a few units in the
// last place. Those of package math differ between machines, as some have
// assembly for them and some fuse what Go's code leaves open. Here every product
// that goes into a sum is converted, or fused by math.FMA.

const (
	ln2High64 = 6.93147180369123816490e-01 // 33 bits
	ln2Low64  = 1.90821492927058770002e-10
	// π/2 in three parts of 53 bits each.
	halfPi0 = 1.5707963267948966
	halfPi1 = 6.123233995736766e-17
	halfPi2 = -1.4973849048591833e-33
)

// Exp64 returns e to the x.
func Exp64(x float64) float64 {
	switch {
	case math.IsNaN(x):
		return x
	case x > 709.782712893384:
		return math.Inf(1)
	case x < -745.2:
		return 0
	}
	n := math.RoundToEven(x * log2E)
	r := math.FMA(-n, ln2High64, x)
	r = math.FMA(-n, ln2Low64, r)
	// Taylor: 0.347^15/15! is 1e-19.
	p, c := 1.0, 14.0
	for ; c > 0; c-- {
		p = 1 + float64(float64(p*r)/c)
	}
	return math.Ldexp(p, int(n))
}

// Log64 returns the natural logarithm of x.
func Log64(x float64) float64 {
	switch {
	case math.IsNaN(x) || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case math.IsInf(x, 1):
		return x
	}
	f, n := math.Frexp(x) // 1/2 <= f < 1
	if f < math.Sqrt2/2 {
		f, n = 2*f, n-1
	}
	// ln f = 2·artanh s = 2·(s + s³/3 + s⁵/5 + ...), |s| <= 0.172; the 13th term is 1e-21.
	s := (f - 1) / (f + 1)
	s2, sum := float64(s*s), 0.0
	for k := 25.0; k > 1; k -= 2 {
		sum = float64(s2*sum) + 1/k
	}
	sum = float64(s2*sum) + 1
	e := float64(n)
	return float64(e*ln2High64) + (float64(2*s*sum) + float64(e*ln2Low64))
}

// SinCos64 returns sine and cosine of x, for |x| up to 2^30. Larger ones, and what is not
// a number, give NaN.
func SinCos64(x float64) (sin, cos float64) {
	if !(math.Abs(x) <= 1<<30) {
		return math.NaN(), math.NaN()
	}
	n := math.RoundToEven(x * (2 / math.Pi))
	// The first step cancels and is exact, as halfPi0 has no bits below 2^-52.
	r := math.FMA(-n, halfPi0, x)
	r = math.FMA(-n, halfPi1, r)
	r = math.FMA(-n, halfPi2, r)
	r2 := float64(r * r)
	// Taylor: (π/4)^20/20! is 3e-21.
	sin, cos = 1, 1
	for k := 18.0; k > 0; k -= 2 {
		sin = 1 - float64(float64(r2*sin)/float64(k*(k+1)))
		cos = 1 - float64(float64(r2*cos)/float64(k*(k-1)))
	}
	sin *= r
	switch int64(n) & 3 {
	case 1:
		return cos, -sin
	case 2:
		return -sin, -cos
	case 3:
		return -cos, sin
	}
	return sin, cos
}
