package quantize

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// RTN is round to nearest: every weight goes to the nearest point of an even grid whose range is that of the
// weights that share it.
//
// It minimises |w − ŵ| of each weight for a given grid. With search, the grid's range shrinks to the one of
// 80 that minimises Σ|w − ŵ|^2.4, the search of the GPTQ authors' code (Frantar et al., arXiv 2210.17323), the power
// being high so that large weights keep their weight in the choice.
//
// Scales, zero points and rounding follow compressed-tensors (int4: absmax/7.5), as internal/tensor
// states them for EncodeGroups and EncodeGroupsAsymmetric. Scales are stored in the dtype of the weights; F64
// weights are rounded to F32 first, FP8 ones widen to BF16.
//
// Cost: one pass over the weights, bound by memory; per tensor one more to find the range. The search costs up to
// 80 times the arithmetic, without vector code.
//
// pack-quantized, int-quantized and dense can hold all of it. Engines run groups of 32, 64 and 128 and whole
// channels, 4 and 8 bits, symmetric; the rest is for newer engines or for dense.
type RTN struct{ params RTNParams }

// RTNName is the method's name in recipes.
const RTNName = "rtn"

// rtnVersion changes whenever the bytes of any output do.
const rtnVersion = 1

// RTNParams are the parameters of RTN.
type RTNParams struct {
	Bits      int    `json:"bits"`
	Symmetric bool   `json:"symmetric"`
	Strategy  string `json:"strategy"`
	Group     int64  `json:"group,omitempty"` // with strategy group only
	Search    bool   `json:"search"`
}

// RTNParameters describes RTNParams.
func RTNParameters() []compress.Parameter {
	return []compress.Parameter{
		{Name: "bits", Kind: compress.ParameterInt, Default: int64(4), Min: 2, Max: 8, Doc: "bits of a code"},
		{Name: "symmetric", Kind: compress.ParameterBool, Default: true, Doc: "grid centred on 0; false adds a zero point to every scale"},
		{
			Name: "strategy", Kind: compress.ParameterString, Default: compress.StrategyGroup,
			Choices: []string{compress.StrategyTensor, compress.StrategyChannel, compress.StrategyGroup},
			Doc:     "what shares a scale: the tensor, an output channel (a row), or a group of columns of a row",
		},
		{
			Name: "group", Kind: compress.ParameterInt, Default: int64(128), Min: 1, Max: 1 << 20,
			When: "strategy", Is: compress.StrategyGroup, Doc: "columns that share a scale; has to divide the columns of every target",
		},
		{Name: "search", Kind: compress.ParameterBool, Default: false, Doc: "search the range that minimises Σ|error|^2.4; slow"},
	}
}

// Validate refuses parameters that no linear can be encoded with.
func (p RTNParams) Validate() error {
	if p.Bits < 2 || p.Bits > 8 {
		return compress.Invalidf("bits is %d, and takes a whole number from 2 to 8", p.Bits)
	}
	switch p.Strategy {
	case compress.StrategyGroup:
		if p.Group < 1 {
			return compress.Invalidf("group is %d, and takes a whole number from 1", p.Group)
		}
	case compress.StrategyChannel, compress.StrategyTensor:
		if p.Group != 0 {
			return compress.Invalidf("group is %d, and has a meaning only with strategy=group", p.Group)
		}
	default:
		return compress.Invalidf("strategy is %q, and takes tensor, channel, group", p.Strategy)
	}
	return nil
}

// NewRTN makes the method.
func NewRTN(p RTNParams) (*RTN, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &RTN{params: p}, nil
}

// Name implements compress.Method.
func (m *RTN) Name() string { return RTNName }

// Version implements compress.Method.
func (m *RTN) Version() int { return rtnVersion }

// Layout implements compress.Method.
func (m *RTN) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	source, work, err := workDType(l)
	if err != nil {
		return compress.Layout{}, err
	}
	group := l.Cols
	if m.params.Strategy == compress.StrategyGroup {
		group = m.params.Group
		if l.Cols%group != 0 {
			return compress.Layout{}, compress.Invalidf("encode %s: its %d columns do not divide into groups of %d: %s",
				l.Name, l.Cols, group, groupsThatFit(l.Cols))
		}
	}
	s := m.scheme(group, work)
	layout := compress.Layout{
		Scheme:     s,
		Components: s.Components(l.Rows, l.Cols),
		AllRows:    m.params.Strategy == compress.StrategyTensor,
		RowUnit:    1,
		Scratch:    l.Cols * (1 + 4), // a row of codes and of float32
	}
	if layout.AllRows {
		layout.Scratch += l.Cols * 4 // the pass that finds the range has a row of its own
	}
	if source != work {
		layout.Scratch += l.Cols * int64(work.Size())
	}
	return layout, nil
}

