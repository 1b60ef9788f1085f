package quantize_test

import (
	"encoding/binary"
	"math"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/quantize"
)

// rtnOracle is round to nearest written down as simply as possible, from the description of the format alone.
func rtnOracle(p quantize.RTNParams) func(compress.Linear, []float64) [][]byte {
	return func(l compress.Linear, w []float64) [][]byte {
		rows, cols := int(l.Rows), int(l.Cols)
		o := oracle{bits: p.Bits, symmetric: p.Symmetric, search: p.Search, stored: l.DType}
		if l.DType == "F64" {
			o.stored = "F32"
		}
		x := make([]float32, len(w))
		for i, v := range w {
			x[i] = float32(v)
		}
		// Cut the matrix into the runs that share a scale.
		run := len(x)
		switch p.Strategy {
		case compress.StrategyChannel:
			run = cols
		case compress.StrategyGroup:
			run = int(p.Group)
		}
		var codes []int
		var scales, zeros []byte
		for i := 0; i < len(x); i += run {
			scale, zero := o.grid(x[i : i+run])
			for _, v := range x[i : i+run] {
				codes = append(codes, o.code(v, scale, zero)+1<<(p.Bits-1))
			}
			scales = append(scales, o.scaleBytes(scale)...)
			zeros = append(zeros, byte(int(zero)+1<<(p.Bits-1)))
		}
		var packed []byte
		for row := range rows {
			packed = append(packed, pack(codes[row*cols:][:cols], p.Bits)...)
		}
		if p.Symmetric {
			return [][]byte{packed, scales}
		}
		return [][]byte{packed, scales, zeros}
	}
}

type oracle struct {
	bits              int
	symmetric, search bool
	stored            string
}

// grid gives the scale and zero point of the weights that share them.
func (o oracle) grid(x []float32) (scale, zero float32) {
	low, high := float32(0), float32(0)
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	if !o.search {
		return o.fit(low, high)
	}
	least := math.Inf(1)
	for i := range 80 {
		p := float32(100-i) / 100
		s, z := o.fit(float32(low*p), float32(high*p))
		loss := 0.0
		for _, v := range x {
			loss += math.Pow(math.Abs(float64(v)-(float64(o.code(v, s, z))-float64(z))*float64(s)), 2.4)
		}
		if loss < least*(1-1e-12) { // math.Pow is not exact: equal losses may come out unequal
			least, scale, zero = loss, s, z
		}
	}
	return scale, zero
}

func (o oracle) fit(low, high float32) (scale, zero float32) {
	levels := float32(math.Pow(2, float64(o.bits)) - 1)
	if o.symmetric {
		return o.store(max(-low, high), levels/2), 0
	}
	scale = o.store(high-low, levels)
	return scale, float32(o.clampRound(o.lowest() - low/scale))
}

func (o oracle) lowest() float32 { return -float32(math.Pow(2, float64(o.bits-1))) }

func (o oracle) clampRound(v float32) int {
	low := float64(o.lowest())
	return int(math.RoundToEven(math.Max(low, math.Min(-low-1, float64(v)))))
}

func (o oracle) code(v, scale, zero float32) int { return o.clampRound(float32(v/scale) + zero) }

// format is a binary floating-point format: bits of the significand, and the exponents of the smallest
// subnormal, of epsilon and of the largest number.
type format struct{ digits, tiny, epsilon int }

func (o oracle) format() format {
	switch o.stored {
	case "BF16":
		return format{8, -133, -7}
	case "F16":
		return format{11, -24, -10}
	}
	return format{24, -149, -23}
}

// store divides and rounds to the stored dtype.
func (o oracle) store(width, span float32) float32 {
	f := o.format()
	if width == 0 {
		return float32(math.Ldexp(1, f.epsilon))
	}
	s := float64(width / span)
	if s == 0 {
		return float32(math.Ldexp(1, f.tiny))
	}
	ulp := math.Ldexp(1, max(math.Ilogb(s)-f.digits+1, f.tiny))
	s = math.RoundToEven(s/ulp) * ulp
	if s == 0 {
		s = math.Ldexp(1, f.tiny)
	}
	if o.stored == "F16" {
		s = math.Min(s, 65504)
	}
	return float32(s)
}

// halves lists the values of all positive binary16 numbers by code.
var halves = sync.OnceValue(func() map[float32]uint16 {
	m := map[float32]uint16{}
	for h := range uint16(0x7c00) {
		e, f := int(h>>10), float64(h&0x3ff)
		v := math.Ldexp(f, -24)
		if e > 0 {
			v = math.Ldexp(1024+f, e-25)
		}
		m[float32(v)] = h
	}
	return m
})

func (o oracle) scaleBytes(s float32) []byte {
	switch o.stored {
	case "BF16":
		return binary.LittleEndian.AppendUint16(nil, uint16(math.Float32bits(s)>>16))
	case "F16":
		return binary.LittleEndian.AppendUint16(nil, halves()[s])
	}
	return binary.LittleEndian.AppendUint32(nil, math.Float32bits(s))
}

// pack writes codes as a stream of bits, lowest first, in whole 32-bit words.
func pack(codes []int, bits int) []byte {
	out := make([]byte, (len(codes)*bits+31)/32*4)
	for i, c := range codes {
		for b := range bits {
			at := i*bits + b
			out[at/8] |= byte(c>>b&1) << (at % 8)
		}
	}
	return out
}
