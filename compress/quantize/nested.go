package quantize

import (
	"math"
	"slices"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// nested holds magnitudes that are quantized again: QLoRA's double quantization (Dettmers et al., arXiv 2305.14314, section 3). Their mean
// is taken away, and what is left becomes bytes of the dynamic map in runs of 256.
type nested struct {
	codes  []byte // a byte for each magnitude
	absmax []byte // float32 for each 256 of them
	table  []byte // 256 float32
	offset []byte // float32

	values [256]float32 // of table
	tops   []float32    // of absmax
	mean   float32      // of offset
}

// nest quantizes magnitudes, which it changes. The mean is a float64 sum in order, rounded to float32 once: libraries sum in the order of
// their machine, and readers take what the file says.
func nest(all []float32) *nested {
	var sum float64
	for _, v := range all {
		sum += float64(v)
	}
	offset := float32(sum / float64(len(all)))
	table := dynamicMap()
	var bounds [255]float32
	for i := range bounds {
		bounds[i] = (table[i] + table[i+1]) / 2
	}
	n := &nested{codes: make([]byte, len(all)), table: floatBytes(table[:]), offset: floatBytes([]float32{offset}), values: table, mean: offset}
	for at := 0; at < len(all); at += compress.NestedBlock {
		run := all[at:min(at+compress.NestedBlock, len(all))]
		var top float32
		for i, v := range run {
			run[i] = v - offset
			top = max(top, float32(math.Abs(float64(run[i]))))
		}
		short := len(run) < compress.NestedBlock
		if short {
			top = max(top, tensor.MinAbsmax) // as bitsandbytes has it
		}
		n.tops = append(n.tops, top)
		inverse := 1 / max(top, tensor.MinAbsmax)
		for i, v := range run {
			y := float32(v * inverse)
			if short {
				y = v / top
			}
			code, _ := slices.BinarySearch(bounds[:], y) // the number of bounds below y
			n.codes[at+i] = byte(code)
		}
	}
	n.absmax = floatBytes(n.tops)
	return n
}

// value is what magnitude i decodes to.
func (n *nested) value(i int) float32 {
	return float32(n.values[n.codes[i]]*n.tops[i/compress.NestedBlock]) + n.mean
}

// dynamicMap is the signed dynamic data type of 8 bits (Dettmers, arXiv 1511.04561, section 2.1): for each power of ten from 10^-6 to 1
// twice as many fractions as for the one before, in the middles of even steps from 0.1 to 1 of it; and 0 and 1. Each number is a quotient
// of two whole ones, rounded to float64 and then to float32.
func dynamicMap() [256]float32 {
	var out [256]float32
	all := append(out[:0], 0, 1)
	for i, power := 0, 1e6; i < 7; i, power = i+1, power/10 {
		n := 1 << i
		for k := range n {
			v := float32(float64(2*n+18*k+9) / (float64(20*n) * power))
			all = append(all, v, -v)
		}
	}
	slices.Sort(all)
	return out
}
