package story

import "math/bits"

// random is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
// Number Generators, 2014). It is written out here, not taken from the
// standard library, so that a seed means the same stories for ever.
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number uniform in [0, n) without bias (Lemire: Fast Random
// Integer Generation in an Interval, 2019). n must be positive.
func (r *random) below(n uint64) uint64 {
	hi, lo := bits.Mul64(r.next(), n)
	if lo < n {
		for reject := -n % n; lo < reject; {
			hi, lo = bits.Mul64(r.next(), n)
		}
	}
	return hi
}
