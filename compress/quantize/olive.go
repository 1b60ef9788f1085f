package quantize

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// OliVe is outlier-victim pair quantization (Guo et al., "OliVe: Accelerating Large Language Models via Hardware-friendly Outlier-Victim
// Pair Quantization", arXiv 2304.07493): an integer grid that is made for most weights, and for a weight beyond it a coarse float in its
// place, at the cost of its neighbour, which becomes 0. What codes mean is in compress.Pairs.
//
// It minimises Σ(w − ŵ)² of a row, or of a group of its columns, over scales: those for which the top of the grid lies at 0.75, 0.77, ...
// 2.49 of max(|μ − 3σ|, |μ + 3σ|) (search_mse of the authors' quant_modules.py, with the bounds of their scripts; σ with n − 1), and, beyond the paper, at the largest weight: that
// is the plain grid without outliers, above whose error no row ends. A weight goes to the nearest of the integers and the floats; of a
// pair of two outliers the first stays.
//
// Differences to the authors' code: it stores no codes at all, and simulates them in float; weights beyond the largest float are clamped,
// where theirs take 0 if they are very large; scales are rounded to the type that they are stored in, which is that of the weights, before
// they are tried.
//
// Cost: about 90 passes of a group over the cache, without vector code, given up early where the error is too large.
//
// shardpress and dense can hold it.
type OliVe struct{ params OliVeParams }

// OliVeName is the method's name in recipes.
const OliVeName = "olive"

// oliveVersion changes whenever the bytes of any output do.
const oliveVersion = 1

// OliVeParams are the parameters of OliVe.
type OliVeParams struct {
	Bits     int    `json:"bits"`
	Strategy string `json:"strategy"`
	Group    int64  `json:"group,omitempty"` // with strategy group only
}

// OliVeParameters describes OliVeParams.
func OliVeParameters() []compress.Parameter {
	shared := strategyParameters(128)
	shared[0].Default = compress.StrategyChannel
	return append([]compress.Parameter{
		{Name: "bits", Kind: compress.ParameterInt, Default: int64(4), Min: 4, Max: 8, Doc: "bits of a code: 4 or 8"},
	}, shared...)
}

// Validate refuses parameters that no linear can be encoded with.
func (p OliVeParams) Validate() error {
	if p.Bits != 4 && p.Bits != 8 {
		return compress.Invalidf("bits is %d, and takes 4 or 8", p.Bits)
	}
	if err := checkStrategy(p.Strategy, p.Group); err != nil {
		return err
	}
	if p.Group%2 != 0 {
		return compress.Invalidf("group is %d, and takes an even number: columns are encoded in pairs", p.Group)
	}
	return nil
}

// NewOliVe makes the method.
func NewOliVe(p OliVeParams) (*OliVe, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &OliVe{params: p}, nil
}

// Name implements compress.Method.
func (m *OliVe) Name() string { return OliVeName }

// Version implements compress.Method.
func (m *OliVe) Version() int { return oliveVersion }

// Layout implements compress.Method.
func (m *OliVe) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	_, work, err := workDType(l)
	if err != nil {
		return compress.Layout{}, err
	}
	if l.Cols%2 != 0 {
		return compress.Layout{}, compress.Invalidf("encode %s: its %d columns are no pairs, in which %s encodes: put the linear on the recipe's ignore list, or choose another method",
			l.Name, l.Cols, OliVeName)
	}
	group, err := columnsOfScale(l, m.params.Strategy, m.params.Group)
	if err != nil {
		return compress.Layout{}, err
	}
	s := compress.Pairs{Bits: m.params.Bits, Group: group, ScaleDType: work.String()}
	return compress.Layout{
		Scheme:     s,
		Components: s.Components(l.Rows, l.Cols),
		RowUnit:    1,
		Scratch:    l.Cols * (4 + 4 + 1), // a row of float32, one decoded, one of codes
	}, nil
}

