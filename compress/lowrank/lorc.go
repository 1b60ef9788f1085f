package lowrank

import (
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// LoRC is low-rank compensation (Yao et al., ZeroQuant-V2, arXiv 2303.08302, section 4): the error that another method makes is itself written as a
// product of low rank, and added back,
//
//	Ŵ = Q(W) + L·R,  L·R the truncation of W − Q(W) to the rank
//
// which minimises ‖W − Ŵ‖ for the given codes. The error of a good quantizer has hardly any structure: a few per cent of it go at
// ranks that cost little, more at 2 and 3 bits and where a few rows or columns stand out.
//
// Cost: the quantizer's, and svd's for its error. The quantizer is the second method (then), and has to be given. Factors are stored in the precision of the
// weights. Formats: shardpress, and dense.
type LoRC struct {
	params LoRCParams
	next   compress.Method // nil: none was given
}

// LoRCName is the method's name in recipes.
const LoRCName = "lorc"

// lorcVersion changes whenever the bytes of any output do.
const lorcVersion = 1

// LoRCParams are the parameters of LoRC.
type LoRCParams struct {
	Rank int64 `json:"rank"`
}

// LoRCParameters describes LoRCParams.
func LoRCParameters() []compress.Parameter {
	return []compress.Parameter{
		{Name: "rank", Kind: compress.ParameterInt, Default: int64(8), Min: 1, Max: 1 << 20, Doc: "rank of the correction"},
	}
}

// NewLoRC makes the method.
func NewLoRC(p LoRCParams) (*LoRC, error) {
	if p.Rank < 1 {
		return nil, compress.Invalidf("rank is %d, and takes a whole number from 1", p.Rank)
	}
	return &LoRC{params: p}, nil
}

// Name implements compress.Method.
func (m *LoRC) Name() string { return LoRCName }

// Version implements compress.Method.
func (m *LoRC) Version() int { return lorcVersion }

// Then implements compress.Chainer: next quantizes, and its error is compensated.
func (m *LoRC) Then(next compress.Method) (compress.Method, error) {
	if _, ok := next.(compress.Chainer); ok {
		return nil, compress.Invalidf("method %s compensates the error of a method that quantizes, and %s is none", LoRCName, next.Name())
	}
	return &LoRC{m.params, next}, nil
}

// Layout implements compress.Method.
func (m *LoRC) Layout(l compress.Linear) (compress.Layout, error) {
	none := compress.Layout{}
	if m.next == nil {
		return none, compress.Invalidf("encode %s: method %s has nothing to compensate: name the method that quantizes, as in then: {method: rtn, bits: 4}", l.Name, LoRCName)
	}
	base, err := m.next.Layout(l)
	if err != nil {
		return none, err
	}
	if base.Share != compress.ShareNone {
		return none, compress.Invalidf("encode %s: method %s works on one linear, and %s on several at once: choose another method, such as rtn", l.Name, LoRCName, m.next.Name())
	}
	for _, c := range base.Components {
		if c.Ragged {
			return none, compress.Invalidf("encode %s: method %s cannot compensate %s, whose %s vary in size from row to row: choose another method, such as rtn", l.Name, LoRCName, m.next.Name(), c.Name)
		}
	}
	rank, err := Rank{By: ByRank, Rank: m.params.Rank}.of(l)
	if err != nil {
		return none, err
	}
	fix, err := factorLayout(m.residual(l), rank, m.factors(l))
	if err != nil {
		return none, err
	}
	s := compress.Corrected{Base: base.Scheme, Correction: fix.Scheme.(compress.Factors)} //nolint:errcheck,forcetypeassert // factorLayout made it
	return compress.Layout{
		Scheme: s, Components: s.Components(l.Rows, l.Cols), AllRows: true, RowUnit: max(base.RowUnit, 1), Seeded: base.Seeded,
		Scratch: base.Scratch + fix.Scratch + truncationScratch(l.Rows, l.Cols, rank, 4) + panelScratch,
	}, nil
}

// residual describes what the quantizer loses: float32.
func (m *LoRC) residual(l compress.Linear) compress.Linear {
	l.DType = tensor.F32.String()
	return l
}

// factors stores the correction's factors in the precision of l.
func (m *LoRC) factors(l compress.Linear) compress.Method {
	work, err := l.WorkDType()
	if err != nil {
		work = tensor.F32.String()
	}
	return plain{work}
}

// Prepare implements compress.Method.
func (m *LoRC) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", LoRCName, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		if out[i], err = m.prepare(ctx, w, k, o); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *LoRC) prepare(ctx context.Context, w compress.Weights, k *tensor.Kernels, o compress.Options) (compress.RowEncoder, error) {
	l := w.Linear()
	layout, err := m.Layout(l)
	if err != nil {
		return nil, err
	}
	scheme := layout.Scheme.(compress.Corrected) //nolint:errcheck,forcetypeassert // Layout made it
	base, err := m.next.Prepare(ctx, []compress.Weights{w}, o)
	if err != nil {
		return nil, err
	}
	if len(base) != 1 {
		return nil, fmt.Errorf("encode %s: method %s prepared %d encoders for one linear", l.Name, m.next.Name(), len(base))
	}
	e := &compensated{linear: l, layout: layout, scheme: scheme, base: base[0], parts: len(scheme.Base.Components(l.Rows, l.Cols))}
	rest := &residual{e, w, m.residual(l)}
	fix, err := factorLayout(rest.linear, m.params.Rank, m.factors(l))
	if err != nil {
		return nil, err
	}
	t, err := truncate(ctx, k, rest, ofRank(int(m.params.Rank)), o)
	if err != nil {
		return nil, err
	}
	e.fix, err = newFactored(ctx, rest, fix, m.params.Rank, t.left, t.right, m.factors(l), k, o)
	return e, err
}

