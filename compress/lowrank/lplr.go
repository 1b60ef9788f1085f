package lowrank

import (
	"context"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/linalg"
	"github.com/shardpress/shardpress/internal/tensor"
)

// LPLR is low precision, low rank (Saha, Srivastava and Pilanci, arXiv 2310.11028): a random sketch of the columns is the left factor, quantized at
// once, and the right factor is the least squares answer to it as it was quantized,
//
//	L = Q₁(W·S),  R = Q₂(argmin ‖L·R − W‖²) = Q₂((LᵀL)⁻¹·Lᵀ·W)
//
// with S random, cols × rank. The second makes up for what the first lost. One pass sees less of the spectrum than truncation: the loss is
// above that of svd, at a fraction of the work.
//
// S holds sums of four uniform numbers, scaled to variance 1/cols, in the place of the paper's Gaussian ones: all that its bounds need is
// that they are independent and have light tails.
//
// Cost: 6·rows·cols·rank flops, a third of them in float32, and a factorisation of rank × rank; memory 4·rows·rank and 16·cols·rank bytes.
//
// A second method (then) is Q₁ and Q₂; without one the factors keep the precision of the weights. Formats as for svd.
type LPLR struct {
	params LPLRParams
	next   compress.Method
}

// LPLRName is the method's name in recipes.
const LPLRName = "lplr"

// lplrVersion changes whenever the bytes of any output do.
const lplrVersion = 1

// LPLRParams are the parameters of LPLR.
type LPLRParams struct{ Rank }

// LPLRParameters describes LPLRParams.
func LPLRParameters() []compress.Parameter { return rankParameters(0.2) }

// NewLPLR makes the method.
func NewLPLR(p LPLRParams) (*LPLR, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &LPLR{p, plain{}}, nil
}

// Name implements compress.Method.
func (m *LPLR) Name() string { return LPLRName }

// Version implements compress.Method.
func (m *LPLR) Version() int { return lplrVersion }

// Then implements compress.Chainer: next encodes both factors.
func (m *LPLR) Then(next compress.Method) (compress.Method, error) {
	if err := encodesFactors(LPLRName, next); err != nil {
		return nil, err
	}
	return &LPLR{m.params, next}, nil
}

// Layout implements compress.Method.
func (m *LPLR) Layout(l compress.Linear) (compress.Layout, error) {
	rank, err := m.params.of(l)
	if err != nil {
		return compress.Layout{}, err
	}
	layout, err := factorLayout(l, rank, m.next)
	if err != nil {
		return layout, err
	}
	layout.Seeded = true
	layout.Scratch += 4*rank*(2*l.Rows+l.Cols) + 8*rank*(l.Cols+2*rank) + 8<<20
	return layout, nil
}

// Prepare implements compress.Method.
func (m *LPLR) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", LPLRName, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		if out[i], err = m.prepare(ctx, w, k, o); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *LPLR) prepare(ctx context.Context, w compress.Weights, k *tensor.Kernels, o compress.Options) (compress.RowEncoder, error) {
	l := w.Linear()
	layout, err := m.Layout(l)
	if err != nil {
		return nil, err
	}
	rank64, err := m.params.of(l)
	if err != nil {
		return nil, err
	}
	rows, cols, rank := int(l.Rows), int(l.Cols), int(rank64)
	total, largest := 0.0, float32(0)
	sketch := make([]float32, cols*rank)
	random := linalg.NewNoise(o.Seed)
	for i := range sketch {
		sketch[i] = float32(random.Normal())
	}
	left := make([]float32, rows*rank)
	err = compress.EachPanel(ctx, w, o, func(p compress.Panel, x []float32) error {
		k.GEMM(1, false, false, p.Rows, rank, cols, x, cols, sketch, rank, left[int(p.Row)*rank:], rank, false)
		for _, v := range x {
			total += float64(float64(v) * float64(v))
			largest = max(largest, v, -v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// The sketch has columns of about the norm of the weights; balance as for factors, by a power of two.
	_, down := balance(total, false)
	for i, v := range left {
		if v-v != 0 { // the weights are finite, their sums need not be
			return nil, compress.Invalidf("encode %s: weights up to %.3g, sums of which are beyond float32: use method svd, or put the linear on the recipe's ignore list",
				l.Name, largest)
		}
		left[i] = v * down
	}
	leftLinear, err := factor(l, "left", l.Rows, rank64)
	if err != nil {
		return nil, err
	}
	scheme := layout.Scheme.(compress.Factors) //nolint:errcheck,forcetypeassert // factorLayout made it
	codes, err := encodeWhole(ctx, m.next, leftLinear, left, o)
	if err != nil {
		return nil, err
	}
	quantized := make([]float32, rows*rank)
	if err := scheme.Left.Decode(quantized, rank, &compress.Encoded{Rows: rows, Data: codes}); err != nil {
		return nil, err
	}
	right, err := leastSquares(ctx, k, w, quantized, rank, o)
	if err != nil {
		return nil, err
	}
	return newFactored(ctx, w, layout, rank64, stored{left, rank}, right, m.next, k, o)
}

// leastSquares finds R, rank × cols, that minimises ‖L·R − W‖² for left, rows × rank, in float64. Where the columns of left depend on each other a small multiple of
// the identity keeps the answer small.
func leastSquares(ctx context.Context, k *tensor.Kernels, w compress.Weights, left []float32, rank int, o compress.Options) ([]float32, error) {
	cols := int(w.Linear().Cols)
	gram, right := make([]float64, rank*rank), make([]float64, rank*cols)
	var lw, xw []float64
	err := compress.EachPanel(ctx, w, o, func(p compress.Panel, x []float32) error {
		lw, xw = grow(lw, p.Rows*rank), grow(xw, len(x))
		for i, v := range left[int(p.Row)*rank:][:p.Rows*rank] {
			lw[i] = float64(v)
		}
		for i, v := range x {
			xw[i] = float64(v)
		}
		k.SYRK64(1, rank, p.Rows, lw, rank, gram, rank, true)
		k.GEMM64(1, true, false, rank, cols, p.Rows, lw, rank, xw, cols, right, cols, true)
		return nil
	})
	if err != nil {
		return nil, err
	}
	trace := 0.0
	for i := range rank {
		trace += gram[i*rank+i]
	}
	out := make([]float32, rank*cols)
	if trace == 0 {
		return out, nil // nothing to multiply
	}
	factored := make([]float64, rank*rank)
	for ridge := trace / float64(rank) * 1e-12; ; ridge *= 100 {
		copy(factored, gram)
		for i := range rank {
			factored[i*rank+i] += ridge
		}
		o.Beat()
		if k.Cholesky64(1, rank, factored, rank) < 0 {
			break // at the latest when the ridge is as large as everything else
		}
	}
	o.Beat()
	linalg.Solve(k, 1, rank, cols, factored, right)
	for i, v := range right {
		out[i] = float32(v)
	}
	return out, nil
}