// Prepare implements compress.Method.
func (m *OliVe) Prepare(_ context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	if _, err := tensor.ForName(string(o.Kernel)); err != nil {
		return nil, compress.Invalidf("prepare %s: %w", OliVeName, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		l := w.Linear()
		layout, err := m.Layout(l)
		if err != nil {
			return nil, err
		}
		_, work, err := workDType(l)
		if err != nil {
			return nil, err
		}
		e := &oliveRows{linear: l, layout: layout, group: int(l.Cols), work: work, grid: newGrid(m.params.Bits, false, work), pairs: newPairs(m.params.Bits)}
		if m.params.Strategy == compress.StrategyGroup {
			e.group = int(m.params.Group)
		}
		out[i] = e
	}
	return out, nil
}

// pairs knows the values that pairs of codes can have, in steps of the scale.
type pairs struct {
	bits       int
	fraction   int     // bits of an outlier's fraction
	top        float32 // largest integer
	edge       float32 // halfway between it and the smallest outlier
	first, far float32 // smallest and largest outlier
}

func newPairs(bits int) pairs {
	p := pairs{bits: bits, fraction: bits - 3, top: float32(int(1)<<(bits-1) - 1)}
	s := compress.Pairs{Bits: bits}
	p.first, p.far = s.Outlier(1), s.Outlier(1<<(bits-1)-1)
	p.edge = (p.top + p.first) / 2
	return p
}

// values gives what the pair a, b becomes, and which of the two is an outlier: 1, 2, or 0 for none.
func (p *pairs) values(a, b float32) (va, vb float32, outlier int) {
	switch {
	case max(a, -a) >= p.edge:
		return p.outlier(a), 0, 1
	case max(b, -b) >= p.edge:
		return 0, p.outlier(b), 2
	}
	return roundEven(min(max(a, -p.top), p.top)), roundEven(min(max(b, -p.top), p.top)), 0
}

// outlier rounds |v| ≥ edge to an outlier, ties away from 0.
func (p *pairs) outlier(v float32) float32 {
	const sign = 1 << 31
	u := math.Float32bits(v) &^ sign
	drop := 23 - p.fraction
	u = (u + 1<<(drop-1)) >> drop << drop
	r := min(max(math.Float32frombits(u), p.first), p.far)
	return math.Float32frombits(math.Float32bits(r) | math.Float32bits(v)&sign)
}

// code gives the code of an outlier.
func (p *pairs) code(v float32) uint8 {
	u := math.Float32bits(v)
	exponent := int(u>>23&0xff) - 127 - (p.bits - 1)
	fraction := int(u>>(23-p.fraction)) & (1<<p.fraction - 1)
	return uint8(int(u>>31)<<(p.bits-1) | exponent<<p.fraction | fraction)
}

// oliveRows encodes the rows of one linear. It is not written to after Prepare.
type oliveRows struct {
	linear compress.Linear
	layout compress.Layout
	group  int // columns that share a scale
	work   tensor.DType
	grid   grid
	pairs  pairs
	pool   sync.Pool // of *oliveScratch
}

type oliveScratch struct {
	row, decoded []float32
	codes        []uint8
}

// Rows implements compress.RowEncoder.
func (e *oliveRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*oliveScratch)
	if !ok {
		s = &oliveScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	s.row, s.decoded, s.codes = grow(s.row, p.Cols), grow(s.decoded, p.Cols), grow(s.codes, p.Cols)
	groups, packed := p.Cols/e.group, tensor.PackedRowBytes(p.Cols, e.pairs.bits)
	return eachRow(e.linear, p, s.row, func(row int, x []float32) {
		for g := range groups {
			at := g * e.group
			x := x[at:][:e.group]
			scale := e.search(x)
			storeFloat(dst.Data[1], row*groups+g, scale, e.work)
			e.encode(s.codes[at:], s.decoded[at:], x, scale)
		}
		tensor.PackRow(dst.Data[0][row*packed:][:packed], s.codes, e.pairs.bits)
		dst.Error[row], dst.Power[row] = squares(x, s.decoded)
	})
}

// The scales tried, in hundredths of three standard deviations.
const (
	oliveLow  = 75
	oliveHigh = 250
	oliveStep = 2
)

// search gives the scale of x with the smallest Σ(x − x̂)², the first of several.
func (e *oliveRows) search(x []float32) float32 {
	var sum, spread float64
	for _, v := range x {
		sum += float64(v)
	}
	mean := sum / float64(len(x))
	for _, v := range x {
		d := float64(v) - mean
		spread += float64(d * d)
	}
	sigma3 := 3 * math.Sqrt(spread/float64(len(x)-1))
	reach := max(math.Abs(mean+sigma3), math.Abs(mean-sigma3))

	var best, last float32
	least := math.Inf(1)
	try := func(width float32) {
		scale := e.grid.round(width, e.pairs.top)
		if scale == last {
			return
		}
		last = scale
		if loss := e.loss(x, scale, least); loss < least || best == 0 {
			best, least = scale, loss
		}
	}
	for i := oliveLow; i < oliveHigh; i += oliveStep {
		try(float32(min(reach*float64(i)/100, math.MaxFloat32)))
	}
	low, high := slices.Min(x), slices.Max(x)
	try(max(-low, high))
	return best
}

// loss sums (x − x̂)², up to the rounding of x̂. It may stop as soon as the sum has reached bound. Squares of float32 are exact in float64, so nothing
// depends on whether a compiler fuses their sum.
func (e *oliveRows) loss(x []float32, scale float32, bound float64) float64 {
	const run = 64
	scale2 := float64(scale) * float64(scale)
	p := &e.pairs
	var sum float64
	for len(x) > 0 {
		n := min(run, len(x))
		for i := 0; i < n; i += 2 {
			a, b := x[i]/scale, x[i+1]/scale
			va, vb, _ := p.values(a, b)
			da, db := a-va, b-vb
			sum += float64(da) * float64(da)
			sum += float64(db) * float64(db)
		}
		if float64(sum*scale2) >= bound {
			break
		}
		x = x[n:]
	}
	return float64(sum * scale2)
}

// encode writes the codes of x, a byte each, and what they mean.
func (e *oliveRows) encode(codes []uint8, decoded, x []float32, scale float32) {
	p := &e.pairs
	victim, mask := uint8(1)<<(p.bits-1), uint8(1<<p.bits-1)
	for i := 0; i < len(x); i += 2 {
		a, b, outlier := p.values(x[i]/scale, x[i+1]/scale)
		switch outlier {
		case 1:
			codes[i], codes[i+1] = p.code(a), victim
		case 2:
			codes[i], codes[i+1] = victim, p.code(b)
		default:
			codes[i], codes[i+1] = uint8(int8(a))&mask, uint8(int8(b))&mask
		}
		decoded[i], decoded[i+1] = a*scale, b*scale
	}
}