func (m *RTN) scheme(group int64, work tensor.DType) compress.Int {
	return compress.Int{
		Bits: m.params.Bits, Symmetric: m.params.Symmetric,
		Strategy: m.params.Strategy, Group: group, ScaleDType: work.String(),
	}
}

// groupsThatFit ends the sentence about a group that does not divide.
func groupsThatFit(cols int64) string {
	var fit []string
	for g := int64(16); g <= cols && cols%g == 0; g *= 2 {
		fit = append(fit, fmt.Sprint(g))
	}
	if len(fit) == 0 {
		return "no power of two from 16 up divides them; use strategy=channel"
	}
	return "use group=" + strings.Join(fit, " or ") + ", or strategy=channel"
}

// workDType says in which dtype the arithmetic reads the weights; scales are stored in the same.
func workDType(l compress.Linear) (source, work tensor.DType, err error) {
	source, err = tensor.ParseDType(l.DType)
	if err != nil {
		return 0, 0, compress.Invalidf("encode %s: %w", l.Name, err)
	}
	switch source {
	case tensor.F32, tensor.F16, tensor.BF16:
		return source, source, nil
	case tensor.F64:
		return source, tensor.F32, nil
	case tensor.F8E4M3, tensor.F8E5M2:
		return source, tensor.BF16, nil // holds every value of both
	}
	return 0, 0, compress.Invalidf("encode %s: weights of type %s cannot be quantized: put the linear on the recipe's ignore list", l.Name, l.DType)
}

