package lowrank

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// factor describes a thin matrix as a linear of its own, in the element type that the whole one works in.
func factor(l compress.Linear, side string, rows, cols int64) (compress.Linear, error) {
	work, err := l.WorkDType()
	return compress.Linear{Name: l.Name + " (" + side + " factor)", Rows: rows, Cols: cols, DType: work, Role: l.Role, Block: l.Block}, err
}

// panelScratch is room for panels of weights, products and rows of the left factor as float32, in bytes.
const panelScratch = 16 << 20

// factorLayout is the layout of l as factors of a rank that next encodes.
func factorLayout(l compress.Linear, rank int64, next compress.Method) (compress.Layout, error) {
	none := compress.Layout{}
	left, err := factor(l, "left", l.Rows, rank)
	if err != nil {
		return none, err
	}
	right, err := factor(l, "right", rank, l.Cols)
	if err != nil {
		return none, err
	}
	a, err := next.Layout(left)
	if err != nil {
		return none, err
	}
	b, err := next.Layout(right)
	if err != nil {
		return none, err
	}
	for _, c := range append(a.Components, b.Components...) {
		if c.Ragged {
			return none, compress.Invalidf("encode %s: factors cannot be encoded by %s, whose %s vary in size from row to row: choose another method, such as rtn with strategy: channel", l.Name, next.Name(), c.Name)
		}
	}
	s := compress.Factors{Rank: rank, Left: a.Scheme, Right: b.Scheme}
	return compress.Layout{
		Scheme: s, Components: s.Components(l.Rows, l.Cols), AllRows: true, RowUnit: max(a.RowUnit, 1),
		// Panels: weights and product, left factor; the right factor as float32 for as long as the linear is encoded.
		Scratch: a.Scratch + b.Scratch + rank*l.Cols*4 + panelScratch,
	}, nil
}

// leftFactor gives rows of the left factor.
type leftFactor interface {
	// rows writes the rows of a panel, rows × rank, row-major. x are the panel's weights, rows × cols.
	rows(dst []float32, row int64, rows int, x []float32)
}

// factored encodes the rows of a linear whose right factor is known.
type factored struct {
	linear compress.Linear
	left   compress.Linear
	layout compress.Layout
	scheme compress.Factors
	work   tensor.DType
	source leftFactor
	enc    compress.RowEncoder // of the left factor
	right  [][]byte            // components
	floats []float32           // what they mean, rank × cols
	k      *tensor.Kernels
	pool   sync.Pool // of *factoredScratch
}

type factoredScratch struct {
	x, product, left []float32
	data             []byte
	encoded          compress.Encoded
}

// newFactored encodes the right factor, rank × cols, and prepares the left one, whose rows source gives for the panels of w.
func newFactored(ctx context.Context, w compress.Weights, layout compress.Layout, rank int64, source leftFactor, right []float32, next compress.Method, k *tensor.Kernels, o compress.Options) (*factored, error) {
	l := w.Linear()
	scheme, ok := layout.Scheme.(compress.Factors)
	if !ok {
		return nil, fmt.Errorf("encode %s: scheme %s holds no factors", l.Name, layout.Scheme.Kind())
	}
	e := &factored{linear: l, layout: layout, scheme: scheme, source: source, k: k}
	var err error
	if e.left, err = factor(l, "left", l.Rows, rank); err != nil {
		return nil, err
	}
	if e.work, err = tensor.ParseDType(e.left.DType); err != nil {
		return nil, err
	}
	r, err := factor(l, "right", rank, l.Cols)
	if err != nil {
		return nil, err
	}
	if e.right, err = encodeWhole(ctx, next, r, right, o); err != nil {
		return nil, err
	}
	if err := scheme.Right.Decode(right, int(l.Cols), &compress.Encoded{Rows: int(rank), Data: e.right}); err != nil {
		return nil, fmt.Errorf("encode %s: %w", l.Name, err)
	}
	e.floats = right
	o.PanelRows = 0
	enc, err := next.Prepare(ctx, []compress.Weights{&leftWeights{e, w, o}}, o)
	if err != nil {
		return nil, err
	}
	if len(enc) != 1 {
		return nil, fmt.Errorf("encode %s: method %s prepared %d encoders for one linear", l.Name, next.Name(), len(enc))
	}
	e.enc = enc[0]
	return e, nil
}

