// Package methodtest holds what every compression method must keep, as one test that a method's own tests run:
//
//	methodtest.Run(t, methodtest.Case{Method: m, Oracle: oracle})
//
// It checks that panels, row splits, kernels, goroutines and dirty buffers do not change a byte, that layouts tell
// the truth, that error sums are those of the decoded weights, and that weights which are no numbers, failing
// reads and cancelled contexts end in the right error.
package methodtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

// Case is one method with one set of parameters.
type Case struct {
	Method compress.Method
	// Oracle gives the components that m should make of the weights, written down as simply as possible and
	// sharing no code with the method. nil leaves the values to other tests.
	Oracle func(l compress.Linear, w []float64) [][]byte // w: rows × cols, row-major, exact
	// Restores names inputs that have to decode to exactly the weights that went in, beside "zeros".
	Restores []string
}

// Run runs every check as a subtest.
func Run(t *testing.T, c Case) {
	t.Helper()
	inputs := Inputs()
	served := 0
	for _, in := range inputs {
		if _, err := c.Method.Layout(in.Linear); err != nil {
			if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), in.Linear.Name) {
				t.Errorf("%s: refused by %v, which does not name it or is not ErrInvalid", in.Name, err)
			}
			continue
		}
		served++
		t.Run(in.Name, func(t *testing.T) {
			t.Parallel()
			checkInput(t, c, in)
		})
	}
	if served == 0 {
		t.Error("the method refuses every input")
	}
	t.Run("weights that are no numbers", func(t *testing.T) { t.Parallel(); checkNotFinite(t, c.Method) })
	t.Run("errors", func(t *testing.T) { t.Parallel(); checkErrors(t, c.Method) })
}

// result is an encoded linear, put together from its panels.
type result struct {
	data         [][]byte
	error, power []float64
}

// collect is an emit function that puts panels together.
func (r *result) collect(layout compress.Layout, e *compress.Encoded) error {
	if r.data == nil {
		r.data = make([][]byte, len(layout.Components))
	}
	if e.Row%max(layout.RowUnit, 1) != 0 {
		return fmt.Errorf("row %d: panels start at multiples of %d", e.Row, layout.RowUnit)
	}
	if len(e.Data) != len(layout.Components) || len(e.Error) != e.Rows || len(e.Power) != e.Rows {
		return fmt.Errorf("rows %d+%d: %d components, %d and %d sums", e.Row, e.Rows, len(e.Data), len(e.Error), len(e.Power))
	}
	for i, c := range layout.Components {
		if c.Whole {
			if r.data[i] != nil && !bytes.Equal(r.data[i], e.Data[i]) {
				return fmt.Errorf("rows %d+%d: %s differ from those of earlier rows", e.Row, e.Rows, c.Name)
			}
			r.data[i] = slices.Clone(e.Data[i])
			continue
		}
		if want := c.PanelBytes(int64(e.Rows)); !c.Ragged && int64(len(e.Data[i])) != want {
			return fmt.Errorf("rows %d+%d: %s hold %d bytes, the layout says %d", e.Row, e.Rows, c.Name, len(e.Data[i]), want)
		}
		r.data[i] = append(r.data[i], e.Data[i]...)
	}
	r.error = append(r.error, e.Error...)
	r.power = append(r.power, e.Power...)
	return nil
}

func (r *result) equal(o *result) error {
	for i := range r.data {
		if !bytes.Equal(r.data[i], o.data[i]) {
			at := 0
			for at < min(len(r.data[i]), len(o.data[i])) && r.data[i][at] == o.data[i][at] {
				at++
			}
			return fmt.Errorf("component %d differs from byte %d of %d and %d", i, at, len(r.data[i]), len(o.data[i]))
		}
	}
	same := func(a, b []float64) bool {
		return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
	}
	if !same(r.error, o.error) || !same(r.power, o.power) {
		return fmt.Errorf("sums %v %v and %v %v", r.error, r.power, o.error, o.power)
	}
	return nil
}

