package quantize

import "math"

// power gives x^y for a normal x > 0 and |y·log₂x| below 1000, to about 2e-11 of its value, the same bits on every
// machine: math.Pow has code of its own on some. It is exp₂(y·log₂x), both as series.
func power(x, y float64) float64 {
	// x = m·2^k with m above √½ and up to √2. Without a branch, which would be anybody's guess.
	const above = 0x3fe6a09e667f3bcd + 1 // √½, and a little
	b := math.Float64bits(x)
	k := int64(b-above) >> 52
	m := math.Float64frombits(b - uint64(k)<<52)

	// log₂m = 2/ln 2·artanh f = 2/ln 2·(f + f³/3 + f⁵/5 + ...), |f| ≤ 0.1716: the term in f¹⁵ is below 1e-12.
	const c = 2 / math.Ln2
	f := (m - 1) / (m + 1)
	g := float64(f * f)
	sum := float64(g*(c/13)) + c/11
	sum = float64(g*sum) + c/9
	sum = float64(g*sum) + c/7
	sum = float64(g*sum) + c/5
	sum = float64(g*sum) + c/3
	sum = float64(g*sum) + c

	// 2^v = 2^n·e^r, |r| ≤ ½·ln 2: the term in r¹⁰ is below 1e-11.
	v := float64(y * (float64(k) + float64(f*sum)))
	n := math.Floor(v + 0.5)
	r := float64((v - n) * math.Ln2)
	e := float64(r*(1.0/362880)) + 1.0/40320
	e = float64(r*e) + 1.0/5040
	e = float64(r*e) + 1.0/720
	e = float64(r*e) + 1.0/120
	e = float64(r*e) + 1.0/24
	e = float64(r*e) + 1.0/6
	e = float64(r*e) + 0.5
	e = float64(r*e) + 1
	e = float64(r*e) + 1
	switch {
	case n > 1023:
		return math.MaxFloat64
	case n < -1022:
		return 0
	}
	return float64(e * math.Float64frombits(uint64(int(n)+1023)<<52))
}
