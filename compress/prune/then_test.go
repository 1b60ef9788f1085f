package prune_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/prune"
)

// grid is a method for tests: it rounds to multiples of a step, which is the largest weight of all that share it divided by 7, shifted
// by some of it. It stands for those that this package must not know.
type grid struct {
	shift float32
	share compress.Sharing // fused: the step is that of the whole group
	unit  int64
	late  bool // shifts only what no trial has
}

// gridScheme stores what it decodes.
type gridScheme struct{}

func (gridScheme) Kind() string                { return "grid" }
func (gridScheme) CodeBits() int               { return 4 }
func (gridScheme) Validate(int64, int64) error { return nil }
func (gridScheme) Components(rows, cols int64) []compress.Component {
	return []compress.Component{{Name: "codes", DType: "F32", Shape: []int64{rows, cols}}}
}

func (gridScheme) Decode(dst []float32, cols int, e *compress.Encoded) error {
	for i := range dst[:e.Rows*cols] {
		b := e.Data[0][4*i:]
		dst[i] = math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
	}
	return nil
}

func (g grid) Name() string { return "grid" }
func (g grid) Version() int { return 7 }
func (g grid) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	if _, err := l.WorkDType(); err != nil {
		return compress.Layout{}, err
	}
	return compress.Layout{Scheme: gridScheme{}, Components: gridScheme{}.Components(l.Rows, l.Cols), RowUnit: max(g.unit, 1), AllRows: true, Share: g.share}, nil
}

func (g grid) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	var top float32
	for _, w := range group {
		err := compress.EachPanel(ctx, w, o, func(_ compress.Panel, x []float32) error {
			for _, v := range x {
				top = max(top, v, -v)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var out []compress.RowEncoder
	for _, w := range group {
		out = append(out, gridRows{g, w.Linear(), max(top/7, 0x1p-140)})
	}
	return out, nil
}

type gridRows struct {
	grid
	linear compress.Linear
	step   float32
}

func (g gridRows) Rows(dst *compress.Encoded, p compress.Panel) error {
	layout, err := g.Layout(g.linear)
	if err != nil {
		return err
	}
	x := make([]float32, p.Rows*p.Cols)
	if err := p.Floats(g.linear, x); err != nil {
		return err
	}
	dst.Resize(layout, p)
	for i, v := range x {
		if i%p.Cols == 0 {
			dst.Error[i/p.Cols], dst.Power[i/p.Cols] = 0, 0
		}
		q := float32(math.Round(float64(v/g.step)))*g.step + g.shift*g.step
		if g.late && p.Cols > 300 {
			q += g.step
		}
		if math.IsInf(float64(q), 0) {
			q = v
		}
		u := math.Float32bits(q)
		copy(dst.Data[0][4*i:], []byte{byte(u), byte(u >> 8), byte(u >> 16), byte(u >> 24)})
		d := float64(v) - float64(q)
		dst.Error[i/p.Cols] += d * d
		dst.Power[i/p.Cols] += float64(v) * float64(v)
	}
	return nil
}

// TestThen prunes, and has what is left encoded.
func TestThen(t *testing.T) {
	t.Parallel()
	for _, p := range []prune.MagnitudeParams{unstructured("tensor", 0.5), unstructured("row", 0.3), nm(2, 4)} {
		for _, unit := range []int64{1, 2} {
			t.Run(fmt.Sprintf("%+v %d", p, unit), func(t *testing.T) {
				t.Parallel()
				m, err := newMagnitude(t, p).Then(grid{unit: unit})
				if err != nil {
					t.Fatal(err)
				}
				if s := fmt.Sprintf("%s@%d", m.Name(), m.Version()); s != "magnitude@1+grid@7" {
					t.Errorf("the method is called %s", s)
				}
				methodtest.Run(t, methodtest.Case{Method: m})
			})
		}
	}
}

// TestThenSeesZeros checks that the second method's view of the weights is the pruned one, alone and in a group, and that the error
// is against the weights that came in.
func TestThenSeesZeros(t *testing.T) {
	t.Parallel()
	small := methodtest.NewInput("small", "BF16", 4, []float64{1, 2, 3, 4})
	large := methodtest.NewInput("large", "F64", 4, []float64{100, 50, -70, 60})
	m, err := newMagnitude(t, nm(2, 4)).Then(grid{share: compress.ShareFused})
	if err != nil {
		t.Fatal(err)
	}
	layout, err := m.Layout(small.Linear)
	if err != nil || layout.Share != compress.ShareFused || !layout.AllRows || layout.Scheme.Kind() != "grid" {
		t.Fatalf("layout %+v, %v", layout, err)
	}
	var group []compress.Weights
	for _, in := range []methodtest.Input{small, large} {
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			t.Fatal(err)
		}
		group = append(group, w)
	}
	enc, err := m.Prepare(t.Context(), group, compress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	step := float32(100) / 7 // 3 and 4 round to 0 on this grid
	for i, want := range []struct {
		w            []float32
		error, power float64
	}{
		{[]float32{0, 0, 0, 0}, 1 + 4 + 9 + 16, 30},
		{[]float32{7 * step, 0, -5 * step, 0}, 50*50 + 60*60, 100*100 + 50*50 + 70*70 + 60*60},
	} {
		var e compress.Encoded
		for p, err := range group[i].Panels(t.Context(), 1) {
			if err != nil {
				t.Fatal(err)
			}
			if err := enc[i].Rows(&e, p); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]float32, 4)
		if err := layout.Scheme.Decode(got, 4, &e); err != nil {
			t.Fatal(err)
		}
		for c, v := range got {
			if v != want.w[c] {
				t.Errorf("linear %d decodes to %v, want %v", i, got, want.w)
				break
			}
		}
		off := float64(70 - 5*step)
		if i == 0 {
			off = 0
		}
		if math.Abs(e.Error[0]-want.error-off*off) > 1e-3 || e.Power[0] != want.power {
			t.Errorf("linear %d: error %v of %v, want %v of %v", i, e.Error, e.Power, want.error, want.power)
		}
	}
}

// TestThenNeedsZero refuses methods that would give pruned weights values again.
func TestThenNeedsZero(t *testing.T) {
	t.Parallel()
	_, err := newMagnitude(t, nm(2, 4)).Then(grid{shift: 0.25})
	if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "magnitude then grid: grid has no exact zero (it decodes a 0 as ") {
		t.Errorf("error %v", err)
	}
	m, err := newMagnitude(t, nm(2, 4)).Then(grid{late: true})
	if err != nil {
		t.Fatal(err)
	}
	in := methodtest.NewInput("x", "BF16", 304, spread(304))
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	err = compress.Encode(t.Context(), m, w, compress.Options{}, func(*compress.Encoded) error { return nil })
	if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "encode model.layers.0.x: the pruned weight at row 0, column ") {
		t.Errorf("error %v", err)
	}
}
