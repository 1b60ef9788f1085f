package lowrank

import (
	"context"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// SVD is truncation: the product of two factors of a given rank that is nearest to the weights, ‖W − L·R‖² = Σ_{i>r} σᵢ² at best (Eckart and
// Young 1936). One factor has orthonormal columns or rows; the other is the matrix as seen from there, so that singular
// values stand in it.
//
// The subspace is found by filtered block iteration (internal/linalg.Dominant) and not by taking the matrix apart into singular vectors: the loss is at most a
// thousandth above the least. At full rank the product is the matrix, in the stored precision of the weights.
//
// Cost: with n the shorter side, m the longer and r the rank, n²·m flops in float64 for the Gram matrix, about 25·n²·r in float64 for the subspace,
// 4·m·n·r in float32 for the factors and their error; memory 8·(n² + 2·n·r + 2·r²) bytes, and the matrix if it has more
// columns than rows.
//
// No engine has a format for factors: they are kept in format shardpress, and dense is what they multiply to, without saving a byte.
// A second method (then) encodes both factors.
//
// By energy the rank is the least, in steps of a 64th of the full one, at which 1 − Σ(w−ŵ)²/Σw² is as asked. It differs from linear to linear and is known
// only from the weights, so that no room for factors can be planned: what comes out is the product, in the precision of the weights.
type SVD struct {
	params SVDParams
	next   compress.Method
}

// SVDName is the method's name in recipes.
const SVDName = "svd"

// svdVersion changes whenever the bytes of any output do.
const svdVersion = 1

// SVDParams are the parameters of SVD.
type SVDParams struct {
	Rank
	Energy float64 `json:"energy,omitempty"` // part of Σw² to keep, with ByEnergy
}

// SVDParameters describes SVDParams.
func SVDParameters() []compress.Parameter {
	list := rankParameters(0.2)
	list[0].Choices = append(list[0].Choices, ByEnergy)
	list[0].Doc = "what sets the rank: the parameters that go, a number, or the energy that stays"
	return append(list, compress.Parameter{
		Name: "energy", Kind: compress.ParameterFloat, Default: 0.9, Min: 0.01, Max: 1, When: "by", Is: ByEnergy,
		Doc: "part of Σw² that stays; the result is the product, since the rank is not known before",
	})
}

// Validate refuses what fits no linear.
func (p SVDParams) Validate() error {
	if p.By != ByEnergy {
		if p.Energy != 0 {
			return compress.Invalidf("energy is %g, and has a meaning only with by=energy", p.Energy)
		}
		return p.Rank.Validate()
	}
	if !(p.Energy >= 0.01 && p.Energy <= 1) || p.Ratio != 0 || p.Rank.Rank != 0 {
		return compress.Invalidf("energy is %g, and takes a number from 0.01 to 1, without ratio or rank", p.Energy)
	}
	return nil
}

// NewSVD makes the method.
func NewSVD(p SVDParams) (*SVD, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &SVD{p, plain{}}, nil
}

// Name implements compress.Method.
func (m *SVD) Name() string { return SVDName }

// Version implements compress.Method.
func (m *SVD) Version() int { return svdVersion }

// Then implements compress.Chainer: next encodes both factors.
func (m *SVD) Then(next compress.Method) (compress.Method, error) {
	if err := encodesFactors(SVDName, next); err != nil {
		return nil, err
	}
	if m.params.By == ByEnergy {
		return nil, compress.Invalidf("method %s by energy gives no factors that %s could encode: use by=ratio or by=rank", SVDName, next.Name())
	}
	return &SVD{m.params, next}, nil
}

// encodesFactors refuses methods that make no sense of factors.
func encodesFactors(name string, next compress.Method) error {
	if _, ok := next.(compress.Chainer); ok {
		return compress.Invalidf("method %s hands its factors to a method that quantizes them, and %s is none", name, next.Name())
	}
	return nil
}

// Layout implements compress.Method.
func (m *SVD) Layout(l compress.Linear) (compress.Layout, error) {
	if m.params.By == ByEnergy {
		return energyLayout(l)
	}
	rank, err := m.params.of(l)
	if err != nil {
		return compress.Layout{}, err
	}
	layout, err := factorLayout(l, rank, m.next)
	if err != nil {
		return layout, err
	}
	d, err := tensor.ParseDType(l.DType)
	if err != nil {
		return layout, compress.Invalidf("encode %s: %w", l.Name, err)
	}
	layout.Scratch += truncationScratch(l.Rows, l.Cols, rank, int64(d.Size()))
	return layout, nil
}

// Prepare implements compress.Method.
func (m *SVD) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", SVDName, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		layout, err := m.Layout(w.Linear())
		if err != nil {
			return nil, err
		}
		if m.params.By == ByEnergy {
			if out[i], err = newEnergy(ctx, w, layout, m.params.Energy, k, o); err != nil {
				return nil, err
			}
			continue
		}
		rank, err := m.params.of(w.Linear())
		if err != nil {
			return nil, err
		}
		t, err := truncate(ctx, k, w, ofRank(int(rank)), o)
		if err != nil {
			return nil, err
		}
		if out[i], err = newFactored(ctx, w, layout, rank, t.left, t.right, m.next, k, o); err != nil {
			return nil, err
		}
	}
	return out, nil
}
