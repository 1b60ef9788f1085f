package quantize

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// runs is what NF4 and FP4 share: runs of weights, each with a magnitude, and a table.
type runs struct {
	params runsParams
	name   string
	kind   string // of table
	table  *tensor.Table4
}

// runsParams are NF4Params and FP4Params.
type runsParams struct {
	Block       int64
	DoubleQuant bool
}

func runsParameters() []compress.Parameter {
	return []compress.Parameter{
		{
			Name: "block", Kind: compress.ParameterInt, Default: int64(64), Min: 32, Max: 4096,
			Doc: "weights that share a scale, a power of two; runs go on from row to row, so it need not divide the columns",
		},
		{Name: "double_quant", Kind: compress.ParameterBool, Default: true, Doc: "store scales as bytes, 256 of which share one (QLoRA's double quantization)"},
	}
}

// Validate refuses parameters that no linear can be encoded with.
func (p runsParams) Validate() error {
	if p.Block < 32 || p.Block > 4096 || p.Block&(p.Block-1) != 0 {
		return compress.Invalidf("block is %d, and takes 32, 64, 128, 256, 512, 1024, 2048, 4096", p.Block)
	}
	return nil
}

func (m *runs) scheme(work string) compress.Codebook {
	return compress.Codebook{Table: m.kind, Block: m.params.Block, Nested: m.params.DoubleQuant, DType: work}
}

func (m *runs) layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	work, err := l.WorkDType()
	if err != nil {
		return compress.Layout{}, err
	}
	s := m.scheme(work)
	layout := compress.Layout{
		Scheme: s, Components: s.Components(l.Rows, l.Cols), RowUnit: s.RowUnit(l.Cols), AllRows: m.params.DoubleQuant,
		// Magnitudes of a part of a panel, as they are and as they decode.
		Scratch: 2 * 4 * (min(l.Rows*l.Cols, max(tensor.TablePanel, l.Cols*s.RowUnit(l.Cols)))/m.params.Block + 1),
	}
	if m.params.DoubleQuant {
		layout.Scratch += (l.Rows*l.Cols + m.params.Block - 1) / m.params.Block * (4 + 1) // all magnitudes, and as bytes
	}
	return layout, nil
}

func (m *runs) prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", m.name, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		l := w.Linear()
		layout, err := m.layout(l)
		if err != nil {
			return nil, err
		}
		d, err := tensor.ParseDType(l.DType)
		if err != nil {
			return nil, compress.Invalidf("encode %s: %w", l.Name, err)
		}
		e := &runsRows{linear: l, layout: layout, block: int(m.params.Block), kernels: k, dtype: d, table: m.table, values: floatBytes(m.table.Values[:])}
		if m.params.DoubleQuant {
			if err := e.nest(ctx, w, o); err != nil {
				return nil, err
			}
		}
		out[i] = e
	}
	return out, nil
}

// runsRows encodes the rows of one linear. It is not written to after Prepare.
type runsRows struct {
	linear  compress.Linear
	layout  compress.Layout
	block   int
	kernels *tensor.Kernels
	dtype   tensor.DType // of the source
	table   *tensor.Table4
	values  []byte    // of the table
	nested  *nested   // nil without double quantization
	pool    sync.Pool // of *runsScratch
}

type runsScratch struct{ absmax, scale []float32 }

