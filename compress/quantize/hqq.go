package quantize

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// HQQ is half-quadratic quantization (Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023): a grid of
// the group's own range, whose zero point is a float and is found without data.
//
// It looks for the zero point z that minimises Σ|w − ŵ|^p, p < 1, with ŵ = s·(q − z), q = round(w/s + z): large errors count for little,
// so that outliers may keep theirs. The sum is split (there under "Half-Quadratic Solver"; optimize_weights_proximal and shrink_lp_op of the
// authors' hqq/core/optimize.py): with the errors e as unknowns of their own,
//
//	e ← sign(w−ŵ)·max(0, |w−ŵ| − |w−ŵ|^(p−1)/β)
//	z ← mean(q − (w − e)/s)
//
// in turn, β being constant as in the authors' default solver. They stop all groups at the first step at which the mean |w − ŵ| of the
// whole matrix does not fall. Here each group stops at its own and keeps its best zero point, so that rows know nothing of each other. Where
// round to nearest's whole zero point has the smaller Σ|w − ŵ|, as with 2 bits and large outliers, that is kept: no group ends above round to
// nearest on the same range.
//
// Other differences to the authors' code: s is rounded to the type that it is stored in before z is looked for, and z after every step, so
// what is minimised is the error of what is stored; no scale is kept from 5e-5 to 1, a limit of theirs for the sake of binary16; a group
// of one value is stored exactly; a group whose zero point lies beyond ±4096 gets the grid of its range and 0. Scales are stored in the dtype of the
// weights, zero points in F16, or F32 beside F32. F64 weights are rounded to F32 first, FP8 ones widen to BF16.
//
// With zeros=int, zero points are whole numbers of the grid and ranges hold 0: what integer formats can say. The float zero point found is
// rounded, and kept where it is better than round to nearest's.
//
// Cost: about five passes of a group over the first-level cache, bound by arithmetic. Only errors above β^(-1/(2-p)), 0.17 by default, have
// e ≠ 0, and need a power; weights of language models have none.
//
// zeros=float can be held by shardpress and dense, zeros=int by pack-quantized and int-quantized also.
type HQQ struct{ params HQQParams }

// HQQName is the method's name in recipes.
const HQQName = "hqq"

// hqqVersion changes whenever the bytes of any output do.
const hqqVersion = 1

// Kinds of zero points of HQQ.
const (
	ZerosFloat = "float"
	ZerosInt   = "int"
)

// HQQParams are the parameters of HQQ.
type HQQParams struct {
	Bits       int     `json:"bits"`
	Strategy   string  `json:"strategy"`
	Group      int64   `json:"group,omitempty"` // with strategy group only
	Zeros      string  `json:"zeros"`
	Norm       float64 `json:"norm"`
	Beta       float64 `json:"beta"`
	Iterations int     `json:"iterations"`
}

// HQQParameters describes HQQParams.
func HQQParameters() []compress.Parameter {
	return slices.Concat(
		[]compress.Parameter{{Name: "bits", Kind: compress.ParameterInt, Default: int64(4), Min: 2, Max: 8, Doc: "bits of a code"}},
		strategyParameters(64),
		[]compress.Parameter{
			{
				Name: "zeros", Kind: compress.ParameterString, Default: ZerosFloat, Choices: []string{ZerosFloat, ZerosInt},
				Doc: "zero points: floats, or whole numbers, which engines' integer formats can hold",
			},
			{Name: "norm", Kind: compress.ParameterFloat, Default: 0.7, Min: 0.1, Max: 1, Doc: "power p of the errors whose sum is minimised"},
			{Name: "beta", Kind: compress.ParameterFloat, Default: 10.0, Min: 1e-3, Max: 1e6, Doc: "how closely the split-off errors follow the true ones"},
			{Name: "iterations", Kind: compress.ParameterInt, Default: int64(20), Min: 1, Max: 1000, Doc: "steps of a group at most; it stops when they no longer help"},
		})
}

