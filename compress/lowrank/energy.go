package lowrank

import (
	"context"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/linalg"
	"github.com/shardpress/shardpress/internal/tensor"
)

// energySteps is the fineness of the search for a rank: a part of the full one.
const energySteps = 64

// ofEnergy keeps the smallest subspace, in steps of a 64th of all dimensions, that holds a part of the energy. It bisects: each trial is a search for a subspace of its own.
func ofEnergy(part float64) chooser {
	return func(ctx context.Context, k *tensor.Kernels, n int, gram []float64, o compress.Options) (*linalg.Subspace, error) {
		step := max(n/energySteps, 1)
		enough, err := ofRank(n)(ctx, k, n, gram, o) // all of it
		if err != nil {
			return nil, err
		}
		low, high := 0, (n+step-1)/step // in steps: too few, enough
		for high-low > 1 {
			mid := (low + high) / 2
			s, err := ofRank(mid*step)(ctx, k, n, gram, o)
			if err != nil {
				return nil, err
			}
			if s.Energy >= part*s.Total {
				enough, high = s, mid
			} else {
				low = mid
			}
		}
		return enough, nil
	}
}

// energyLayout is the layout of a product of unknown rank: the weights' own.
func energyLayout(l compress.Linear) (compress.Layout, error) {
	layout, err := plain{}.Layout(l)
	if err != nil {
		return layout, err
	}
	d, err := tensor.ParseDType(l.DType)
	if err != nil {
		return layout, compress.Invalidf("encode %s: %w", l.Name, err)
	}
	layout.AllRows = true
	full := min(l.Rows, l.Cols)
	layout.Scratch += truncationScratch(l.Rows, l.Cols, full, int64(d.Size())) + 8*full*full + panelScratch // what was enough is kept during the next trial
	return layout, nil
}

// newEnergy prepares the rows of the product that keeps a part of the energy.
func newEnergy(ctx context.Context, w compress.Weights, layout compress.Layout, part float64, k *tensor.Kernels, o compress.Options) (compress.RowEncoder, error) {
	t, err := truncate(ctx, k, w, ofEnergy(part), o)
	if err != nil {
		return nil, err
	}
	d, err := tensor.ParseDType(layout.Components[0].DType)
	if err != nil {
		return nil, err
	}
	return &energyRows{linear: w.Linear(), layout: layout, t: t, d: d, k: k}, nil
}

// energyRows writes rows of a product.
type energyRows struct {
	linear compress.Linear
	layout compress.Layout
	t      *truncation
	d      tensor.DType
	k      *tensor.Kernels
	pool   sync.Pool // of *factoredScratch
}

// Rows implements compress.RowEncoder.
func (e *energyRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	s, ok := e.pool.Get().(*factoredScratch)
	if !ok {
		s = &factoredScratch{}
	}
	defer e.pool.Put(s)
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	n := p.Rows * p.Cols
	s.x, s.product, s.left = grow(s.x, n), grow(s.product, n), grow(s.left, p.Rows*e.t.rank)
	if err := p.Floats(e.linear, s.x); err != nil {
		return err
	}
	dst.Resize(e.layout, p)
	if p.Rows == 0 {
		return nil
	}
	e.t.left.rows(s.left, p.Row, p.Rows, s.x)
	e.k.GEMM(1, false, false, p.Rows, p.Cols, e.t.rank, s.left, e.t.rank, e.t.right, p.Cols, s.product, p.Cols, false)
	tensor.FromFloat32(dst.Data[0], s.product, e.d)
	tensor.ToFloat32(s.product, dst.Data[0], e.d) // as it is stored
	for r := range p.Rows {
		dst.Error[r], dst.Power[r] = lost(s.x[r*p.Cols:][:p.Cols], s.product[r*p.Cols:][:p.Cols])
	}
	return nil
}