// Rows implements compress.RowEncoder.
func (e *runsRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	unit := e.layout.RowUnit
	if p.Row%unit != 0 || int64(p.Rows)%unit != 0 && p.Row+int64(p.Rows) != e.linear.Rows {
		return fmt.Errorf("encode %s: panel of rows %d+%d does not hold whole units of %d rows", e.linear.Name, p.Row, p.Rows, unit)
	}
	s, ok := e.pool.Get().(*runsScratch)
	if !ok {
		s = &runsScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	n := p.Rows * p.Cols
	count := (n + e.block - 1) / e.block
	first := int(p.Row * e.linear.Cols / int64(e.block)) // run of the matrix
	dst.Data[0] = grow(dst.Data[0], (n+1)/2)
	dst.Data[2] = e.values
	if e.nested != nil {
		dst.Data[1] = append(dst.Data[1][:0], e.nested.codes[first:first+count]...)
		dst.Data[3], dst.Data[4], dst.Data[5] = e.nested.absmax, e.nested.table, e.nested.offset
	} else {
		dst.Data[1] = grow(dst.Data[1], 4*count)
	}
	// A few rows at a time, so that the second step finds them in a cache.
	step := int(max(tensor.TablePanel/int64(p.Cols*e.dtype.Size())/unit, 1) * unit)
	size := p.Cols * e.dtype.Size()
	for row := 0; row < p.Rows; row += step {
		part := p
		part.Row, part.Rows = p.Row+int64(row), min(step, p.Rows-row)
		part.Data = p.Data[row*size:][:part.Rows*size]
		if err := e.rows(dst, part, row, first+row*p.Cols/e.block, s); err != nil {
			return err
		}
	}
	return nil
}

// rows encodes a part of a panel from its row at on, whose first run is run first of the matrix.
func (e *runsRows) rows(dst *compress.Encoded, p compress.Panel, at, first int, s *runsScratch) error {
	n := p.Rows * p.Cols
	count := (n + e.block - 1) / e.block
	s.absmax = grow(s.absmax, count)
	if err := e.absmax(s.absmax, p); err != nil {
		return err
	}
	scale := s.absmax
	if e.nested != nil {
		s.scale = grow(s.scale, count)
		scale = s.scale
		for i := range scale {
			scale[i] = e.nested.value(first + i)
		}
	} else {
		stored := dst.Data[1][4*(at*p.Cols/e.block):]
		for i, v := range scale {
			binary.LittleEndian.PutUint32(stored[4*i:], math.Float32bits(v))
		}
	}
	r := tensor.TableResult{Codes: dst.Data[0][at*p.Cols/2:], Error: dst.Error[at:], Power: dst.Power[at:]}
	e.kernels.EncodeTable(&r, p.Data, e.dtype, p.Rows, p.Cols, e.block, s.absmax, scale, e.table)
	return nil
}

// absmax finds the magnitudes of a panel's runs.
func (e *runsRows) absmax(dst []float32, p compress.Panel) error {
	if bad := e.kernels.RunsAbsmax(dst, p.Data, e.dtype, e.block); bad >= 0 {
		if err := p.Floats(e.linear, make([]float32, p.Rows*p.Cols)); err != nil {
			return err // names the weight
		}
		return fmt.Errorf("encode %s: kernel %s refused run %d, whose weights are finite", e.linear.Name, e.kernels.Name(), bad)
	}
	if n := p.Rows * p.Cols; n%e.block != 0 {
		// As bitsandbytes has it, on whose CPU code a short run divides by what it stores.
		last := len(dst) - 1
		dst[last] = max(dst[last], tensor.MinAbsmax)
	}
	return nil
}

// nest finds the magnitudes of all runs and quantizes them.
func (e *runsRows) nest(ctx context.Context, w compress.Weights, o compress.Options) error {
	l := e.linear
	all := make([]float32, (l.Rows*l.Cols+int64(e.block)-1)/int64(e.block))
	unit := e.layout.RowUnit
	rows := max(int64(o.RowsPerPanel(l))/unit, 1) * unit
	next := int64(0)
	for p, err := range w.Panels(ctx, int(min(rows, l.Rows))) {
		if err != nil {
			return fmt.Errorf("encode %s: %w", l.Name, err)
		}
		if err := errors.Join(ctx.Err(), p.Validate(l)); err != nil {
			return fmt.Errorf("encode %s: %w", l.Name, err)
		}
		if p.Row != next || p.Row%unit != 0 {
			return fmt.Errorf("encode %s: panel of row %d came where row %d was due", l.Name, p.Row, next)
		}
		next += int64(p.Rows)
		if next%unit != 0 && next != l.Rows {
			return fmt.Errorf("encode %s: panel of rows %d+%d does not hold whole units of %d rows", l.Name, p.Row, p.Rows, unit)
		}
		at, n := p.Row*l.Cols/int64(e.block), (p.Rows*p.Cols+e.block-1)/e.block
		if err := e.absmax(all[at:][:n], p); err != nil {
			return err
		}
	}
	if next != l.Rows {
		return fmt.Errorf("encode %s: the panels end at row %d of %d", l.Name, next, l.Rows)
	}
	e.nested = nest(all)
	return nil
}

func floatBytes(x []float32) []byte {
	out := make([]byte, 0, 4*len(x))
	for _, v := range x {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}