// Validate refuses parameters that no linear can be encoded with.
func (p HQQParams) Validate() error {
	if p.Bits < 2 || p.Bits > 8 {
		return compress.Invalidf("bits is %d, and takes a whole number from 2 to 8", p.Bits)
	}
	if err := checkStrategy(p.Strategy, p.Group); err != nil {
		return err
	}
	switch {
	case p.Zeros != ZerosFloat && p.Zeros != ZerosInt:
		return compress.Invalidf("zeros is %q, and takes %s, %s", p.Zeros, ZerosFloat, ZerosInt)
	case !(p.Norm >= 0.1 && p.Norm <= 1):
		return compress.Invalidf("norm is %v, and takes a number from 0.1 to 1", p.Norm)
	case !(p.Beta >= 1e-3 && p.Beta <= 1e6):
		return compress.Invalidf("beta is %v, and takes a number from 0.001 to 1000000", p.Beta)
	case p.Iterations < 1 || p.Iterations > 1000:
		return compress.Invalidf("iterations is %d, and takes a whole number from 1 to 1000", p.Iterations)
	}
	return nil
}

// NewHQQ makes the method.
func NewHQQ(p HQQParams) (*HQQ, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &HQQ{params: p}, nil
}

// Name implements compress.Method.
func (m *HQQ) Name() string { return HQQName }

// Version implements compress.Method.
func (m *HQQ) Version() int { return hqqVersion }

// Layout implements compress.Method.
func (m *HQQ) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	_, work, err := workDType(l)
	if err != nil {
		return compress.Layout{}, err
	}
	group, err := columnsOfScale(l, m.params.Strategy, m.params.Group)
	if err != nil {
		return compress.Layout{}, err
	}
	var s compress.Scheme = compress.Affine{Bits: m.params.Bits, Group: group, ScaleDType: work.String(), ZeroDType: hqqZeroType(work).String()}
	if m.params.Zeros == ZerosInt {
		s = compress.Int{Bits: m.params.Bits, Strategy: m.params.Strategy, Group: group, ScaleDType: work.String()}
	}
	return compress.Layout{
		Scheme:     s,
		Components: s.Components(l.Rows, l.Cols),
		RowUnit:    1,
		Scratch:    l.Cols * (4 + 4 + 1), // a row of float32, one in steps of its grid, one of codes
	}, nil
}

// hqqZeroType is the type of zero points: binary16 has three more digits than BF16, and they need no range.
func hqqZeroType(work tensor.DType) tensor.DType {
	if work == tensor.F32 {
		return tensor.F32
	}
	return tensor.F16
}

// Prepare implements compress.Method.
func (m *HQQ) Prepare(_ context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", HQQName, err)
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
		e := &hqqRows{
			linear: l, layout: layout, group: int(l.Cols), kernels: k, work: work, zeroType: hqqZeroType(work),
			grid: newGrid(m.params.Bits, false, work), whole: m.params.Zeros == ZerosInt,
			power: m.params.Norm - 1, beta: m.params.Beta, iterations: m.params.Iterations,
			// |e| = |e|^(p−1)/β at β^(-1/(2−p)); a little below, for what power rounds.
			threshold: power(1/m.params.Beta, 1/(2-m.params.Norm)) * (1 - 1e-9),
		}
		if m.params.Strategy == compress.StrategyGroup {
			e.group = int(m.params.Group)
		}
		out[i] = e
	}
	return out, nil
}

// hqqRows encodes the rows of one linear. It is not written to after Prepare.
type hqqRows struct {
	linear         compress.Linear
	layout         compress.Layout
	group          int // columns that share a scale
	kernels        *tensor.Kernels
	work, zeroType tensor.DType
	grid           grid
	whole          bool // zero points are integers
	power, beta    float64
	iterations     int
	threshold      float64   // errors up to it shrink to 0
	pool           sync.Pool // of *hqqScratch
}

type hqqScratch struct {
	row, steps []float32
	codes      []uint8
}

// Rows implements compress.RowEncoder.
func (e *hqqRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*hqqScratch)
	if !ok {
		s = &hqqScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	s.row, s.codes, s.steps = grow(s.row, p.Cols), grow(s.codes, p.Cols), grow(s.steps, e.group)
	groups, packed := p.Cols/e.group, tensor.PackedRowBytes(p.Cols, e.grid.bits)
	return eachRow(e.linear, p, s.row, func(row int, x []float32) {
		var errSum, powSum float64
		for g := range groups {
			x := x[g*e.group:][:e.group]
			pt := e.solve(x, s.steps)
			err2, pow2 := e.encode(s.codes[g*e.group:][:e.group], x, s.steps, pt)
			errSum += err2
			powSum += pow2
			at := row*groups + g
			storeFloat(dst.Data[1], at, pt.scale, e.work)
			if e.whole {
				dst.Data[2][at] = e.grid.storeZero(pt)
			} else {
				storeFloat(dst.Data[2], at, pt.zero, e.zeroType)
			}
		}
		tensor.PackRow(dst.Data[0][row*packed:][:packed], s.codes, e.grid.bits)
		dst.Error[row], dst.Power[row] = errSum, powSum
	})
}

