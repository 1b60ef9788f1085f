package quantize

import (
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// grid is the family of even grids of one width. Its arithmetic is that of tensor.EncodeGroups and
// EncodeGroupsAsymmetric, apart from where the range comes from.
type grid struct {
	bits       int
	symmetric  bool
	stored     tensor.DType // of scales
	qmin, qmax float32
	span       float32 // what the range is divided by: (2^b-1)/2 symmetric, 2^b-1 not
}

// point is one grid: ŵ = scale · (q − zero).
type point struct{ scale, zero float32 }

func newGrid(bits int, symmetric bool, stored tensor.DType) grid {
	half := float32(int(1) << (bits - 1))
	g := grid{bits: bits, symmetric: symmetric, stored: stored, qmin: -half, qmax: half - 1}
	g.span = float32(int(1)<<bits - 1)
	if symmetric {
		g.span /= 2
	}
	return g
}

// fit makes the grid of a range, low ≤ 0 ≤ high.
func (g grid) fit(low, high float32) point {
	if g.symmetric {
		return point{scale: g.round(max(-low, high), g.span)}
	}
	s := g.round(high-low, g.span)
	return point{scale: s, zero: roundEven(min(max(g.qmin-float32(low/s), g.qmin), g.qmax))}
}

// round gives the scale that is stored for a range over span steps, never 0 and never infinite: for a range of 0
// the epsilon of the dtype, as compressed-tensors has it; the dtype's smallest value where the quotient is
// too small for it, its largest where too large.
func (g grid) round(width, span float32) float32 {
	var epsilon, tiny, huge float32
	switch g.stored {
	case tensor.BF16:
		epsilon, tiny, huge = 0x1p-7, 0x1p-133, 0x1.fep127
	case tensor.F16:
		epsilon, tiny, huge = 0x1p-10, 0x1p-24, 65504
	default:
		epsilon, tiny, huge = 0x1p-23, 0x1p-149, math.MaxFloat32
	}
	var b [4]byte
	var v [1]float32
	v[0] = width / span
	tensor.FromFloat32(b[:], v[:], g.stored)
	tensor.ToFloat32(v[:], b[:], g.stored)
	switch {
	case width == 0:
		return epsilon
	case v[0] == 0:
		return tiny
	}
	return min(v[0], huge)
}

// store writes the scale of pt, which round has made exact in the stored dtype.
func (g grid) store(dst []byte, pt point) {
	v := [1]float32{pt.scale}
	tensor.FromFloat32(dst[:g.stored.Size()], v[:], g.stored)
}

func (g grid) storeZero(pt point) uint8 { return uint8(int32(pt.zero - g.qmin)) }

// quantize gives the point of the grid nearest to x.
func (g grid) quantize(x float32, pt point) float32 {
	return roundEven(min(max(float32(x/pt.scale)+pt.zero, g.qmin), g.qmax))
}

// lanes is the number of float32 sums of EncodeGroups.
const lanes = 16

// encode writes the codes of a group and returns Σ(x − x̂)² and Σx², summed as EncodeGroups sums them.
func (g grid) encode(codes []uint8, x []float32, pt point) (err2, pow2 float32) {
	var e2, p2 [lanes]float32
	for i, v := range x {
		q := g.quantize(v, pt)
		e := tensor.FMA32(-(q - pt.zero), pt.scale, v)
		l := i % lanes
		e2[l] = tensor.FMA32(e, e, e2[l])
		p2[l] = tensor.FMA32(v, v, p2[l])
		codes[i] = uint8(int32(q - g.qmin))
	}
	return addLanes(&e2), addLanes(&p2)
}

// addLanes adds the lanes as a tree of distance 8, 4, 2, 1.
func addLanes(v *[lanes]float32) float32 {
	for d := lanes / 2; d > 0; d /= 2 {
		for l := range d {
			v[l] += v[l+d]
		}
	}
	return v[0]
}

// roundEven rounds |v| < 2^22 to an integer, ties to even: the sum's last place is 1.
func roundEven(v float32) float32 { return v + 0x1.8p23 - 0x1.8p23 }

// extent gives the range of x widened to include 0.
func extent(x []float32) (low, high float32) {
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

func finite(x []float32) bool {
	for _, v := range x {
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return false
		}
	}
	return true
}
