package quantize

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// BCQ is binary coding: a group of weights is a sum of signs, each with one factor, w ≈ Σᵢ αᵢ·bᵢ with bᵢ = ±1, and an offset for all if wanted.
// Products with it need look-up tables and additions only (LUT-GEMM, Park et al., arXiv 2206.09557).
//
// It minimises Σ(w − ŵ)². Greedily (Rastegari et al., arXiv 1603.05279; greedy_mean_torch of LUT-GEMM's bcq.py): b₁ = sign(w), α₁ = mean|w|, and so on with
// what is left. Then in turn (Xu et al., "Alternating Multi-bit Quantization for Recurrent Neural Networks", arXiv 1802.00150; refine_mean_torch):
// with the signs fixed, the αs solve the normal equations (BᵀB)α = Bᵀw; with the αs fixed, each weight takes the nearest of the
// 2^b sums, found by bisection. It ends when the error, that of the rounded αs which are stored, no longer falls, or after the given rounds,
// and keeps the best: no round makes it worse than greedy.
//
// Equal planes would make the equations singular: a ridge of 1e-9 draws α towards what it was. αs are positive and ordered by size; a
// weight of what is left 0 has the sign +1. An offset is the mean at first, and in the equations the factor of a plane of ones. αs and offsets
// are stored in the dtype of the weights. F64 weights are rounded to F32 first, FP8 ones widen to BF16.
//
// Cost: up to rounds passes of b comparisons a weight and equations of b unknowns a group, without vector code. 8 bits cost tables of 256
// entries a round, and are for curiosity.
//
// shardpress and dense can hold it.
type BCQ struct{ params BCQParams }

// BCQName is the method's name in recipes.
const BCQName = "bcq"

// bcqVersion changes whenever the bytes of any output do.
const bcqVersion = 1

// BCQParams are the parameters of BCQ.
type BCQParams struct {
	Bits     int    `json:"bits"`
	Strategy string `json:"strategy"`
	Group    int64  `json:"group,omitempty"` // with strategy group only
	Rounds   int    `json:"rounds"`
	Offset   bool   `json:"offset"`
}

// BCQParameters describes BCQParams.
func BCQParameters() []compress.Parameter {
	return slices.Concat(
		[]compress.Parameter{{Name: "bits", Kind: compress.ParameterInt, Default: int64(4), Min: 1, Max: 8, Doc: "signs of a weight"}},
		strategyParameters(128),
		[]compress.Parameter{
			{Name: "rounds", Kind: compress.ParameterInt, Default: int64(15), Min: 0, Max: 1000, Doc: "rounds of the alternating method at most; 0 is the greedy one"},
			{Name: "offset", Kind: compress.ParameterBool, Default: false, Doc: "add a number to all weights of a group"},
		})
}

// Validate refuses parameters that no linear can be encoded with.
func (p BCQParams) Validate() error {
	if p.Bits < 1 || p.Bits > 8 {
		return compress.Invalidf("bits is %d, and takes a whole number from 1 to 8", p.Bits)
	}
	if p.Rounds < 0 || p.Rounds > 1000 {
		return compress.Invalidf("rounds is %d, and takes a whole number from 0 to 1000", p.Rounds)
	}
	return checkStrategy(p.Strategy, p.Group)
}

// NewBCQ makes the method.
func NewBCQ(p BCQParams) (*BCQ, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &BCQ{params: p}, nil
}

// Name implements compress.Method.
func (m *BCQ) Name() string { return BCQName }

// Version implements compress.Method.
func (m *BCQ) Version() int { return bcqVersion }

// Layout implements compress.Method.
func (m *BCQ) Layout(l compress.Linear) (compress.Layout, error) {
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
	s := compress.Binary{Bits: m.params.Bits, Group: group, Offset: m.params.Offset, ScaleDType: work.String()}
	return compress.Layout{
		Scheme:     s,
		Components: s.Components(l.Rows, l.Cols),
		RowUnit:    1,
		Scratch:    l.Cols*(4+4) + group*(8+1+1) + 16<<10, // a row of float32, one decoded; what is left and two codes of a group; tables
	}, nil
}

