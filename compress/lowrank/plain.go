package lowrank

import (
	"context"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// plain stores factors as floats, for those that nothing quantizes.
type plain struct {
	dtype string // "": what the weights work in
}

func (plain) Name() string { return compress.KindPlain }
func (plain) Version() int { return 1 }

func (m plain) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	work, err := l.WorkDType()
	if err != nil {
		return compress.Layout{}, err
	}
	if m.dtype != "" {
		work = m.dtype
	}
	s := compress.Plain{DType: work}
	return compress.Layout{Scheme: s, Components: s.Components(l.Rows, l.Cols), RowUnit: 1, Scratch: l.Cols * 4}, nil
}

func (m plain) Prepare(_ context.Context, group []compress.Weights, _ compress.Options) ([]compress.RowEncoder, error) {
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		layout, err := m.Layout(w.Linear())
		if err != nil {
			return nil, err
		}
		out[i] = plainRows{w.Linear(), layout}
	}
	return out, nil
}

type plainRows struct {
	linear compress.Linear
	layout compress.Layout
}

func (e plainRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	x := make([]float32, p.Rows*p.Cols)
	if err := p.Floats(e.linear, x); err != nil {
		return err
	}
	dst.Resize(e.layout, p)
	d, err := tensor.ParseDType(e.layout.Components[0].DType)
	if err != nil {
		return err
	}
	tensor.FromFloat32(dst.Data[0], x, d)
	clear(dst.Error)
	clear(dst.Power)
	return nil
}
