package quantize_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
)

func newHQQ(t testing.TB, p quantize.HQQParams) *quantize.HQQ {
	t.Helper()
	m, err := quantize.NewHQQ(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// hqqParams are the defaults.
func hqqParams(bits int, group int64) quantize.HQQParams {
	p := quantize.HQQParams{Bits: bits, Strategy: compress.StrategyGroup, Group: group, Zeros: quantize.ZerosFloat, Norm: 0.7, Beta: 10, Iterations: 20}
	if group == 0 {
		p.Strategy = compress.StrategyChannel
	}
	return p
}

func TestHQQ(t *testing.T) {
	t.Parallel()
	var tests []quantize.HQQParams
	for _, bits := range []int{2, 3, 4, 8} {
		tests = append(tests, hqqParams(bits, 64), hqqParams(bits, 0))
	}
	for _, group := range []int64{1, 3, 11, 16, 32, 43, 128} {
		tests = append(tests, hqqParams(4, group))
	}
	for i := range tests[:10] {
		p := tests[i]
		p.Zeros = quantize.ZerosInt
		tests = append(tests, p)
	}
	near := hqqParams(3, 64) // many errors that do not shrink to 0
	near.Beta, near.Norm = 1e5, 0.5
	one := hqqParams(4, 64)
	one.Norm, one.Beta, one.Iterations = 1, 1e4, 1
	for _, p := range append(tests, near, one) {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			t.Parallel()
			methodtest.Run(t, methodtest.Case{Method: newHQQ(t, p), Restores: []string{"zeros", "negative zeros", "one value", "one negative value", "one weight"}})
		})
	}
}

// decoded encodes a matrix and decodes it again.
func decoded(t testing.TB, m compress.Method, in methodtest.Input) []float32 {
	t.Helper()
	layout, err := m.Layout(in.Linear)
	if err != nil {
		t.Fatal(err)
	}
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	var out []float32
	cols := int(in.Linear.Cols)
	err = compress.Encode(t.Context(), m, w, compress.Options{}, func(e *compress.Encoded) error {
		x := make([]float32, e.Rows*cols)
		out = append(out, x...)
		return layout.Scheme.Decode(out[int(e.Row)*cols:], cols, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lossOf is Σ|w − ŵ|^p.
func lossOf(weights []float64, got []float32, p float64) (sum float64) {
	for i, v := range got {
		sum += math.Pow(math.Abs(weights[i]-float64(v)), p)
	}
	return sum
}

// heavy gives weights with some large ones.
func heavy(rows, cols int, scale float64, seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 77))
	w := make([]float64, rows*cols)
	for i := range w {
		w[i] = rng.NormFloat64() * scale
		if rng.IntN(100) == 0 {
			w[i] *= 6
		}
	}
	return w
}

// HQQ promises small Σ|w − ŵ|^p: of each row never above that of the grid it starts from as far as Σ|w − ŵ| goes, by which it stops, and
// over a matrix clearly below for p = 0.7 as well.
func TestHQQImproves(t *testing.T) {
	t.Parallel()
	for _, dtype := range []string{"F32", "BF16", "F16"} {
		for _, bits := range []int{2, 3, 4, 8} {
			for _, scale := range []float64{0.02, 3} { // with 3, errors are large enough for the split to count
				in := methodtest.NewInput("weights", dtype, 256, heavy(64, 256, scale, uint64(bits)))
				float := hqqParams(bits, 64)
				whole := float
				whole.Zeros = quantize.ZerosInt
				rtn := newRTN(t, quantize.RTNParams{Bits: bits, Strategy: compress.StrategyGroup, Group: 64})
				f, i, r := decoded(t, newHQQ(t, float), in), decoded(t, newHQQ(t, whole), in), decoded(t, rtn, in)
				for row := range 64 {
					part := func(x []float32) float64 { return lossOf(in.Weights[row*256:][:256], x[row*256:][:256], 1) }
					if got, want := part(i), part(r); got > want*(1+1e-6) {
						t.Errorf("%s, %d bits, scale %g: row %d: Σ|e| %g with whole zero points, round to nearest has %g", dtype, bits, scale, row, got, want)
					}
				}
				for _, p := range []float64{0.7, 1} {
					got, whole, want := lossOf(in.Weights, f, p), lossOf(in.Weights, i, p), lossOf(in.Weights, r, p)
					if got > want*0.995 || whole > want*(1+1e-6) {
						t.Errorf("%s, %d bits, scale %g: Σ|e|^%g is %g, with whole zero points %g, of round to nearest %g", dtype, bits, scale, p, got, whole, want)
					}
				}
			}
		}
	}
}

func TestHQQRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(p *quantize.HQQParams){
		"one bit":       func(p *quantize.HQQParams) { p.Bits = 1 },
		"nine bits":     func(p *quantize.HQQParams) { p.Bits = 9 },
		"strategy":      func(p *quantize.HQQParams) { p.Strategy = compress.StrategyTensor },
		"no group":      func(p *quantize.HQQParams) { p.Group = 0 },
		"group":         func(p *quantize.HQQParams) { p.Strategy = compress.StrategyChannel },
		"zeros":         func(p *quantize.HQQParams) { p.Zeros = "none" },
		"norm":          func(p *quantize.HQQParams) { p.Norm = 2 },
		"norm NaN":      func(p *quantize.HQQParams) { p.Norm = math.NaN() },
		"beta":          func(p *quantize.HQQParams) { p.Beta = 0 },
		"no iterations": func(p *quantize.HQQParams) { p.Iterations = 0 },
	} {
		p := hqqParams(4, 64)
		change(&p)
		if _, err := quantize.NewHQQ(p); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	_, err := newHQQ(t, hqqParams(4, 64)).Layout(compress.Linear{Name: "model.layers.0.mlp.down_proj", Rows: 8, Cols: 352, DType: "BF16"})
	if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "its 352 columns do not divide into groups of 64: use group=16 or 32, or strategy=channel") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkHQQ(b *testing.B) {
	const rows, cols = 256, 4096
	for _, scale := range []float64{0.02, 3} {
		in := methodtest.NewInput("weights", "BF16", cols, heavy(rows, cols, scale, 1))
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			b.Fatal(err)
		}
		for _, kernel := range []compress.Kernel{compress.KernelScalar, compress.KernelBest} {
			b.Run(fmt.Sprintf("scale%g-%s", scale, kernel), func(b *testing.B) {
				enc, err := newHQQ(b, hqqParams(4, 64)).Prepare(b.Context(), []compress.Weights{w}, compress.Options{Kernel: kernel})
				if err != nil {
					b.Fatal(err)
				}
				var e compress.Encoded
				panel := compress.Panel{Rows: rows, Cols: cols, DType: "BF16", Data: in.Data}
				b.SetBytes(int64(len(in.Data)))
				for b.Loop() {
					if err := enc[0].Rows(&e, panel); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
