package prune_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/prune"
)

func newMagnitude(t testing.TB, p prune.MagnitudeParams) *prune.Magnitude {
	t.Helper()
	m, err := prune.NewMagnitude(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func unstructured(scope string, sparsity float64) prune.MagnitudeParams {
	return prune.MagnitudeParams{Pattern: "unstructured", Scope: scope, Sparsity: sparsity}
}

func nm(n, m int64) prune.MagnitudeParams { return prune.MagnitudeParams{Pattern: "n:m", N: n, M: m} }

// oracle sorts: of the weights that share a number to prune, the first by magnitude, then by place, go.
func oracle(p prune.MagnitudeParams) func(l compress.Linear, w []float64) [][]byte {
	return func(l compress.Linear, w []float64) [][]byte {
		share, drop := int(l.Cols), func(n int) int { return int(math.Floor(p.Sparsity * float64(n))) }
		switch {
		case p.Pattern == "n:m":
			share, drop = int(p.M), func(int) int { return int(p.M - p.N) }
		case p.Scope == "tensor":
			share = len(w)
		}
		gone := make([]bool, len(w))
		for from := 0; from < len(w); from += share {
			order := make([]int, share)
			for i := range order {
				order[i] = from + i
			}
			slices.SortStableFunc(order, func(a, b int) int {
				return cmp.Compare(math.Abs(float64(float32(w[a]))), math.Abs(float64(float32(w[b]))))
			})
			for _, i := range order[:drop(share)] {
				gone[i] = true
			}
		}
		cols := int(l.Cols)
		per := (cols + 7) / 8
		mask := make([]byte, int(l.Rows)*per)
		var values []byte
		for i, v := range w {
			if gone[i] {
				continue
			}
			mask[i/cols*per+i%cols/8] |= 1 << (i % cols % 8)
			switch l.DType {
			case "BF16":
				values = binary.LittleEndian.AppendUint16(values, uint16(math.Float32bits(float32(v))>>16))
			case "F16":
				values = binary.LittleEndian.AppendUint16(values, half(v))
			default:
				values = binary.LittleEndian.AppendUint32(values, math.Float32bits(float32(v)))
			}
		}
		return [][]byte{mask, values}
	}
}

// half gives the binary16 of a number that is one.
func half(v float64) uint16 {
	sign := uint16(0)
	if math.Signbit(v) {
		sign = 0x8000
	}
	v = math.Abs(v)
	if v < 0x1p-14 {
		return sign | uint16(v*0x1p24)
	}
	f, e := math.Frexp(v)
	return sign | uint16(e+14)<<10 | uint16(f*2048)&0x3ff
}

func TestMagnitude(t *testing.T) {
	t.Parallel()
	var tests []prune.MagnitudeParams
	for _, sparsity := range []float64{0, 0.1, 0.29, 0.5, 0.999, 1} {
		tests = append(tests, unstructured("tensor", sparsity), unstructured("row", sparsity))
	}
	for _, p := range [][2]int64{{2, 4}, {4, 8}, {1, 4}, {3, 4}, {1, 8}, {7, 8}, {1, 1}, {1, 3}, {1, 2}, {5, 11}, {16, 32}, {3, 64}, {4, 4}} {
		tests = append(tests, nm(p[0], p[1]))
	}
	for _, p := range tests {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			t.Parallel()
			c := methodtest.Case{Method: newMagnitude(t, p), Oracle: oracle(p), Restores: []string{"negative zeros"}}
			if p.Sparsity == 0 && p.N == p.M { // the identity
				for _, in := range methodtest.Inputs() {
					if in.Linear.DType != "F64" { // which is rounded to F32
						c.Restores = append(c.Restores, in.Name)
					}
				}
			}
			methodtest.Run(t, c)
		})
	}
}

// TestMagnitudeTies has so few magnitudes that most are ties, wherever they run out.
func TestMagnitudeTies(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 2))
	for _, dtype := range []string{"BF16", "F16", "F32"} {
		for range 60 {
			cols := 8 * (1 + rng.IntN(6))
			w := make([]float64, cols*(1+rng.IntN(7)))
			few := 1 + rng.IntN(5)
			for i := range w {
				w[i] = float64(rng.IntN(few)-few/2) / 4
			}
			in := methodtest.NewInput("ties", dtype, cols, w)
			for _, p := range []prune.MagnitudeParams{unstructured("tensor", rng.Float64()), unstructured("row", rng.Float64()), nm(1+rng.Int64N(4), 4), nm(1+rng.Int64N(8), 8)} {
				want := oracle(p)(in.Linear, in.Weights)
				for _, rows := range []int{1, 3, 100} {
					got := encode(t, newMagnitude(t, p), in, compress.Options{PanelRows: rows})
					if !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
						t.Fatalf("%s %+v, panels of %d rows: %x, want %x", dtype, p, rows, got, want)
					}
				}
			}
		}
	}
}

