package quantize

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// FP8 rounds weights to floats of 8 bits, E4M3 or E5M2 (Micikevicius et al., "FP8 formats for deep learning", arXiv 2209.05433,
// table 1), over a scale that takes the largest magnitude to the largest float: 448 or 57344.
//
// It minimises |w − ŵ| of each weight for its scale, and loses about 2^-5 of a weight at most whatever its size, where an integer grid
// loses a fixed step. Per tensor one scale serves all (FP8), per channel a row (FP8_DYNAMIC), per block a tile of
// 128 × 128 (DeepSeek-V3, arXiv 2412.19437, section 3.3.2).
//
// Scales and codes are those of compressed-tensors: scale = absmax/max, computed in float32 and rounded to the dtype of the weights, the
// dtype's epsilon where that is zero; the quotient w/scale is rounded to the same dtype, clamped, and rounded to the
// float, ties to even.
//
// Cost: one pass over the weights, bound by memory; per tensor one more to find the scale.
//
// float-quantized holds E4M3, shardpress and dense hold both.
type FP8 struct{ params FP8Params }

// FP8Name is the method's name in recipes.
const FP8Name = "fp8"

// fp8Version changes whenever the bytes of any output do.
const fp8Version = 1

// Elements of FP8.
const (
	ElementE4M3 = "e4m3"
	ElementE5M2 = "e5m2"
)

// FP8Params are the parameters of FP8.
type FP8Params struct {
	Element   string `json:"element"`
	Strategy  string `json:"strategy"`
	BlockRows int64  `json:"block_rows,omitempty"` // with strategy block only
	BlockCols int64  `json:"block_cols,omitempty"`
}

// FP8Parameters describes FP8Params.
func FP8Parameters() []compress.Parameter {
	return []compress.Parameter{
		{
			Name: "element", Kind: compress.ParameterString, Default: ElementE4M3, Choices: []string{ElementE4M3, ElementE5M2},
			Doc: "4 bits of exponent and 3 of fraction, which engines run, or 5 and 2",
		},
		{
			Name: "strategy", Kind: compress.ParameterString, Default: compress.StrategyChannel,
			Choices: []string{compress.StrategyTensor, compress.StrategyChannel, compress.StrategyBlock},
			Doc:     "what shares a scale: the tensor, an output channel (a row), or a tile of rows and columns",
		},
		{
			Name: "block_rows", Kind: compress.ParameterInt, Default: int64(128), Min: 1, Max: 1 << 14,
			When: "strategy", Is: compress.StrategyBlock, Doc: "rows of a tile; the last one may be lower. Engines run 128 × 128",
		},
		{
			Name: "block_cols", Kind: compress.ParameterInt, Default: int64(128), Min: 1, Max: 1 << 20,
			When: "strategy", Is: compress.StrategyBlock, Doc: "columns of a tile; has to divide the columns of every target",
		},
	}
}

// Validate refuses parameters that no linear can be encoded with.
func (p FP8Params) Validate() error {
	if p.Element != ElementE4M3 && p.Element != ElementE5M2 {
		return compress.Invalidf("element is %q, and takes %s or %s", p.Element, ElementE4M3, ElementE5M2)
	}
	switch p.Strategy {
	case compress.StrategyBlock:
		if p.BlockRows < 1 || p.BlockRows > 1<<14 || p.BlockCols < 1 {
			return compress.Invalidf("block is %d × %d, and takes whole numbers from 1, and at most %d rows", p.BlockRows, p.BlockCols, 1<<14)
		}
	case compress.StrategyChannel, compress.StrategyTensor:
		if p.BlockRows != 0 || p.BlockCols != 0 {
			return compress.Invalidf("block is %d × %d, and has a meaning only with strategy=block", p.BlockRows, p.BlockCols)
		}
	default:
		return compress.Invalidf("strategy is %q, and takes tensor, channel, block", p.Strategy)
	}
	return nil
}

// NewFP8 makes the method.
func NewFP8(p FP8Params) (*FP8, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &FP8{params: p}, nil
}

// Name implements compress.Method.
func (m *FP8) Name() string { return FP8Name }

// Version implements compress.Method.
func (m *FP8) Version() int { return fp8Version }

