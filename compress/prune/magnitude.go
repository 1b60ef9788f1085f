package prune

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// Magnitude sets the smallest weights to zero (Han et al., arXiv 1506.02626; Zhu and Gupta, arXiv 1710.01878).
//
// It minimises Σ(w − ŵ)² for a given number of weights that stay: over the matrix, over each row, or over each run of M
// columns, of which N stay. The baseline of SparseGPT (Frantar and Alistarh, arXiv 2301.00774) and Wanda (Sun et al., arXiv
// 2306.11695) is the one over the matrix.
//
// Exactly floor(sparsity · n) of n weights are pruned, and exactly M − N of M: of equal magnitudes those of earlier rows and
// columns go first. The authors' code compares with a threshold and prunes all of them.
//
// Cost: one pass over the weights, bound by memory for N:M. Over the matrix there is one more to count magnitudes (two unless BF16), and up
// to one for the place where ties run out. Memory beyond the panel: half a MiB of counts.
//
// The container holds it as a mask and values; dense, which every engine loads, as zeros among the weights. Engines that use N:M kernels
// pack dense weights themselves. What it leaves can be encoded further, see then.go.
type Magnitude struct{ params MagnitudeParams }

// MagnitudeName is the method's name in recipes.
const MagnitudeName = "magnitude"

// magnitudeVersion changes whenever the bytes of any output do.
const magnitudeVersion = 1

// Patterns of MagnitudeParams.
const (
	patternUnstructured = "unstructured"
	patternNM           = compress.PatternNM
)

// MagnitudeParams are the parameters of Magnitude.
type MagnitudeParams struct {
	Pattern  string  `json:"pattern"`
	Sparsity float64 `json:"sparsity,omitempty"` // with pattern unstructured only
	Scope    string  `json:"scope,omitempty"`    // likewise
	N        int64   `json:"n,omitempty"`        // with pattern n:m only
	M        int64   `json:"m,omitempty"`        // likewise
}

// MagnitudeParameters describes MagnitudeParams.
func MagnitudeParameters() []compress.Parameter {
	return []compress.Parameter{
		{
			Name: "pattern", Kind: compress.ParameterString, Default: patternUnstructured, Choices: []string{patternUnstructured, patternNM},
			Doc: "which weights may go: any, or all but n of every m columns of a row",
		},
		{
			Name: "sparsity", Kind: compress.ParameterFloat, Default: 0.5, Min: 0, Max: 1,
			When: "pattern", Is: patternUnstructured, Doc: "share of the weights that is pruned: exactly floor(sparsity · weights)",
		},
		{
			Name: "scope", Kind: compress.ParameterString, Default: compress.PatternTensor, Choices: []string{compress.PatternTensor, compress.PatternRow},
			When: "pattern", Is: patternUnstructured, Doc: "what has that share: the tensor as a whole, or each row (output)",
		},
		{Name: "n", Kind: compress.ParameterInt, Default: int64(2), Min: 1, Max: compress.MaxM, When: "pattern", Is: patternNM, Doc: "columns that are kept of every m"},
		{Name: "m", Kind: compress.ParameterInt, Default: int64(4), Min: 1, Max: compress.MaxM, When: "pattern", Is: patternNM, Doc: "columns of which n are kept; has to divide the columns of every target"},
	}
}

// Validate refuses parameters that no linear can be pruned with.
func (p MagnitudeParams) Validate() error {
	switch p.Pattern {
	case patternUnstructured:
		switch {
		case !(p.Sparsity >= 0 && p.Sparsity <= 1):
			return compress.Invalidf("sparsity is %v, and takes a number from 0 to 1", p.Sparsity)
		case p.Scope != compress.PatternTensor && p.Scope != compress.PatternRow:
			return compress.Invalidf("scope is %q, and takes tensor or row", p.Scope)
		case p.N != 0 || p.M != 0:
			return compress.Invalidf("n is %d and m is %d, and they have a meaning only with pattern=%s", p.N, p.M, patternNM)
		}
	case patternNM:
		switch {
		case p.M < 1 || p.M > compress.MaxM:
			return compress.Invalidf("m is %d, and takes a whole number from 1 to %d", p.M, compress.MaxM)
		case p.N < 1 || p.N > p.M:
			return compress.Invalidf("n is %d, and takes a whole number from 1 to m, which is %d: n of every m columns are kept", p.N, p.M)
		case p.Sparsity != 0 || p.Scope != "":
			return compress.Invalidf("sparsity is %v and scope %q, and they have a meaning only with pattern=%s", p.Sparsity, p.Scope, patternUnstructured)
		}
	default:
		return compress.Invalidf("pattern is %q, and takes %s or %s", p.Pattern, patternUnstructured, patternNM)
	}
	return nil
}

// NewMagnitude makes the method.
func NewMagnitude(p MagnitudeParams) (*Magnitude, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &Magnitude{params: p}, nil
}

// Name implements compress.Method.
func (m *Magnitude) Name() string { return MagnitudeName }

// Version implements compress.Method.
func (m *Magnitude) Version() int { return magnitudeVersion }

