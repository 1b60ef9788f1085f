package quantize

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// fp4Layout is the layout of a scheme of 4-bit floats with groups of a fixed size.
func fp4Layout(l compress.Linear, s compress.Scheme, group int64) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	work, err := l.WorkDType()
	if err != nil {
		return compress.Layout{}, err
	}
	if l.Cols%group != 0 {
		return compress.Layout{}, compress.Invalidf("encode %s: its %d columns do not divide into the groups of %d that %s has: %s",
			l.Name, l.Cols, group, strings.ToUpper(s.Kind()), insteadOf(s.Kind(), l.Cols))
	}
	layout := compress.Layout{Scheme: s, Components: s.Components(l.Rows, l.Cols), RowUnit: 1}
	if work != l.DType {
		d, err := tensor.ParseDType(work)
		if err != nil {
			return compress.Layout{}, err
		}
		layout.Scratch = min(l.Rows, int64(compress.Options{}.RowsPerPanel(l))) * l.Cols * int64(d.Size())
	}
	return layout, nil
}

// insteadOf says what would work for a linear whose columns do not divide into a scheme's groups.
func insteadOf(kind string, cols int64) string {
	if kind == compress.KindMXFP4 && cols%tensor.NVFP4Group == 0 {
		return "use method nvfp4, or put the linear on the recipe's ignore list"
	}
	return "use method rtn with strategy=channel, or put the linear on the recipe's ignore list"
}

// fp4Rows encodes the rows of one linear. It is not written to after Prepare.
type fp4Rows struct {
	linear       compress.Linear
	layout       compress.Layout
	source, work tensor.DType
	kernels      *tensor.Kernels
	global       float32 // of NVFP4
	whole        []byte  // the same, stored
	pool         sync.Pool
}

// fp4Scratch is what one call of Rows needs beyond its output.
type fp4Scratch struct {
	work   []byte
	result tensor.FP4Result
}

func newFP4Rows(l compress.Linear, layout compress.Layout, k *tensor.Kernels) (*fp4Rows, error) {
	name, err := l.WorkDType()
	if err != nil {
		return nil, err
	}
	e := &fp4Rows{linear: l, layout: layout, kernels: k}
	if e.source, err = tensor.ParseDType(l.DType); err != nil {
		return nil, compress.Invalidf("encode %s: %w", l.Name, err)
	}
	if e.work, err = tensor.ParseDType(name); err != nil {
		return nil, compress.Invalidf("encode %s: %w", l.Name, err)
	}
	return e, nil
}

// Rows implements compress.RowEncoder.
func (e *fp4Rows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*fp4Scratch)
	if !ok {
		s = &fp4Scratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	data := e.widen(s, p.Data)
	r := &s.result
	r.Codes, r.Scales, r.Error, r.Power = dst.Data[0], dst.Data[1], dst.Error, dst.Power
	var bad int
	if e.whole != nil {
		dst.Data[2] = e.whole
		bad = e.kernels.EncodeNVFP4(r, data, e.work, p.Rows, p.Cols, e.global)
	} else {
		bad = e.kernels.EncodeMXFP4(r, data, e.work, p.Rows, p.Cols)
	}
	*r = tensor.FP4Result{}
	if bad >= 0 {
		return e.refuse(p, bad)
	}
	return nil
}

// refuse names the first weight of a row that is not finite.
func (e *fp4Rows) refuse(p compress.Panel, row int) error {
	n := p.Cols * e.source.Size()
	p.Row, p.Rows, p.Data = p.Row+int64(row), 1, p.Data[row*n:][:n]
	if err := p.Floats(e.linear, make([]float32, p.Cols)); err != nil {
		return err
	}
	return fmt.Errorf("encode %s: kernel %s refused row %d, whose weights are finite", e.linear.Name, e.kernels.Name(), p.Row)
}

// widen gives a panel's bytes in the working dtype.
func (e *fp4Rows) widen(s *fp4Scratch, data []byte) []byte {
	if e.source == e.work {
		return data
	}
	n := len(data) / e.source.Size()
	s.work = grow(s.work, n*e.work.Size())
	var x [256]float32
	for i := 0; i < n; i += len(x) {
		m := min(len(x), n-i)
		tensor.ToFloat32(x[:m], data[i*e.source.Size():], e.source)
		tensor.FromFloat32(s.work[i*e.work.Size():], x[:m], e.work)
	}
	return s.work
}

// largest passes over all rows of w, raises top to the bits of the largest magnitude and refuses what is not finite.
func (e *fp4Rows) largest(ctx context.Context, w compress.Weights, o compress.Options, top uint32) (uint32, error) {
	const infinite = 0x7f800000
	var s fp4Scratch
	found := [1]uint32{top}
	next := int64(0)
	for p, err := range w.Panels(ctx, o.RowsPerPanel(e.linear)) {
		if err != nil {
			return 0, fmt.Errorf("encode %s: %w", e.linear.Name, err)
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("encode %s: %w", e.linear.Name, err)
		}
		if err := p.Validate(e.linear); err != nil {
			return 0, err
		}
		if p.Row != next {
			return 0, fmt.Errorf("encode %s: panel of row %d came where row %d was due", e.linear.Name, p.Row, next)
		}
		next += int64(p.Rows)
		data := e.widen(&s, p.Data)
		e.kernels.MaxMagnitudes(found[:], data, e.work, p.Rows*p.Cols)
		if found[0] < infinite {
			continue
		}
		for row := range p.Rows {
			found[0] = 0
			n := p.Cols * e.work.Size()
			if e.kernels.MaxMagnitudes(found[:], data[row*n:][:n], e.work, p.Cols); found[0] >= infinite {
				return 0, e.refuse(p, row)
			}
		}
	}
	if next != e.linear.Rows {
		return 0, fmt.Errorf("encode %s: the panels end at row %d of %d", e.linear.Name, next, e.linear.Rows)
	}
	return found[0], nil
}