// element is the type of codes and their largest value.
func (m *FP8) element() (tensor.DType, float32) {
	if m.params.Element == ElementE5M2 {
		return tensor.F8E5M2, tensor.MaxE5M2
	}
	return tensor.F8E4M3, tensor.MaxE4M3
}

// Layout implements compress.Method.
func (m *FP8) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	source, work, err := workDType(l)
	if err != nil {
		return compress.Layout{}, err
	}
	element, _ := m.element()
	s := compress.Float{
		Element: element.String(), Strategy: m.params.Strategy,
		BlockRows: m.params.BlockRows, BlockCols: m.params.BlockCols, ScaleDType: work.String(),
	}
	layout := compress.Layout{Scheme: s, AllRows: m.params.Strategy == compress.StrategyTensor, RowUnit: 1, Scratch: 16}
	if m.params.Strategy == compress.StrategyBlock {
		if l.Cols%s.BlockCols != 0 {
			return compress.Layout{}, compress.Invalidf("encode %s: its %d columns do not divide into blocks of %d: %s",
				l.Name, l.Cols, s.BlockCols, blocksThatFit(l.Cols))
		}
		layout.RowUnit, layout.Scratch = s.BlockRows, l.Cols/s.BlockCols*8
	}
	if source != work {
		layout.Scratch += l.Cols * int64(work.Size())
	}
	layout.Components = s.Components(l.Rows, l.Cols)
	return layout, nil
}

// blocksThatFit ends the sentence about a block that does not divide.
func blocksThatFit(cols int64) string {
	var fit string
	for b := int64(128); b >= 16; b /= 2 {
		if cols%b == 0 {
			fit = fmt.Sprintf("use block_cols=%d and an engine that runs it, or ", b)
			break
		}
	}
	return fit + "use strategy=channel for it in a step of its own, or put it on the recipe's ignore list"
}

// Prepare implements compress.Method.
func (m *FP8) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", FP8Name, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		l := w.Linear()
		layout, err := m.Layout(l)
		if err != nil {
			return nil, err
		}
		e := &fp8Rows{linear: l, layout: layout, kernels: k, tile: 1, group: int(l.Cols)}
		e.element, e.limit = m.element()
		if e.source, e.work, err = workDType(l); err != nil {
			return nil, err
		}
		if m.params.Strategy == compress.StrategyBlock {
			e.tile, e.group = int(m.params.BlockRows), int(m.params.BlockCols)
		}
		if layout.AllRows {
			if err := e.fitTensor(ctx, w, o.RowsPerPanel(l)); err != nil {
				return nil, err
			}
		}
		out[i] = e
	}
	return out, nil
}

// fp8Rows encodes the rows of one linear. It is not written to after Prepare.
type fp8Rows struct {
	linear       compress.Linear
	layout       compress.Layout
	kernels      *tensor.Kernels
	source, work tensor.DType
	element      tensor.DType
	limit        float32
	tile, group  int       // rows and columns that share a scale; all columns unless the strategy is block
	stored       []byte    // the scale of the whole tensor
	scale        float32   // likewise, decoded
	pool         sync.Pool // of *floatScratch, for the calls under way
}

// floatScratch is what one call of Rows needs beyond its output.
type floatScratch struct {
	top    []uint32  // by group of a row: the largest magnitude, as float32 bits
	scales []float32 // likewise, what they are divided by
	row    []byte    // a row in the working dtype
}

// widenRow gives a row in the working dtype.
func widenRow(s *floatScratch, row []byte, source, work tensor.DType) []byte {
	if source == work {
		return row
	}
	n := len(row) / source.Size()
	s.row = grow(s.row, n*work.Size())
	var x [256]float32
	for i := 0; i < n; i += len(x) {
		m := min(len(x), n-i)
		tensor.ToFloat32(x[:m], row[i*source.Size():], source)
		tensor.FromFloat32(s.row[i*work.Size():], x[:m], work)
	}
	return s.row
}

// notFinite is the first of the magnitudes' bits that stand for no finite number.
const notFinite = 0x7f800000