// encode puts the components of a matrix together.
func encode(t testing.TB, m compress.Method, in methodtest.Input, o compress.Options) [][]byte {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	err = compress.Encode(t.Context(), m, w, o, func(e *compress.Encoded) error {
		if out == nil {
			out = make([][]byte, len(e.Data))
		}
		for i, d := range e.Data {
			out[i] = append(out[i], d...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMagnitudeFP8 prunes a source of 8-bit floats, which the values hold as BF16.
func TestMagnitudeFP8(t *testing.T) {
	t.Parallel()
	l := compress.Linear{Name: "x", Rows: 4, Cols: 16, DType: "F8_E4M3", Role: compress.RoleLinear}
	data := make([]byte, 64)
	for i := range data {
		data[i] = byte(i*11) & 0x77
	}
	w, err := compress.NewWeights(l, data)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []prune.MagnitudeParams{unstructured("tensor", 0.5), unstructured("row", 0.5), nm(2, 4)} {
		m := newMagnitude(t, p)
		layout, err := m.Layout(l)
		if err != nil {
			t.Fatal(err)
		}
		if c := layout.Components[1]; c.DType != "BF16" || c.Bytes() != 64 {
			t.Errorf("%+v: values %+v", p, c)
		}
		got := make([]float32, 64)
		err = compress.Encode(t.Context(), m, w, compress.Options{PanelRows: 4}, func(e *compress.Encoded) error {
			if e.Error[0] <= 0 || e.Power[0] <= e.Error[0] {
				t.Errorf("%+v: error %v of %v", p, e.Error, e.Power)
			}
			return layout.Scheme.Decode(got, 16, e)
		})
		if err != nil {
			t.Fatal(err)
		}
		zeros := 0
		for _, v := range got {
			if v == 0 {
				zeros++
			}
		}
		if zeros != 32 {
			t.Errorf("%+v: %d zeros", p, zeros)
		}
		data[5] = 0x7f
		err = compress.Encode(t.Context(), m, w, compress.Options{}, func(*compress.Encoded) error { return nil })
		if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "row 0, column 5 is NaN") {
			t.Errorf("%+v: %v", p, err)
		}
		data[5] = 0x31
	}
}

func TestMagnitudeRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		p    prune.MagnitudeParams
		want string
	}{
		"nothing":        {prune.MagnitudeParams{}, `pattern is ""`},
		"more than all":  {unstructured("tensor", 1.5), "sparsity is 1.5"},
		"less than none": {unstructured("tensor", -0.5), "sparsity is -0.5"},
		"no number":      {unstructured("tensor", math.NaN()), "sparsity is NaN"},
		"global":         {unstructured("global", 0.5), `scope is "global"`},
		"N above M":      {nm(5, 4), "n is 5, and takes a whole number from 1 to m, which is 4"},
		"none of M":      {nm(0, 4), "n is 0"},
		"large M":        {nm(2, 65), "m is 65"},
		"both":           {prune.MagnitudeParams{Pattern: "n:m", N: 2, M: 4, Sparsity: 0.5}, "only with pattern=unstructured"},
		"both ways":      {prune.MagnitudeParams{Pattern: "unstructured", Scope: "row", N: 2, M: 4}, "only with pattern=n:m"},
	} {
		if _, err := prune.NewMagnitude(test.p); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for _, test := range []struct {
		cols int64
		want string
	}{
		{172, "encode x: its 172 columns do not divide into runs of m=8: use m=2 or 4, or pattern=unstructured with scope=row"},
		{33, "no power of two divides them; use pattern=unstructured with scope=row"},
	} {
		_, err := newMagnitude(t, nm(4, 8)).Layout(compress.Linear{Name: "x", Rows: 8, Cols: test.cols, DType: "BF16"})
		if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

// TestMagnitudeReads counts the passes: the rest of the last one is not read.
func TestMagnitudeReads(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		dtype string
		p     prune.MagnitudeParams
		want  int // panels of one row, of 5
	}{
		{"BF16", unstructured("tensor", 0), 0},
		{"BF16", unstructured("tensor", 1), 0},
		{"BF16", unstructured("row", 0.5), 0},
		{"BF16", nm(2, 4), 0},
		{"F32", unstructured("tensor", 0.5), 10}, // no ties
	} {
		in := methodtest.NewInput("x", test.dtype, 384, spread(5*384))
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			t.Fatal(err)
		}
		c := &counted{Weights: w}
		if _, err := newMagnitude(t, test.p).Prepare(t.Context(), []compress.Weights{c}, compress.Options{PanelRows: 1}); err != nil {
			t.Fatal(err)
		}
		if c.panels != test.want {
			t.Errorf("%s %+v: %d panels were read, want %d", test.dtype, test.p, c.panels, test.want)
		}
	}
}

// spread gives weights of magnitudes that all differ.
func spread(n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = float64(i*1009%n+1) / 4096
		if i%3 == 0 {
			w[i] = -w[i]
		}
	}
	return w
}

type counted struct {
	compress.Weights
	panels int
}

func (c *counted) Panels(ctx context.Context, rows int) iter.Seq2[compress.Panel, error] {
	return func(yield func(compress.Panel, error) bool) {
		for p, err := range c.Weights.Panels(ctx, rows) {
			c.panels++
			if !yield(p, err) {
				return
			}
		}
	}
}