// Prepare implements compress.Method.
func (m *BCQ) Prepare(_ context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	if _, err := tensor.ForName(string(o.Kernel)); err != nil {
		return nil, compress.Invalidf("prepare %s: %w", BCQName, err)
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
		e := &bcqRows{linear: l, layout: layout, group: int(l.Cols), work: work, bits: m.params.Bits, rounds: m.params.Rounds, offset: m.params.Offset}
		if m.params.Strategy == compress.StrategyGroup {
			e.group = int(m.params.Group)
		}
		out[i] = e
	}
	return out, nil
}

// bcqRows encodes the rows of one linear. It is not written to after Prepare.
type bcqRows struct {
	linear compress.Linear
	layout compress.Layout
	group  int // columns that share their αs
	work   tensor.DType
	bits   int
	rounds int
	offset bool
	pool   sync.Pool // of *bcqScratch
}

// maxBits bounds the planes.
const maxBits = 8

// factors are the αs of a group, and its offset.
type factors struct {
	alpha  [maxBits]float32
	offset float32
}

type bcqScratch struct {
	row, decoded []float32
	left         []float64 // of each weight, after the planes so far
	codes, best  []uint8   // bit i is plane i
	values       [1 << maxBits]float32
	order        [1 << maxBits]uint8 // codes by value
	merged       [1 << maxBits]uint8
	sums, other  [1 << maxBits]float64 // by code, or by value
	counts       [1 << maxBits]int
}

// Rows implements compress.RowEncoder.
func (e *bcqRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*bcqScratch)
	if !ok {
		s = &bcqScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	s.row, s.decoded = grow(s.row, p.Cols), grow(s.decoded, p.Cols)
	s.left, s.codes, s.best = grow(s.left, e.group), grow(s.codes, e.group), grow(s.best, e.group)
	groups, plane := p.Cols/e.group, (p.Cols+7)/8
	return eachRow(e.linear, p, s.row, func(row int, x []float32) {
		planes := dst.Data[0][row*e.bits*plane:][:e.bits*plane]
		clear(planes)
		for g := range groups {
			f := e.solve(x[g*e.group:][:e.group], s)
			at := row*groups + g
			for i, a := range f.alpha[:e.bits] {
				storeFloat(dst.Data[1], at*e.bits+i, a, e.work)
			}
			if e.offset {
				storeFloat(dst.Data[2], at, f.offset, e.work)
			}
			compress.BinaryValues(s.values[:], f.alpha[:e.bits], f.offset)
			for j, code := range s.best {
				col := g*e.group + j
				s.decoded[col] = s.values[code]
				for i := range e.bits {
					planes[i*plane+col/8] |= code >> i & 1 << (col % 8)
				}
			}
		}
		dst.Error[row], dst.Power[row] = squares(x, s.decoded)
	})
}

// solve finds the factors of x, and leaves its codes in s.best.
func (e *bcqRows) solve(x []float32, s *bcqScratch) factors {
	best := e.greedy(x, s)
	compress.BinaryValues(s.values[:], best.alpha[:e.bits], best.offset)
	var least float64
	for i, v := range x {
		d := float64(v) - float64(s.values[s.codes[i]])
		least += float64(d * d)
	}
	copy(s.best, s.codes)
	f := best
	for range e.rounds {
		if least == 0 {
			break
		}
		f = e.refit(x, s, f)
		loss := e.assign(x, s, f)
		if !(loss < least) {
			break
		}
		best, least = f, loss
		copy(s.best, s.codes)
	}
	return best
}

// greedy takes one plane after the other from x, with codes in s.codes.
func (e *bcqRows) greedy(x []float32, s *bcqScratch) factors {
	var f factors
	n := float64(len(x))
	if e.offset {
		var sum float64
		for _, v := range x {
			sum += float64(v)
		}
		f.offset = rounded(float32(sum/n), e.work)
	}
	for i, v := range x {
		s.left[i] = float64(v) - float64(f.offset)
		s.codes[i] = 0
	}
	for b := range e.bits {
		var sum float64
		for _, v := range s.left {
			sum += math.Abs(v)
		}
		f.alpha[b] = rounded(float32(sum/n), e.work)
		a := float64(f.alpha[b])
		for i, v := range s.left {
			if v < 0 {
				s.left[i] = v + a
			} else {
				s.left[i] = v - a
				s.codes[i] |= 1 << b
			}
		}
	}
	return f
}