// Prepare implements compress.Method.
func (m *RTN) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", RTNName, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		l := w.Linear()
		layout, err := m.Layout(l)
		if err != nil {
			return nil, err
		}
		source, work, err := workDType(l)
		if err != nil {
			return nil, err
		}
		e := &rtnRows{
			linear: l, layout: layout, group: l.Cols, kernels: k, source: source, work: work,
			grid: newGrid(m.params.Bits, m.params.Symmetric, work), search: m.params.Search,
		}
		if m.params.Strategy == compress.StrategyGroup {
			e.group = m.params.Group
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

// rtnRows encodes the rows of one linear. It is not written to after Prepare.
type rtnRows struct {
	linear       compress.Linear
	layout       compress.Layout
	group        int64 // columns that share a scale
	kernels      *tensor.Kernels
	source, work tensor.DType
	grid         grid
	search       bool
	scale        []byte    // of the whole tensor, stored
	zero         []byte    // likewise
	point        point     // likewise, decoded
	pool         sync.Pool // of *rtnScratch, for the calls under way
}

// rtnScratch is what one call of Rows needs beyond its output.
type rtnScratch struct {
	result tensor.GroupResult
	row    []float32
	codes  []uint8
	work   []byte
}

// Rows implements compress.RowEncoder.
func (e *rtnRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*rtnScratch)
	if !ok {
		s = &rtnScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	data := e.widen(s, p.Data)
	if e.search || e.layout.AllRows {
		return e.plain(dst, p, data, s)
	}

	// The fast path: the source's bytes go to the kernel, components come out in place.
	r := &s.result
	r.Codes, r.Scales, r.Error, r.Power = dst.Data[0], dst.Data[1], dst.Error, dst.Power
	encode := e.kernels.EncodeGroups
	if !e.grid.symmetric {
		r.Zeros, encode = dst.Data[2], e.kernels.EncodeGroupsAsymmetric
	}
	bad := encode(r, data, e.work, p.Rows, p.Cols, int(e.group), e.grid.bits, e.work)
	r.Codes, r.Scales, r.Zeros, r.Error, r.Power = nil, nil, nil, nil, nil
	if bad >= 0 {
		return e.refuse(p, data, bad)
	}
	return nil
}

// plain encodes a panel in plain Go, with the tensor's grid or a searched one for each group.
func (e *rtnRows) plain(dst *compress.Encoded, p compress.Panel, data []byte, s *rtnScratch) error {
	cols, group := p.Cols, int(e.group)
	groups, size := cols/group, e.work.Size()
	s.row, s.codes = grow(s.row, cols), grow(s.codes, cols)
	rowBytes := tensor.PackedRowBytes(cols, e.grid.bits)
	for row := range p.Rows {
		tensor.ToFloat32(s.row, data[row*cols*size:][:cols*size], e.work)
		if !finite(s.row) {
			return e.refuse(p, data, row)
		}
		var errSum, powSum float64
		for g := range groups {
			x := s.row[g*group:][:group]
			pt := e.point
			if !e.layout.AllRows {
				pt = e.grid.searchRange(x)
				at := row*groups + g
				e.grid.store(dst.Data[1][at*size:], pt)
				if !e.grid.symmetric {
					dst.Data[2][at] = e.grid.storeZero(pt)
				}
			}
			err2, pow2 := e.grid.encode(s.codes[g*group:][:group], x, pt)
			errSum += float64(err2)
			powSum += float64(pow2)
		}
		tensor.PackRow(dst.Data[0][row*rowBytes:][:rowBytes], s.codes, e.grid.bits)
		dst.Error[row], dst.Power[row] = errSum, powSum
	}
	if e.layout.AllRows {
		dst.Data[1] = e.scale
		if !e.grid.symmetric {
			dst.Data[2] = e.zero
		}
	}
	return nil
}

// fitTensor finds the one grid of a whole tensor: a pass for the range and, to search, one more.
func (e *rtnRows) fitTensor(ctx context.Context, w compress.Weights, panelRows int) error {
	var low, high float32
	var losses [searchSteps]float64
	pass := func(each func(x []float32)) error {
		var s rtnScratch
		s.row = make([]float32, e.linear.Cols)
		next := int64(0)
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
			data, n := e.widen(&s, p.Data), p.Cols*e.work.Size()
			for row := range p.Rows {
				tensor.ToFloat32(s.row, data[row*n:][:n], e.work)
				if !finite(s.row) {
					return e.refuse(p, data, row)
				}
				each(s.row)
			}
		}
		if next != e.linear.Rows {
			return fmt.Errorf("encode %s: the panels end at row %d of %d", e.linear.Name, next, e.linear.Rows)
		}
		return nil
	}
	err := pass(func(x []float32) {
		l, h := extent(x)
		low, high = min(low, l), max(high, h)
	})
	if err != nil {
		return err
	}
	e.point = e.grid.fit(low, high)
	if e.search {
		err := pass(func(x []float32) {
			for i := range losses {
				losses[i] += e.grid.loss(x, e.grid.fit(shrink(low, i), shrink(high, i)), math.Inf(1))
			}
		})
		if err != nil {
			return err
		}
		best := 0
		for i, v := range losses {
			if v < losses[best] {
				best = i
			}
		}
		e.point = e.grid.fit(shrink(low, best), shrink(high, best))
	}
	e.scale = make([]byte, e.work.Size())
	e.grid.store(e.scale, e.point)
	e.zero = []byte{e.grid.storeZero(e.point)}
	return nil
}

// widen gives a panel's bytes in the working dtype.
func (e *rtnRows) widen(s *rtnScratch, data []byte) []byte {
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

// refuse names the first weight of a row that is not finite. data holds the panel in the working dtype.
func (e *rtnRows) refuse(p compress.Panel, data []byte, row int) error {
	x := make([]float32, p.Cols)
	tensor.ToFloat32(x, data[row*p.Cols*e.work.Size():], e.work)
	for col, v := range x {
		if finite(x[col : col+1]) {
			continue
		}
		what := fmt.Sprintf("is %v", v)
		if e.source == tensor.F64 {
			w := math.Float64frombits(binary.LittleEndian.Uint64(p.Data[(row*p.Cols+col)*8:]))
			if !math.IsNaN(w) && !math.IsInf(w, 0) {
				what = fmt.Sprintf("is %g, beyond float32", w)
			}
		}
		return compress.Invalidf("encode %s: weight at row %d, column %d %s: repair the checkpoint, or put the linear on the recipe's ignore list",
			e.linear.Name, p.Row+int64(row), col, what)
	}
	return fmt.Errorf("encode %s: kernel %s refused row %d, whose weights are finite", e.linear.Name, e.kernels.Name(), p.Row+int64(row))
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
