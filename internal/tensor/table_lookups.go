package tensor

import "math"

// tableLookups is what the vector code finds places in a table with. It does not change once it is made.
type tableLookups struct {
	// The search for a place among the bounds, with the bound in the middle first. AVX-512 looks up the next one by the place as far as it
	// is known: at 0 and 8, at 0, 4, 8, 12, at even numbers.
	middle                 float32
	level2, level3, level4 [16]float32
	values                 [16]float32 // by place
	places                 [16]uint32  // codes by place
	// AVX2 has registers of 8 and looks them up by what it counts, from 0 down, modulo 8.
	lower2, lower3, lower4 [8]float32
	lowValues, highValues  [8]float32
	lookup                 [32]uint8 // codes by place from 0 down, modulo 16; twice

	// Where a number times steps, rounded, says in which of 31 buckets it lies and each has at most one bound, AVX-512 needs one step: magic
	// added to the product leaves the bucket in the lowest five bits. Rounding may put a number beside a bucket's edge into the wrong one,
	// but no bound is near an edge, and so both buckets give it the same place.
	buckets      bool
	steps, magic float32
	bound        [32]float32 // of the bucket, infinity if it has none
	below        [32]uint16  // how many bounds lie in lower buckets
	extra        [2]float32  // bounds that are looked at apart, or infinity
	apart        bool        // they are, or codes are not places
}

// findBuckets looks for steps. The bounds beside the middle, which float formats have close to zero, may be apart.
func (b *tableLookups) findBuckets(t *Table4) {
	b.magic = roundMagic
	for apart := range 2 {
		for steps := 15.49; steps > 13 && !b.buckets; steps -= 0.07 {
			b.buckets = b.tryBuckets(t, float32(steps), apart == 1)
		}
	}
}

func (b *tableLookups) tryBuckets(t *Table4, steps float32, apart bool) bool {
	const margin = 1e-3 // far more than rounding moves a product of at most 16
	b.steps = steps
	infinity := float32(math.Inf(1))
	b.extra = [2]float32{infinity, infinity}
	for i := range b.bound {
		b.bound[i], b.below[i] = infinity, 0
	}
	var bounds []float32
	for i, v := range t.Bounds {
		if apart && (i == 6 || i == 8) {
			b.extra[(i-6)/2] = v
		} else {
			bounds = append(bounds, v)
		}
	}
	used := map[int]bool{}
	for _, v := range bounds {
		at := float64(v) * float64(steps)
		n := math.RoundToEven(at)
		if used[int(n)] || math.Abs(at-n) > 0.5-margin {
			return false
		}
		used[int(n)] = true
		b.bound[int(n)&31] = v
		for higher := int(n) + 1; higher < 16; higher++ {
			b.below[higher&31]++
		}
	}
	b.apart = apart
	for i, c := range t.Codes {
		b.apart = b.apart || int(c) != i
	}
	return true
}

// fill prepares the lookups.
func (b *tableLookups) fill(t *Table4) {
	b.findBuckets(t)
	b.middle = t.Bounds[7]
	for i := range 2 {
		b.level2[8*i], b.lower2[(8-i)%8] = t.Bounds[3+8*i], t.Bounds[3+8*i]
	}
	for i := range 4 {
		b.level3[4*i], b.lower3[(8-i)%8] = t.Bounds[1+4*i], t.Bounds[1+4*i]
	}
	for i := range 8 {
		b.level4[2*i], b.lower4[(8-i)%8] = t.Bounds[2*i], t.Bounds[2*i]
		b.lowValues[(8-i)%8], b.highValues[(8-i)%8] = t.Values[t.Codes[i]], t.Values[t.Codes[8+i]]
	}
	for i, c := range t.Codes {
		b.values[i], b.places[i] = t.Values[c], uint32(c)
		b.lookup[(16-i)%16], b.lookup[16+(16-i)%16] = c, c
	}
}
