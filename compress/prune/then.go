package prune

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// chain prunes with one method and encodes what is left with another, as SparseGPT and Wanda are combined with 4 bits (arXiv
// 2301.00774, section 3.5).
//
// The second method is given the weights with zeros where they are pruned, in the working dtype, and so minimises the error of those
// that stay. What is pruned has to stay so: a method without an exact zero is refused, and that every pruned weight of
// every panel decodes to 0 is checked as it is encoded. The scheme is the second method's. The error of a row is the second
// method's and the power of what is pruned: the two are of different weights, so that the sum is exact but for its rounding.
type chain struct {
	first, next compress.Method // the scheme of first is compress.Sparse
}

// then chains a method of this package with another.
func then(first, next compress.Method) (compress.Method, error) {
	if err := holdsZero(next); err != nil {
		return nil, fmt.Errorf("%s then %s: %w", first.Name(), next.Name(), err)
	}
	return &chain{first, next}, nil
}

// Name implements compress.Method. Reports say name@version.
func (m *chain) Name() string {
	return fmt.Sprintf("%s@%d+%s", m.first.Name(), m.first.Version(), m.next.Name())
}

// Version implements compress.Method.
func (m *chain) Version() int { return m.next.Version() }

// Layout implements compress.Method.
func (m *chain) Layout(l compress.Linear) (compress.Layout, error) {
	a, err := m.first.Layout(l)
	if err != nil {
		return compress.Layout{}, err
	}
	l.DType = a.Components[1].DType
	b, err := m.next.Layout(l)
	if err != nil {
		return compress.Layout{}, err
	}
	b.AllRows = a.AllRows || b.AllRows
	// A panel with its mask and its values, then as floats and as stored; and once more for the panels that next reads itself.
	panel := panelElements(l, b.RowUnit) * (1 + 4 + 4 + 4)
	b.Scratch += a.Scratch + panel
	if b.AllRows {
		b.Scratch += panel
	}
	return b, nil
}

// panelElements bounds the weights of a panel, which has half a MiB of source, or one unit of rows.
func panelElements(l compress.Linear, unit int64) int64 {
	n := int64(1 << 18)
	if d, err := tensor.ParseDType(l.DType); err == nil && d.Size() == 1 {
		n *= 2
	}
	return min(max(n, l.Cols*max(unit, 1)), l.Cols*l.Rows)
}

// Prepare implements compress.Method.
func (m *chain) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	pruners, err := m.first.Prepare(ctx, group, o)
	if err != nil {
		return nil, err
	}
	left := make([]compress.Weights, len(group))
	rows := make([]*chainRows, len(group))
	for i, w := range group {
		l := w.Linear()
		layout, err := m.first.Layout(l)
		if err != nil {
			return nil, err
		}
		p := &pruned{Weights: w, linear: l, layout: layout, rows: pruners[i]}
		p.linear.DType = layout.Components[1].DType
		left[i] = p
		next, err := m.next.Layout(p.linear)
		if err != nil {
			return nil, err
		}
		rows[i] = &chainRows{pruned: p, scheme: next.Scheme}
	}
	encoders, err := m.next.Prepare(ctx, left, o)
	if err != nil {
		return nil, err
	}
	if len(encoders) != len(rows) {
		return nil, fmt.Errorf("encode %s: method %s prepared %d encoders for %d linears", group[0].Linear().Name, m.next.Name(), len(encoders), len(rows))
	}
	out := make([]compress.RowEncoder, len(group))
	for i, e := range encoders {
		rows[i].next = e
		out[i] = rows[i]
	}
	return out, nil
}

// pruned gives weights with zeros where they are pruned.
type pruned struct {
	compress.Weights                 // of the source
	linear           compress.Linear // with the working dtype
	layout           compress.Layout // of the method that prunes
	rows             compress.RowEncoder
}

// Linear implements compress.Weights.
func (w *pruned) Linear() compress.Linear { return w.linear }