// Rows implements compress.RowEncoder.
func (e *fp8Rows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	if p.Row%e.layout.RowUnit != 0 {
		return fmt.Errorf("encode %s: a panel starts at row %d, inside of a tile of %d", e.linear.Name, p.Row, e.layout.RowUnit)
	}
	s, ok := e.pool.Get().(*floatScratch)
	if !ok {
		s = &floatScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	n := p.Cols / e.group
	s.top, s.scales = grow(s.top, n), grow(s.scales, n)
	rowBytes := p.Cols * e.source.Size()
	for first := 0; first < p.Rows; first += e.tile {
		rows := min(e.tile, p.Rows-first)
		clear(s.top)
		for row := first; row < first+rows; row++ {
			e.kernels.MaxMagnitudes(s.top, widenRow(s, p.Data[row*rowBytes:][:rowBytes], e.source, e.work), e.work, e.group)
		}
		for g, top := range s.top {
			switch {
			case top >= notFinite:
				return e.refuse(p)
			case e.layout.AllRows:
				s.scales[g] = e.scale
			default:
				at := (first/e.tile*n + g) * e.work.Size()
				s.scales[g] = storeFloatScale(dst.Data[1][at:], math.Float32frombits(top)/e.limit, e.work)
			}
		}
		for row := first; row < first+rows; row++ {
			data := widenRow(s, p.Data[row*rowBytes:][:rowBytes], e.source, e.work)
			dst.Error[row], dst.Power[row] = e.kernels.EncodeFloat8(dst.Data[0][row*p.Cols:][:p.Cols], data, e.work, s.scales, e.element)
		}
	}
	if e.layout.AllRows {
		dst.Data[1] = e.stored
	}
	return nil
}

// refuse names the first weight of a panel that is not finite.
func (e *fp8Rows) refuse(p compress.Panel) error { return refuseNotFinite(e.linear, p) }

func refuseNotFinite(l compress.Linear, p compress.Panel) error {
	if err := p.Floats(l, make([]float32, p.Rows*p.Cols)); err != nil {
		return err
	}
	return fmt.Errorf("encode %s: rows %d+%d were found not to be finite, and are", l.Name, p.Row, p.Rows)
}

// fitTensor finds the scale of a whole tensor.
func (e *fp8Rows) fitTensor(ctx context.Context, w compress.Weights, panelRows int) error {
	top, next := []uint32{0}, int64(0)
	var s floatScratch
	rowBytes := int(e.linear.Cols) * e.source.Size()
	for p, err := range w.Panels(ctx, panelRows) {
		if err != nil {
			return fmt.Errorf("encode %s: %w", e.linear.Name, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("encode %s: %w", e.linear.Name, err)
		}
		if err := p.Validate(e.linear); err != nil {
			return err
		}
		if p.Row != next {
			return fmt.Errorf("encode %s: panel of row %d came where row %d was due", e.linear.Name, p.Row, next)
		}
		next += int64(p.Rows)
		for row := range p.Rows {
			e.kernels.MaxMagnitudes(top, widenRow(&s, p.Data[row*rowBytes:][:rowBytes], e.source, e.work), e.work, p.Cols)
		}
		if top[0] >= notFinite {
			return e.refuse(p)
		}
	}
	if next != e.linear.Rows {
		return fmt.Errorf("encode %s: the panels end at row %d of %d", e.linear.Name, next, e.linear.Rows)
	}
	e.stored = make([]byte, e.work.Size())
	e.scale = storeFloatScale(e.stored, math.Float32frombits(top[0])/e.limit, e.work)
	return nil
}

// storeFloatScale rounds a scale to the type d, writes it and returns it as float32. One that is zero becomes the type's epsilon, as in
// compressed-tensors.
func storeFloatScale(dst []byte, scale float32, d tensor.DType) float32 {
	x := [1]float32{scale}
	tensor.FromFloat32(dst, x[:], d)
	tensor.ToFloat32(x[:], dst, d)
	if x[0] != 0 {
		return x[0]
	}
	switch d {
	case tensor.BF16:
		x[0] = 0x1p-7
	case tensor.F16:
		x[0] = 0x1p-10
	default:
		x[0] = 0x1p-23
	}
	tensor.FromFloat32(dst, x[:], d)
	return x[0]
}