// encodeWhole encodes a matrix in memory, x, rows × cols, and puts its components together.
func encodeWhole(ctx context.Context, m compress.Method, l compress.Linear, x []float32, o compress.Options) ([][]byte, error) {
	d, err := tensor.ParseDType(l.DType)
	if err != nil {
		return nil, err
	}
	data := make([]byte, len(x)*d.Size())
	tensor.FromFloat32(data, x, d)
	w, err := compress.NewWeights(l, data)
	if err != nil {
		return nil, err
	}
	layout, err := m.Layout(l)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(layout.Components))
	o.PanelRows = int(l.Rows) // a panel of whole units
	err = compress.Encode(ctx, m, w, o, func(e *compress.Encoded) error {
		for i := range out {
			out[i] = append(out[i], e.Data[i]...)
		}
		return nil
	})
	return out, err
}

// leftWeights gives the left factor to a method that reads all rows of it.
type leftWeights struct {
	e *factored
	w compress.Weights
	o compress.Options
}

func (f *leftWeights) Linear() compress.Linear { return f.e.left }

func (f *leftWeights) Panels(ctx context.Context, rows int) iter.Seq2[compress.Panel, error] {
	return func(yield func(compress.Panel, error) bool) {
		var s factoredScratch
		for p, err := range f.w.Panels(ctx, rows) {
			if err != nil {
				yield(compress.Panel{}, err)
				return
			}
			s.x = grow(s.x, p.Rows*p.Cols)
			if err := p.Floats(f.e.linear, s.x); err != nil {
				yield(compress.Panel{}, err)
				return
			}
			if !yield(f.e.leftPanel(&s, p), nil) {
				return
			}
		}
	}
}

// leftPanel is the panel of the left factor that belongs to one of weights, which are in s.x.
func (e *factored) leftPanel(s *factoredScratch, p compress.Panel) compress.Panel {
	n := p.Rows * int(e.left.Cols)
	s.left, s.data = grow(s.left, n), grow(s.data, n*e.work.Size())
	e.source.rows(s.left, p.Row, p.Rows, s.x)
	tensor.FromFloat32(s.data, s.left, e.work)
	return compress.Panel{Row: p.Row, Rows: p.Rows, Cols: int(e.left.Cols), DType: e.left.DType, Data: s.data}
}

// Rows implements compress.RowEncoder.
func (e *factored) Rows(dst *compress.Encoded, p compress.Panel) error {
	s, ok := e.pool.Get().(*factoredScratch)
	if !ok {
		s = &factoredScratch{}
	}
	defer e.pool.Put(s)
	n := p.Rows * p.Cols
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s.x, s.product = grow(s.x, n), grow(s.product, n)
	if err := p.Floats(e.linear, s.x); err != nil {
		return err
	}
	dst.Resize(e.layout, p)
	if err := e.encode(dst.Data, s, p); err != nil {
		return err
	}
	for r := range p.Rows {
		dst.Error[r], dst.Power[r] = lost(s.x[r*p.Cols:][:p.Cols], s.product[r*p.Cols:][:p.Cols])
	}
	return nil
}

// encode writes the components of a panel whose weights are in s.x, and its product, rows × cols, into s.product.
func (e *factored) encode(data [][]byte, s *factoredScratch, p compress.Panel) error {
	if err := e.enc.Rows(&s.encoded, e.leftPanel(s, p)); err != nil {
		return err
	}
	for i, d := range s.encoded.Data {
		if e.layout.Components[i].Whole {
			data[i] = d // the left encoder's own
			continue
		}
		copy(data[i], d)
	}
	copy(data[len(s.encoded.Data):], e.right)
	if p.Rows == 0 {
		return nil
	}
	return e.scheme.Product(s.product, s.left, e.floats, p.Cols, &compress.Encoded{Row: p.Row, Rows: p.Rows, Data: data})
}

// lost is Σ(x−y)² and Σx², each difference and square in float64.
func lost(x, y []float32) (e, p float64) {
	for i, v := range x {
		d := float64(v) - float64(y[i])
		e += float64(d * d)
		p += float64(float64(v) * float64(v))
	}
	return e, p
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