// Then implements compress.Chainer.
func (m *Magnitude) Then(next compress.Method) (compress.Method, error) { return then(m, next) }

// scheme is what becomes of weights of a dtype.
func (m *Magnitude) scheme(work string) compress.Sparse {
	s := compress.Sparse{DType: work, Pattern: m.params.Scope, Sparsity: m.params.Sparsity, N: m.params.N, M: m.params.M}
	if m.params.Pattern == patternNM {
		s.Pattern = compress.PatternNM
	}
	return s
}

// Layout implements compress.Method.
func (m *Magnitude) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	work, err := l.WorkDType()
	if err != nil {
		return compress.Layout{}, err
	}
	s := m.scheme(work)
	if s.Pattern == compress.PatternNM && l.Cols%s.M != 0 {
		return compress.Layout{}, compress.Invalidf("encode %s: its %d columns do not divide into runs of m=%d: %s", l.Name, l.Cols, s.M, runsThatFit(l.Cols))
	}
	layout := compress.Layout{
		Scheme: s, Components: s.Components(l.Rows, l.Cols), RowUnit: 1,
		AllRows: s.Pattern == compress.PatternTensor && between(compress.PrunedCount(s.Sparsity, l.Rows*l.Cols), l.Rows*l.Cols),
	}
	switch {
	case s.Pattern != compress.PatternNM:
		layout.Scratch = l.Cols * (4 + 4 + 4 + 4) // a row of float32, of its magnitudes, of its bytes and of those that stay
	case work != l.DType:
		layout.Scratch = l.Cols*4 + panelElements(l, 1)*(4+4)
	default:
		layout.Scratch = l.Cols * 4 // what stays of a row, for vector code that writes beyond it
	}
	if layout.AllRows {
		layout.Scratch += (1<<highBits+1<<lowBits)*8 + 3*panelElements(l, 1)*4 // counts, and of each pass a panel of float32
	}
	return layout, nil
}

// between reports whether some but not all of n weights are meant: only then does it matter which.
func between(count, n int64) bool { return count > 0 && count < n }

// runsThatFit ends the sentence about an m that does not divide.
func runsThatFit(cols int64) string {
	var fit []string
	for m := int64(2); m <= 32 && cols%m == 0; m *= 2 {
		fit = append(fit, fmt.Sprint(m))
	}
	if len(fit) == 0 {
		return "no power of two divides them; use pattern=unstructured with scope=row"
	}
	return "use m=" + strings.Join(fit, " or ") + ", or pattern=unstructured with scope=row"
}

// Prepare implements compress.Method.
func (m *Magnitude) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", MagnitudeName, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		l := w.Linear()
		layout, err := m.Layout(l)
		if err != nil {
			return nil, err
		}
		s := m.scheme(layout.Components[1].DType)
		work, err := tensor.ParseDType(s.DType)
		if err != nil {
			return nil, compress.Invalidf("encode %s: %w", l.Name, err)
		}
		e := &magnitudeRows{linear: l, layout: layout, scheme: s, kernels: k, work: work}
		switch s.Pattern {
		case compress.PatternRow:
			e.drop = compress.PrunedCount(s.Sparsity, l.Cols)
		case compress.PatternTensor:
			e.drop = compress.PrunedCount(s.Sparsity, l.Rows*l.Cols)
			if e.drop == l.Rows*l.Cols {
				e.cut = cut{key: 1 << 31} // above every key
			}
			if layout.AllRows {
				if err := e.find(ctx, w, o); err != nil {
					return nil, err
				}
			}
		}
		out[i] = e
	}
	return out, nil
}

// magnitudeRows prunes the rows of one linear. It is not written to after Prepare.
type magnitudeRows struct {
	linear  compress.Linear
	layout  compress.Layout
	scheme  compress.Sparse
	kernels *tensor.Kernels
	work    tensor.DType
	drop    int64 // weights to prune, of a row or of the tensor
	cut     cut   // of the tensor
	tieEnd  int64 // the ties before this element, in row-major order, are pruned
	pool    sync.Pool
}

// magnitudeScratch is what one call of Rows needs beyond its output.
type magnitudeScratch struct {
	x    []float32 // rows × cols, row-major
	keys []uint32  // of a row
	work []byte    // the panel, or a row, in the working dtype
	kept []byte    // of a row
}

