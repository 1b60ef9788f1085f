package quantize

import "math"

// searchSteps is the number of ranges tried: 1, 0.99, ... 0.21 of the full one.
const searchSteps = 80

// shrink gives 1 − i/100 of v, both steps rounded to float32 before anything else is done with them.
func shrink(v float32, i int) float32 { return float32(v * (float32(100-i) / 100)) }

// searchRange gives the grid of x whose range, of the searchSteps ones, has the smallest Σ|x − x̂|^2.4; the widest
// of several.
func (g grid) searchRange(x []float32) point {
	low, high := extent(x)
	best := g.fit(low, high)
	least := g.loss(x, best, math.Inf(1))
	for i := 1; i < searchSteps; i++ {
		pt := g.fit(shrink(low, i), shrink(high, i))
		if pt == best {
			continue
		}
		if loss := g.loss(x, pt, least); loss < least {
			best, least = pt, loss
		}
	}
	return best
}

// loss sums |x − x̂|^2.4 in the order of x. It may stop as soon as the sum has reached bound: no term is
// negative, so the full sum would be no smaller.
func (g grid) loss(x []float32, pt point, bound float64) float64 {
	var sum float64
	scale := float64(pt.scale)
	for i, v := range x {
		q := g.quantize(v, pt)
		// The product is exact: 9 bits times 24.
		e := float64(v) - float64(float64(q-pt.zero)*scale)
		sum += power24(float64(e * e))
		if i%16 == 15 && sum >= bound {
			return sum
		}
	}
	return sum
}

// power24 gives t^1.2 = |e|^2.4 for t = e², to 2e-8 of its value: t · t^(1/5), the fifth root by way of r =
// t^(-1/5), found by Newton's iteration r ← r·(1.2 − 0.2·t·r⁵) without a division. math.Pow is written in
// assembly on some machines and would not give the same bits on all.
//
// t is 0 or lies between 2^-298 (the finest float32 squared) and 2^260.
func power24(t float64) float64 {
	if t == 0 {
		return 0
	}
	// The bits of a float64 are nearly 2^52·(log2 + 1023), so a fifth of them, taken from six fifths of the
	// bits of 1, less a little that evens the error out, is a first guess within 3.2%. Each step squares the error
	// and triples it.
	const firstGuess = 0x4cb8ac083126e979
	r := math.Float64frombits(firstGuess - math.Float64bits(t)/5)
	for range 3 {
		r2 := float64(r * r)
		r5 := float64(float64(r2*r2) * r)
		r = float64(r * (1.2 - float64(0.2*float64(t*r5))))
	}
	r2 := float64(r * r)
	return float64(t * float64(t*float64(r2*r2)))
}