// solve finds the grid of x and leaves x in steps of it in t.
func (e *hqqRows) solve(x, t []float32) point {
	low, high := x[0], x[0]
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	start := e.start(low, high)
	for i, v := range x {
		t[i] = v / start.scale
	}
	if low == high {
		return start
	}
	// What integers have to beat, or be beaten by: floats have no zero point by nature, which many small weights like to have.
	better, other := e.descend(t, start), e.integer(start.zero)
	if e.whole {
		better = e.integer(better)
	}
	is, _, _ := e.kernels.GridError(t, better, e.grid.qmin, e.grid.qmax)
	if was, _, _ := e.kernels.GridError(t, other, e.grid.qmin, e.grid.qmax); was <= is {
		better = other
	}
	return point{start.scale, better}
}

// integer is the zero point of integer formats next to zero.
func (e *hqqRows) integer(zero float32) float32 {
	return roundEven(min(max(zero, e.grid.qmin), e.grid.qmax))
}

// encode writes the codes of x, t steps, and returns Σ(x − x̂)² and Σx². Squares of float32 are exact in float64, so nothing depends on
// whether a compiler fuses their sums.
func (e *hqqRows) encode(codes []uint8, x, t []float32, pt point) (err2, pow2 float64) {
	var e2, p2 [4]float64
	qmin, qmax := e.grid.qmin, e.grid.qmax
	for i, v := range t {
		q := roundEven(min(max(v+pt.zero, qmin), qmax))
		r := (q - pt.zero) - v
		codes[i] = uint8(int32(q - qmin))
		e2[i&3] += float64(r) * float64(r)
		p2[i&3] += float64(x[i]) * float64(x[i])
	}
	scale2 := float64(pt.scale) * float64(pt.scale)
	return float64(scale2 * ((e2[0] + e2[1]) + (e2[2] + e2[3]))), (p2[0] + p2[1]) + (p2[2] + p2[3])
}

// farZero is the largest zero point to begin with: far from 0, fractions of a step no longer fit into q − zero.
const farZero = 4096

// start gives the grid of a range.
func (e *hqqRows) start(low, high float32) point {
	g := e.grid
	if low == high { // exactly one step
		return point{scale: g.round(max(low, -low), 1)}
	}
	if width := high - low; !e.whole && width <= math.MaxFloat32 {
		s := g.round(width, g.span)
		if zero := g.qmin - low/s; zero >= -farZero && zero <= farZero {
			return point{s, e.store(zero)}
		}
	}
	return g.fit(min(low, 0), max(high, 0))
}

// store rounds a zero point to what is stored; integers only at the end.
func (e *hqqRows) store(zero float32) float32 {
	if e.whole {
		return zero
	}
	return rounded(zero, e.zeroType)
}

// descend improves the zero point of start, for weights t in steps of its scale, as long as Σ|t − t̂| falls.
func (e *hqqRows) descend(t []float32, start point) float32 {
	limit := float32(e.threshold / float64(start.scale))
	best, least, zero := start.zero, float32(math.Inf(1)), start.zero
	for i := 0; ; i++ {
		abs, sum, top := e.kernels.GridError(t, zero, e.grid.qmin, e.grid.qmax)
		if !(abs < least) {
			return best
		}
		best, least = zero, abs
		if i == e.iterations {
			return best
		}
		total := float64(sum)
		if top > limit {
			total += e.kept(t, start.scale, zero, limit)
		}
		zero = e.store(float32(float64(zero) + total/float64(len(t))))
	}
}

// kept sums the errors that are left after shrinking, in steps of the grid: Σe/s.
func (e *hqqRows) kept(t []float32, scale, zero, limit float32) float64 {
	var sum float64
	for _, v := range t {
		r := (roundEven(min(max(v+zero, e.grid.qmin), e.grid.qmax)) - zero) - v // (ŵ − w)/s
		if max(r, -r) <= limit {
			continue
		}
		w := float64(scale) * math.Abs(float64(r))
		w -= power(w, e.power) / e.beta
		if w <= 0 {
			continue
		}
		if r > 0 {
			w = -w
		}
		sum += w / float64(scale)
	}
	return sum
}