// Panels implements compress.Weights.
func (w *pruned) Panels(ctx context.Context, rows int) iter.Seq2[compress.Panel, error] {
	return func(yield func(compress.Panel, error) bool) {
		var s chainScratch
		for p, err := range w.Weights.Panels(ctx, rows) {
			if err == nil {
				p, err = w.prune(&s, p)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// chainScratch holds a panel on its way from one method to the next.
type chainScratch struct {
	mask compress.Encoded
	x    []float32 // rows × cols, row-major
	work []byte    // the same as stored
}

// prune gives a panel in the working dtype, with zeros. It is valid until the scratch is used again.
func (w *pruned) prune(s *chainScratch, p compress.Panel) (compress.Panel, error) {
	if err := w.rows.Rows(&s.mask, p); err != nil {
		return compress.Panel{}, err
	}
	d, err := tensor.ParseDType(w.linear.DType)
	if err != nil {
		return compress.Panel{}, compress.Invalidf("encode %s: %w", w.linear.Name, err)
	}
	s.x = grow(s.x, p.Rows*p.Cols)
	if err := w.layout.Scheme.Decode(s.x, p.Cols, &s.mask); err != nil {
		return compress.Panel{}, fmt.Errorf("encode %s: %w", w.linear.Name, err)
	}
	s.work = grow(s.work, len(s.x)*d.Size())
	tensor.FromFloat32(s.work, s.x, d)
	p.DType, p.Data = w.linear.DType, s.work
	return p, nil
}

// chainRows prunes the rows of a linear and has them encoded.
type chainRows struct {
	*pruned
	scheme compress.Scheme // of next
	next   compress.RowEncoder
	pool   sync.Pool // of *chainScratch
}

// Rows implements compress.RowEncoder.
func (e *chainRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	s, ok := e.pool.Get().(*chainScratch)
	if !ok {
		s = &chainScratch{}
	}
	defer e.pool.Put(s)
	left, err := e.prune(s, p)
	if err != nil {
		return err
	}
	if err := e.next.Rows(dst, left); err != nil {
		return err
	}
	if err := e.scheme.Decode(s.x, p.Cols, dst); err != nil {
		return fmt.Errorf("encode %s: %w", e.linear.Name, err)
	}
	per := (p.Cols + 7) / 8
	for row := range p.Rows {
		mask := s.mask.Data[0][row*per:][:per]
		for c, v := range s.x[row*p.Cols:][:p.Cols] {
			if mask[c/8]>>(c%8)&1 == 0 && v != 0 {
				return compress.Invalidf("encode %s: the pruned weight at row %d, column %d decodes to %v: give these weights another grid, or none",
					e.linear.Name, p.Row+int64(row), c, v)
			}
		}
		dst.Error[row] += s.mask.Error[row]
		dst.Power[row] = s.mask.Power[row]
	}
	return nil
}

// holdsZero tries whether a method decodes zeros among other weights to zeros, so that a recipe is refused before it runs. What it lets
// pass is checked again on the weights.
func holdsZero(next compress.Method) error {
	const rows = 4
	for _, cols := range []int{32, 64, 128, 256} {
		l := compress.Linear{Name: "zeros", Rows: rows, Cols: int64(cols), DType: tensor.F32.String(), Role: compress.RoleLinear}
		layout, err := next.Layout(l)
		if err != nil || len(layout.Needs) > 0 {
			continue // it takes other widths, or statistics
		}
		// One in sixteen is zero, too few to be worth a grid that holds 0, at no regular places; the rest is of both signs, positive, negative, and small beside one.
		x := make([]float32, rows*cols)
		state := uint32(1)
		for i := range x {
			state = state*1664525 + 1013904223 // Numerical Recipes' generator
			v := float32(int32(state)>>8) * 0x1p-23
			switch row := i / cols; {
			case state>>6&15 == 0:
				v = 0
			case row == 1:
				v = max(v, -v) + 0.25
			case row == 2:
				v = min(v, -v) - 0.25
			case row == 3 && i%cols != 1:
				v /= 1 << 12
			}
			x[i] = v
		}
		data := make([]byte, 4*len(x))
		tensor.FromFloat32(data, x, tensor.F32)
		w, err := compress.NewWeights(l, data)
		if err != nil {
			return err
		}
		got := make([]float32, len(x))
		err = compress.Encode(context.Background(), next, w, compress.Options{PanelRows: rows}, func(e *compress.Encoded) error {
			return layout.Scheme.Decode(got, cols, e)
		})
		if err != nil {
			return compress.Invalidf("cannot be combined: %w", err)
		}
		for i, v := range got {
			if x[i] == 0 && v != 0 {
				return compress.Invalidf("%s has no exact zero (it decodes a 0 as %.3g), and what is pruned has to stay so: choose a method whose grid holds 0, such as rtn, or prune alone", next.Name(), v)
			}
		}
		return nil
	}
	return nil
}
