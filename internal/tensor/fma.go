package tensor

import "math"

// FMA32 returns x*y + z rounded once to the nearest float32, ties to even, on
// every architecture.
//
// float32(math.FMA(float64(x), float64(y), float64(z))) is not that: it rounds
// to 53 bits and then to 24, and the first rounding can make a tie that the
// second one decides wrongly. The sum is safe to round again unless its
// 53 bits look like such a tie, or the float32 is subnormal, where the tie sits
// elsewhere.
func FMA32(x, y, z float32) float32 {
	// The product of two 24-bit significands fits 53 bits: p is exact, so a
	// compiler that fuses it into the sum changes nothing.
	s := float64(x)*float64(y) + float64(z)
	if fmaUnsafe(s) {
		return fma32Odd(x, y, z)
	}
	return float32(s)
}

// fmaUnsafe reports whether a float64 sum may not simply be rounded to float32.
// FMA32 itself is too large to be inlined: a loop that needs the speed calls
// this and fma32Odd.
func fmaUnsafe(s float64) bool {
	b := math.Float64bits(s)
	return b&(1<<29-1) == 1<<28 || b<<1 < 897<<53 // exponent below that of 2^-126
}

// fma32Odd rounds the float64 sum to odd: the last bit says whether anything
// was lost, so rounding to the 24 or fewer bits of a float32 sees no false tie
// (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
func fma32Odd(x, y, z float32) float32 {
	p := float64(float64(x) * float64(y))
	a := float64(z)
	s := p + a
	// Knuth's two-sum: p + a = s + t exactly. No step can overflow, and a
	// product of float32 is far above the smallest float64.
	v := s - p
	t := (p - (s - v)) + (a - v)
	b := math.Float64bits(s)
	if t != 0 && b&1 == 0 && !math.IsNaN(t) {
		if (t > 0) == (s > 0) {
			b++
		} else {
			b--
		}
	}
	return float32(math.Float64frombits(b))
}