func (in Input) weights(t *testing.T) compress.Weights {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// encode runs the method in panels of rows rows.
func encode(t *testing.T, m compress.Method, in Input, o compress.Options) *result {
	t.Helper()
	layout := layoutOf(t, m, in)
	r := &result{}
	err := compress.Encode(t.Context(), m, in.weights(t), o, func(e *compress.Encoded) error { return r.collect(layout, e) })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func layoutOf(t *testing.T, m compress.Method, in Input) compress.Layout {
	t.Helper()
	layout, err := m.Layout(in.Linear)
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

func checkInput(t *testing.T, c Case, in Input) {
	before := slices.Clone(in.Data)
	rows := int(in.Linear.Rows)
	whole := encode(t, c.Method, in, compress.Options{PanelRows: rows})
	checkLayout(t, c.Method, in, whole)
	checkDecode(t, c, in, whole)
	if c.Oracle != nil {
		for i, want := range c.Oracle(in.Linear, in.Weights) {
			if i >= len(whole.data) || !bytes.Equal(whole.data[i], want) {
				t.Errorf("component %d: %x, the oracle says %x", i, clip(whole.data[i]), clip(want))
			}
		}
	}
	unit := int(layoutOf(t, c.Method, in).RowUnit)
	for _, panel := range []int{unit, 2 * unit, 3 * unit, 0} {
		if err := whole.equal(encode(t, c.Method, in, compress.Options{PanelRows: panel})); err != nil {
			t.Errorf("panels of %d rows: %v", panel, err)
		}
	}
	for _, k := range []compress.Kernel{compress.KernelScalar, compress.KernelAVX2, compress.KernelAVX512} {
		o := compress.Options{PanelRows: rows, Kernel: k}
		if _, err := c.Method.Prepare(t.Context(), []compress.Weights{in.weights(t)}, o); errors.Is(err, compress.ErrInvalid) && k != compress.KernelScalar {
			continue // not this machine's
		}
		if err := whole.equal(encode(t, c.Method, in, o)); err != nil {
			t.Errorf("kernel %s: %v", k, err)
		}
	}
	checkSplits(t, c.Method, in, whole)
	if !bytes.Equal(in.Data, before) {
		t.Error("encoding changed the weights")
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }

func checkLayout(t *testing.T, m compress.Method, in Input, r *result) {
	t.Helper()
	layout := layoutOf(t, m, in)
	if err := layout.Scheme.Validate(in.Linear.Rows, in.Linear.Cols); err != nil {
		t.Error(err)
	}
	if layout.RowUnit < 1 || layout.Scratch < 0 {
		t.Errorf("row unit %d, scratch %d", layout.RowUnit, layout.Scratch)
	}
	var total int64
	for i, c := range layout.Components {
		per := max(c.RowsPer, 1)
		if layout.RowUnit%per != 0 {
			t.Errorf("component %s: %d rows share an entry, and panels start at multiples of %d", c.Name, per, layout.RowUnit)
		}
		if !c.Whole && !c.Ragged && (len(c.Shape) == 0 || c.Shape[0] != (in.Linear.Rows+per-1)/per) {
			t.Errorf("component %s has the shape %v with %d rows", c.Name, c.Shape, in.Linear.Rows)
		}
		if int64(len(r.data[i])) != c.Bytes() {
			t.Errorf("component %s has %d bytes, the layout says %d", c.Name, len(r.data[i]), c.Bytes())
		}
		total += c.Bytes()
	}
	if total != layout.Bytes() {
		t.Errorf("layout of %d bytes has components of %d", layout.Bytes(), total)
	}
}

// checkDecode decodes what was encoded and compares with the sums that the method gave.
func checkDecode(t *testing.T, c Case, in Input, r *result) {
	t.Helper()
	rows, cols := int(in.Linear.Rows), int(in.Linear.Cols)
	layout := layoutOf(t, c.Method, in)
	got := make([]float32, rows*cols)
	if err := layout.Scheme.Decode(got, cols, &compress.Encoded{Rows: rows, Data: r.data}); err != nil {
		t.Fatal(err)
	}
	restores := in.Name == "zeros" || slices.Contains(c.Restores, in.Name)
	for row := range rows {
		var e2, p2 float64
		for col := range cols {
			w, v := in.Weights[row*cols+col], float64(got[row*cols+col])
			if math.IsNaN(v) || math.IsInf(v, 0) && math.Abs(w) < 1e38 {
				t.Fatalf("row %d, column %d: %v decodes to %v", row, col, w, v)
			}
			if restores && v != w {
				t.Fatalf("row %d, column %d: %v decodes to %v", row, col, w, v)
			}
			e2 += (w - v) * (w - v)
			p2 += w * w
		}
		// The sums may be float32 within a group, which loses what is too small and overflows beyond 1e38; and a
		// method may take the error of scale · code before that product is rounded to the float32 that Decode gives,
		// 2^-24 of the weight away.
		near := func(got, want float64) bool {
			return math.Abs(got-want) <= 1e-3*want+2e-11*p2+float64(cols)*1e-44 || math.IsInf(got, 1) && want > 1e37
		}
		if !near(r.error[row], e2) || !near(r.power[row], p2) {
			t.Errorf("row %d: error %g of power %g, the decoded weights have %g of %g", row, r.error[row], r.power[row], e2, p2)
		}
	}
}

// checkSplits encodes parts of the rows on their own, as tasks would, and all rows by goroutines that share an encoder.
func checkSplits(t *testing.T, m compress.Method, in Input, whole *result) {
	t.Helper()
	layout := layoutOf(t, m, in)
	rows := int(in.Linear.Rows)
	w := in.weights(t)
	if !layout.AllRows {
		w = unreadable{w} // Prepare has no business with the rows then
	}
	for _, cut := range []int{1, rows / 2, rows - 1} {
		if cut < 1 || cut >= rows || int64(cut)%layout.RowUnit != 0 {
			continue
		}
		r := &result{}
		for _, part := range [][2]int{{0, cut}, {cut, rows}} {
			enc := prepare(t, m, w)
			e := dirty(layout, in, part[1]-part[0])
			if err := enc.Rows(e, in.panel(part[0], part[1])); err != nil {
				t.Fatal(err)
			}
			if err := r.collect(layout, e); err != nil {
				t.Fatal(err)
			}
		}
		if err := whole.equal(r); err != nil {
			t.Errorf("split at row %d: %v", cut, err)
		}
	}

	enc := prepare(t, m, w)
	parts := make([]*compress.Encoded, rows)
	errs := make([]error, rows)
	var group sync.WaitGroup
	for row := range rows {
		if int64(row)%layout.RowUnit != 0 {
			continue
		}
		group.Go(func() {
			parts[row] = &compress.Encoded{}
			errs[row] = enc.Rows(parts[row], in.panel(row, min(row+int(layout.RowUnit), rows)))
		})
	}
	group.Wait()
	r := &result{}
	for row, e := range parts {
		if e == nil {
			continue
		}
		if errs[row] != nil {
			t.Fatal(errs[row])
		}
		if err := r.collect(layout, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := whole.equal(r); err != nil {
		t.Errorf("rows by goroutines: %v", err)
	}
}

func prepare(t *testing.T, m compress.Method, w compress.Weights) compress.RowEncoder {
	t.Helper()
	enc, err := m.Prepare(t.Context(), []compress.Weights{w}, compress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(enc) != 1 {
		t.Fatalf("%d encoders for one linear", len(enc))
	}
	return enc[0]
}

// dirty gives buffers full of what an earlier panel could have left.
func dirty(layout compress.Layout, in Input, rows int) *compress.Encoded {
	e := &compress.Encoded{}
	e.Resize(layout, compress.Panel{Rows: rows + 1, Cols: int(in.Linear.Cols)})
	for _, d := range e.Data {
		for i := range d {
			d[i] = 0xa5
		}
	}
	for i := range e.Error {
		e.Error[i], e.Power[i] = math.NaN(), math.NaN()
	}
	return e
}

// unreadable fails whoever reads it.
type unreadable struct{ compress.Weights }

var errRead = errors.New("this read fails")

func (u unreadable) Panels(context.Context, int) iter.Seq2[compress.Panel, error] {
	return func(yield func(compress.Panel, error) bool) { yield(compress.Panel{}, errRead) }
}

func checkNotFinite(t *testing.T, m compress.Method) {
	for _, dtype := range []string{"F64", "F32", "F16", "BF16"} {
		in := first(m, dtype)
		if in == nil {
			continue
		}
		rows, cols := int(in.Linear.Rows), int(in.Linear.Cols)
		for i, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			for _, at := range [][2]int{{0, 0}, {rows / 2, cols / 2}, {rows - 1, cols - 1}} {
				bad := in.with(at[0], at[1], v)
				for _, panel := range []int{1, rows} {
					err := compress.Encode(t.Context(), m, bad.weights(t), compress.Options{PanelRows: panel}, func(*compress.Encoded) error { return nil })
					place := fmt.Sprintf("row %d, column %d ", at[0], at[1])
					if err == nil || !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), in.Linear.Name) {
						t.Errorf("%s: weight %d at %v: error %v", dtype, i, at, err)
					}
				}
			}
		}
	}
}

func checkErrors(t *testing.T, m compress.Method) {
	in := first(m, "BF16")
	if in == nil {
		t.Skip("the method takes no BF16")
	}
	nothing := func(*compress.Encoded) error { return nil }

	if err := compress.Encode(t.Context(), m, unreadable{in.weights(t)}, compress.Options{}, nothing); !errors.Is(err, errRead) || errors.Is(err, compress.ErrInvalid) {
		t.Errorf("failing read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	panels := 0
	err := compress.Encode(ctx, m, in.weights(t), compress.Options{PanelRows: 1}, func(*compress.Encoded) error {
		if panels++; panels == 1 {
			cancel()
		}
		return nil
	})
	unit := layoutOf(t, m, *in).RowUnit
	if unit < in.Linear.Rows && (!errors.Is(err, context.Canceled) || panels != 1) { // else there is no second panel
		t.Errorf("cancelled after the first panel: %v after %d panels", err, panels)
	}
	cancel()
	if err := compress.Encode(ctx, m, in.weights(t), compress.Options{}, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	if _, err := m.Prepare(t.Context(), []compress.Weights{in.weights(t)}, compress.Options{Kernel: "abacus"}); err == nil {
		t.Error("an unknown kernel is taken")
	}

	for name, l := range map[string]compress.Linear{
		"no rows":       {Name: "x", Cols: in.Linear.Cols, DType: "BF16"},
		"no columns":    {Name: "x", Rows: 4, DType: "BF16"},
		"negative":      {Name: "x", Rows: -4, Cols: in.Linear.Cols, DType: "BF16"},
		"too many":      {Name: "x", Rows: math.MaxInt64, Cols: in.Linear.Cols, DType: "BF16"},
		"too wide":      {Name: "x", Rows: 1, Cols: math.MaxInt64 &^ 127, DType: "BF16"},
		"unknown dtype": {Name: "x", Rows: 4, Cols: in.Linear.Cols, DType: "BF17"},
		"integers":      {Name: "x", Rows: 4, Cols: in.Linear.Cols, DType: "I32"},
	} {
		if _, err := m.Layout(l); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "x") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	enc := prepare(t, m, in.weights(t))
	good := in.panel(0, int(min(unit, in.Linear.Rows)))
	if err := enc.Rows(&compress.Encoded{}, good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(p *compress.Panel){
		"short data":  func(p *compress.Panel) { p.Data = p.Data[1:] },
		"other dtype": func(p *compress.Panel) { p.DType = "F16" },
		"other width": func(p *compress.Panel) { p.Cols-- },
		"beyond":      func(p *compress.Panel) { p.Row = in.Linear.Rows },
		"before":      func(p *compress.Panel) { p.Row = -1 },
		"no rows":     func(p *compress.Panel) { p.Rows = -1 },
	} {
		p := good
		change(&p)
		if err := enc.Rows(&compress.Encoded{}, p); err == nil {
			t.Errorf("panel with %s is taken", name)
		}
	}
}