// compensated encodes a panel with the quantizer, and what that loses with the factors.
type compensated struct {
	linear compress.Linear
	layout compress.Layout
	scheme compress.Corrected
	base   compress.RowEncoder
	parts  int // components of the base
	fix    *factored
}

// lose quantizes a panel into to, and gives the weights x and what decoding makes of them, rows × cols.
func (e *compensated) lose(to *compress.Encoded, p compress.Panel) (x, decoded []float32, err error) {
	if err := e.base.Rows(to, p); err != nil {
		return nil, nil, err
	}
	x, decoded = make([]float32, p.Rows*p.Cols), make([]float32, p.Rows*p.Cols)
	if err := p.Floats(e.linear, x); err != nil {
		return nil, nil, err
	}
	return x, decoded, e.scheme.Base.Decode(decoded, p.Cols, to)
}

// rest makes a panel of what the quantizer lost. A difference that overflows is taken as the largest there is.
func (e *compensated) rest(p compress.Panel, linear compress.Linear, x, decoded []float32) compress.Panel {
	diff := make([]float32, len(x))
	for i, v := range x {
		diff[i] = min(max(v-decoded[i], -math.MaxFloat32), math.MaxFloat32)
	}
	data := make([]byte, 4*len(diff))
	tensor.FromFloat32(data, diff, tensor.F32)
	return compress.Panel{Row: p.Row, Rows: p.Rows, Cols: p.Cols, DType: linear.DType, Data: data}
}

// Rows implements compress.RowEncoder.
func (e *compensated) Rows(dst *compress.Encoded, p compress.Panel) error {
	var base, fix compress.Encoded
	x, decoded, err := e.lose(&base, p)
	if err != nil {
		return err
	}
	rest := e.rest(p, e.fix.linear, x, decoded)
	if err := e.fix.Rows(&fix, rest); err != nil {
		return err
	}
	dst.Resize(e.layout, p)
	copy(dst.Data, base.Data) // both belong to nobody else
	copy(dst.Data[e.parts:], fix.Data)
	more := make([]float32, len(x))
	if err := e.scheme.Correction.Decode(more, p.Cols, &compress.Encoded{Row: p.Row, Rows: p.Rows, Data: fix.Data}); err != nil {
		return err
	}
	for i, v := range more {
		decoded[i] += v
	}
	for r := range p.Rows {
		dst.Error[r], dst.Power[r] = lost(x[r*p.Cols:][:p.Cols], decoded[r*p.Cols:][:p.Cols])
	}
	return nil
}

// residual gives W − Q(W).
type residual struct {
	e      *compensated
	w      compress.Weights
	linear compress.Linear
}

func (f *residual) Linear() compress.Linear { return f.linear }

func (f *residual) Panels(ctx context.Context, rows int) iter.Seq2[compress.Panel, error] {
	unit := int(f.e.layout.RowUnit)
	rows = max(rows/unit, 1) * unit
	return func(yield func(compress.Panel, error) bool) {
		var to compress.Encoded
		for p, err := range f.w.Panels(ctx, rows) {
			if err == nil {
				var x, decoded []float32
				if x, decoded, err = f.e.lose(&to, p); err == nil {
					p = f.e.rest(p, f.linear, x, decoded)
				}
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}
