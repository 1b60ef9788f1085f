package main

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"strings"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

const (
	// quantiles is the number of values a weight can take: one for each 16-bit draw.
	quantiles = 1 << 16
	// spread is the standard deviation of weights, that of freshly initialized models.
	spread = 0.02
	// drawn is the number of elements that one step of the generator gives.
	drawn = 4
)

// fillable says whether weights can be made up in the element type.
func fillable(d tensor.DType) bool {
	return d == tensor.F32 || d == tensor.F16 || d == tensor.BF16 || d == tensor.F8E4M3
}

// kind is what a tensor is drawn from.
type kind int

const (
	weight  kind = iota // normal, spread
	norm                // close to one
	scale               // positive, of the size of FP8 block scales
	quarter             // normal, filling the range of FP8
)

func kindOf(t shard.TensorSpec) kind {
	switch {
	case strings.HasSuffix(t.Name, "_scale_inv") || strings.HasSuffix(t.Name, "_scale"):
		return scale
	case t.DType == "F8_E4M3":
		return quarter
	case len(t.Shape) == 1 && strings.HasSuffix(t.Name, "norm.weight"):
		return norm
	}
	return weight
}

// palette is a table of encoded values, all equally likely, whose distribution is the wanted one.
type palette struct {
	size    int    // bytes of an element
	encoded []byte // quantiles × size
}

// palettes keeps the tables that were needed so far.
type palettes map[[2]int]palette

func (p palettes) of(k kind, d tensor.DType) palette {
	key := [2]int{int(k), int(d)}
	if _, made := p[key]; !made {
		p[key] = newPalette(k, d)
	}
	return p[key]
}

func newPalette(k kind, d tensor.DType) palette {
	values := make([]float32, quantiles)
	for i := range values {
		// The i-th quantile of the normal distribution. A fused step inside Erfinv may change the last bit of the float64, which
		// 16-bit elements do not see; float32 is cut to 16 bits of mantissa below for the same reason.
		normal := math.Sqrt2 * math.Erfinv(2*(float64(i)+0.5)/quantiles-1)
		switch k {
		case weight:
			values[i] = float32(normal * spread)
		case norm:
			values[i] = float32(1 + normal*0.05)
		case scale:
			values[i] = float32(2e-4 * (1 + math.Abs(normal)))
		case quarter:
			values[i] = float32(max(-448, min(448, normal*100)))
		}
	}
	p := palette{size: d.Size(), encoded: make([]byte, quantiles*d.Size())}
	switch d {
	case tensor.F32:
		for i, v := range values {
			binary.LittleEndian.PutUint32(p.encoded[4*i:], (math.Float32bits(v)+0x40)&^0x7f)
		}
	case tensor.F8E4M3:
		for i, v := range values {
			p.encoded[i] = toE4M3(v)
		}
	default:
		tensor.FromFloat32(p.encoded, values, d)
	}
	return p
}

// toE4M3 rounds half away from zero to the 8-bit float with bias 7, largest value 448 = 0x7e and subnormals of 2^-9.
func toE4M3(v float32) byte {
	var sign byte
	if v < 0 {
		sign, v = 0x80, -v
	}
	switch {
	case v == 0:
		return sign
	case v >= 448:
		return sign | 0x7e
	}
	_, exponent := math.Frexp(float64(v)) // v in [2^(exponent-1), 2^exponent)
	exponent = max(exponent-1, -6)        // subnormals share the exponent of the smallest normal
	steps := int(math.Round(math.Ldexp(float64(v), 3-exponent)))
	return sign | byte(steps+(exponent+6)<<3) // the carry of a mantissa that rounds up goes where it belongs
}

// generator is splitmix64 (Steele, Lea and Flood 2014): a counter and a mixing function.
type generator uint64

// seed is the start of a tensor's generator.
func seed(name string) generator {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return generator(h.Sum64())
}

func (g *generator) next() uint64 {
	*g += 0x9e3779b97f4a7c15
	z := uint64(*g)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// fill draws elements until dst is full; dst holds a whole number of steps, or is the end of its tensor.
func (p palette) fill(dst []byte, g *generator) {
	switch p.size {
	case 1:
		dst = p.fill1(dst, g)
	case 2:
		dst = p.fill2(dst, g)
	case 4:
		dst = p.fill4(dst, g)
	}
	for len(dst) > 0 {
		r := g.next()
		for range drawn {
			i := int(r&(quantiles-1)) * p.size
			dst = dst[copy(dst, p.encoded[i:i+p.size]):]
			r >>= 16
			if len(dst) == 0 {
				return
			}
		}
	}
}

// fill1 fills whole steps of one-byte elements and returns the rest.
func (p palette) fill1(dst []byte, g *generator) []byte {
	table := (*[quantiles]byte)(p.encoded)
	for ; len(dst) >= 4; dst = dst[4:] {
		r := g.next()
		binary.LittleEndian.PutUint32(dst, uint32(table[r&0xffff])|uint32(table[r>>16&0xffff])<<8|
			uint32(table[r>>32&0xffff])<<16|uint32(table[r>>48])<<24)
	}
	return dst
}

// fill2 does so for two-byte elements.
func (p palette) fill2(dst []byte, g *generator) []byte {
	table := (*[2 * quantiles]byte)(p.encoded)
	for ; len(dst) >= 8; dst = dst[8:] {
		r := g.next()
		a, b, c, d := 2*(r&0xffff), 2*(r>>16&0xffff), 2*(r>>32&0xffff), 2*(r>>48)
		word := uint64(table[a]) | uint64(table[a+1])<<8 | uint64(table[b])<<16 | uint64(table[b+1])<<24 |
			uint64(table[c])<<32 | uint64(table[c+1])<<40 | uint64(table[d])<<48 | uint64(table[d+1])<<56
		binary.LittleEndian.PutUint64(dst, word)
	}
	return dst
}

// fill4 does so for four-byte elements.
func (p palette) fill4(dst []byte, g *generator) []byte {
	for ; len(dst) >= 16; dst = dst[16:] {
		r := g.next()
		for j := range drawn {
			i := 4 * int(r>>(16*j)&0xffff)
			binary.LittleEndian.PutUint32(dst[4*j:], binary.LittleEndian.Uint32(p.encoded[i:]))
		}
	}
	return dst
}