// refit solves for the factors with the codes of s.codes.
func (e *bcqRows) refit(x []float32, s *bcqScratch, was factors) factors {
	codes, n := 1<<e.bits, e.bits
	clear(s.sums[:codes])
	clear(s.counts[:codes])
	for i, v := range x {
		c := s.codes[i]
		s.sums[c] += float64(v)
		s.counts[c]++
	}
	if e.offset {
		n++
	}
	// Counts of equal signs less those of unequal ones, and signed sums. The plane of ones is the last.
	var a [maxBits + 1][maxBits + 2]float64
	ones := 1 << e.bits
	for c := range codes {
		if s.counts[c] == 0 {
			continue
		}
		signs, count, sum := c|ones, float64(s.counts[c]), s.sums[c]
		for i := range n {
			if signs>>i&1 == 0 {
				a[i][n] -= sum
			} else {
				a[i][n] += sum
			}
			for j := range n {
				if (signs>>i^signs>>j)&1 == 0 {
					a[i][j] += count
				} else {
					a[i][j] -= count
				}
			}
		}
	}
	ridge := 1e-9 * float64(len(x))
	for i := range n {
		old := float64(was.offset)
		if i < e.bits {
			old = float64(was.alpha[i])
		}
		a[i][i] += ridge
		a[i][n] += float64(ridge * old)
	}
	eliminate(&a, n)
	var f factors
	for i := range e.bits {
		f.alpha[i] = rounded(float32(math.Abs(a[i][n])), e.work)
	}
	slices.SortFunc(f.alpha[:e.bits], func(p, q float32) int {
		switch {
		case p > q:
			return -1
		case p < q:
			return 1
		}
		return 0
	})
	if e.offset {
		f.offset = rounded(float32(a[e.bits][n]), e.work)
	}
	return f
}

// eliminate solves n equations whose matrix is symmetric and positive, with the right side in column n; the solution takes its place.
func eliminate(a *[maxBits + 1][maxBits + 2]float64, n int) {
	for k := range n {
		for i := k + 1; i < n; i++ {
			f := a[i][k] / a[k][k]
			for j := k; j <= n; j++ {
				a[i][j] -= float64(f * a[k][j])
			}
		}
	}
	for k := n - 1; k >= 0; k-- {
		for j := k + 1; j < n; j++ {
			a[k][n] -= float64(a[k][j] * a[j][n])
		}
		a[k][n] /= a[k][k]
	}
}

// assign gives every weight the code of the nearest sum of f, in s.codes, and returns Σ(x − x̂)².
func (e *bcqRows) assign(x []float32, s *bcqScratch, f factors) float64 {
	compress.BinaryValues(s.values[:], f.alpha[:e.bits], f.offset)
	e.sortCodes(s, f)
	// Halfway between neighbours.
	top := 1<<e.bits - 1
	for i, c := range s.order[:top] {
		s.sums[i] = (float64(s.values[c]) + float64(s.values[s.order[i+1]])) / 2
	}
	var sum float64
	for i, v := range x {
		w, k := float64(v), 0
		for step := 1 << (e.bits - 1); step > 0; step /= 2 {
			if w >= s.sums[k+step-1] {
				k += step
			}
		}
		c := s.order[k]
		d := w - float64(s.values[c])
		sum += float64(d * d)
		s.codes[i] = c
	}
	return sum
}

// sortCodes puts the codes of f in the order of their sums, by merging: those with the next larger α added and those with it taken away
// are in order each.
func (e *bcqRows) sortCodes(s *bcqScratch, f factors) {
	s.order[0], s.sums[0] = 0, 0
	n := 1
	for b := e.bits - 1; b >= 0; b-- {
		a := float64(f.alpha[b])
		minus, plus := 0, 0
		for i := range 2 * n {
			if plus == n || minus < n && s.sums[minus]-a <= s.sums[plus]+a {
				s.merged[i], s.other[i] = s.order[minus], s.sums[minus]-a
				minus++
			} else {
				s.merged[i], s.other[i] = s.order[plus]|1<<b, s.sums[plus]+a
				plus++
			}
		}
		n *= 2
		copy(s.order[:n], s.merged[:n])
		copy(s.sums[:n], s.other[:n])
	}
}