// find finds the magnitude that divides a tensor.
func (e *magnitudeRows) find(ctx context.Context, w compress.Weights, o compress.Options) error {
	var c counter
	pass := func(add func(row int64, x []float32) error) error {
		return compress.EachPanel(ctx, w, o, func(p compress.Panel, x []float32) error { return add(p.Row, x) })
	}
	if err := pass(func(_ int64, x []float32) error { c.countHigh(x); return nil }); err != nil {
		return err
	}
	high, below := c.high(e.drop)
	e.cut = cut{key: high << lowBits, ties: e.drop - below}
	equal := c.highs[high]
	if e.work != tensor.BF16 { // whose low half is 0
		if err := pass(func(_ int64, x []float32) error { c.countLow(x, high); return nil }); err != nil {
			return err
		}
		e.cut, equal = c.low(high, e.drop-below)
	}
	e.tieEnd = e.linear.Rows * e.linear.Cols
	if e.cut.ties == equal {
		return nil
	}
	left := e.cut.ties
	err := pass(func(row int64, x []float32) error {
		for i, v := range x {
			if key(v) != e.cut.key {
				continue
			}
			if left == 0 {
				e.tieEnd = row*e.linear.Cols + int64(i)
				return errFound
			}
			left--
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("encode %s: its weights changed while they were read", e.linear.Name)
	}
	return err
}

// errFound ends a pass.
var errFound = errors.New("found")

// Rows implements compress.RowEncoder.
func (e *magnitudeRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*magnitudeScratch)
	if !ok {
		s = &magnitudeScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	if e.scheme.Pattern == compress.PatternNM {
		return e.runs(dst, p, s)
	}
	s.x, s.keys = grow(s.x, p.Cols), grow(s.keys, p.Cols)
	size := e.work.Size()
	s.work, s.kept = grow(s.work, p.Cols*size), grow(s.kept, p.Cols*size)
	if e.layout.Components[1].Ragged {
		// Room for all of them at once: what a panel keeps varies.
		dst.Data[1] = grow(dst.Data[1], p.Rows*p.Cols*size)
	}
	per, n := (p.Cols+7)/8, 0
	from := len(p.Data) / max(p.Rows*p.Cols, 1)
	for row := range p.Rows {
		one := p
		one.Row, one.Rows, one.Data = p.Row+int64(row), 1, p.Data[row*p.Cols*from:][:p.Cols*from]
		if err := one.Floats(e.linear, s.x); err != nil {
			return err
		}
		data := one.Data
		if p.DType != e.work.String() {
			tensor.FromFloat32(s.work, s.x, e.work)
			data = s.work
		}
		dst.Power[row] = tensor.SumSquares(s.x)
		cut, ties := e.cut, int64(0)
		if e.scheme.Pattern == compress.PatternRow {
			cut = cutRow(s.keys, s.x, e.drop)
			ties = cut.ties
		} else if at := (p.Row + int64(row)) * e.linear.Cols; at < e.tieEnd {
			ties = math.MaxInt64 // counted by their place
			if e.tieEnd-at < e.linear.Cols {
				ties = e.tiesBefore(s.x[:e.tieEnd-at])
			}
		}
		kept := keep(dst.Data[0][row*per:][:per], s.kept, data, s.x, cut.key, ties, size)
		n += copy(dst.Data[1][n:], s.kept[:kept])
		dst.Error[row] = tensor.SumSquares(s.x)
	}
	dst.Data[1] = dst.Data[1][:n]
	return nil
}

// tiesBefore counts the weights that are as large as the tensor's cut.
func (e *magnitudeRows) tiesBefore(x []float32) int64 {
	n := int64(0)
	for _, v := range x {
		if key(v) == e.cut.key {
			n++
		}
	}
	return n
}

// keep writes the mask and the values of a row, and gives the bytes of the values, which has room for the whole row. Weights below the
// cut are pruned, and so many of those that are equal to it. It leaves in x what was pruned. Which weights go is anybody's guess, so that
// no branch depends on it.
func keep(mask, values, data []byte, x []float32, at uint32, ties int64, size int) int {
	clear(mask)
	n := 0
	for c, v := range x {
		bits := math.Float32bits(v)
		k := key(v)
		gone := (k - at) >> 31 // both are at most 2^31
		if k == at && ties > 0 {
			ties--
			gone = 1
		}
		mask[c/8] |= byte(1-gone) << (c % 8)
		if size == 2 {
			binary.LittleEndian.PutUint16(values[n:], binary.LittleEndian.Uint16(data[2*c:]))
		} else {
			binary.LittleEndian.PutUint32(values[n:], binary.LittleEndian.Uint32(data[4*c:]))
		}
		n += size * int(1-gone)
		x[c] = math.Float32frombits(bits & -gone)
	}
	return n
}

// runs prunes a panel by runs of M columns.
func (e *magnitudeRows) runs(dst *compress.Encoded, p compress.Panel, s *magnitudeScratch) error {
	data := p.Data
	if p.DType != e.work.String() {
		s.x = grow(s.x, p.Rows*p.Cols)
		if err := p.Floats(e.linear, s.x); err != nil {
			return err
		}
		s.work = grow(s.work, len(s.x)*e.work.Size())
		tensor.FromFloat32(s.work, s.x, e.work)
		data = s.work
	}
	r := tensor.KeepResult{Mask: dst.Data[0], Kept: dst.Data[1], Error: dst.Error, Power: dst.Power}
	bad := e.kernels.KeepLargest(&r, data, e.work, p.Rows, p.Cols, int(e.scheme.N), int(e.scheme.M))
	if bad < 0 {
		return nil
	}
	s.x = grow(s.x, p.Rows*p.Cols)
	if err := p.Floats(e.linear, s.x); err != nil {
		return err
	}
	return fmt.Errorf("encode %s: kernel %s refused row %d, whose weights are finite", e.linear.Name, e.kernels.Name(), p.Row+int64(bad))
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
