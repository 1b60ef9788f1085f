package quantize_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
)

func newOliVe(t testing.TB, bits int, group int64) *quantize.OliVe {
	t.Helper()
	p := quantize.OliVeParams{Bits: bits, Strategy: compress.StrategyGroup, Group: group}
	if group == 0 {
		p.Strategy = compress.StrategyChannel
	}
	m, err := quantize.NewOliVe(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOliVe(t *testing.T) {
	t.Parallel()
	for _, bits := range []int{4, 8} {
		for _, group := range []int64{0, 2, 16, 22, 128} {
			t.Run(fmt.Sprintf("%d bits, groups of %d", bits, group), func(t *testing.T) {
				t.Parallel()
				methodtest.Run(t, methodtest.Case{Method: newOliVe(t, bits, group), Restores: []string{"zeros", "negative zeros"}})
			})
		}
	}
}

// plainLoss is Σ(w − ŵ)² of integers whose largest is the largest weight of the row.
func plainLoss(w []float64, cols, bits int, stored func(float64) float64) (sum float64) {
	top := float64(int(1)<<(bits-1) - 1)
	for ; len(w) > 0; w = w[cols:] {
		var large float64
		for _, v := range w[:cols] {
			large = max(large, math.Abs(v))
		}
		s := stored(large / top)
		for _, v := range w[:cols] {
			d := v - s*math.Max(-top, math.Min(top, math.RoundToEven(v/s)))
			sum += d * d
		}
	}
	return sum
}

// Never worse than plain integers, and with outliers, what the method is for, far better.
func TestOliVeBeatsPlainIntegers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		scale, most float64
	}{{1, 1}, {8, 0.5}, {30, 0.2}} {
		for _, bits := range []int{4, 8} {
			w := heavy(32, 512, 0.02, 5)
			for i := range w {
				if i%512 == 0 {
					w[i] *= test.scale
				}
			}
			in := methodtest.NewInput("weights", "F32", 512, w)
			is := lossOf(in.Weights, decoded(t, newOliVe(t, bits, 0), in), 2)
			was := plainLoss(in.Weights, 512, bits, func(v float64) float64 { return float64(float32(v)) })
			t.Logf("outliers × %g, %d bits: error %g of %g", test.scale, bits, is, was)
			if is > was*(1+1e-6) || bits == 4 && is > test.most*was {
				t.Errorf("outliers × %g, %d bits: error %g, plain integers have %g", test.scale, bits, is, was)
			}
		}
	}
}

// What the authors' code makes of each row.
func TestOliVeGolden(t *testing.T) {
	t.Parallel()
	var golden struct {
		Cases map[string]struct {
			Bits, Rows, Cols         int
			Weights, Scales, Decoded hexBytes
			Losses                   []float64
		}
	}
	readGolden(t, "testdata/olive/cases.json", &golden)
	for name, c := range golden.Cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := methodtest.NewInput("weights", "F32", c.Cols, c.Weights.floats())
			got := decoded(t, newOliVe(t, c.Bits, 0), in)
			scales, theirs := c.Scales.floats(), c.Decoded.floats()
			same := 0
			for row, loss := range c.Losses {
				at, equal := row*c.Cols, true
				for i, v := range theirs[at:][:c.Cols] {
					equal = equal && math.Abs(v-float64(got[at+i])) < 1e-3*scales[row]
				}
				if equal {
					same++
				} else if is := lossOf(in.Weights[at:][:c.Cols], got[at:][:c.Cols], 2); is > loss*(1+1e-4) {
					t.Errorf("row %d: other values, and the error is %g, the authors' %g", row, is, loss)
				}
			}
			t.Logf("%d of %d rows have the same values", same, len(c.Losses))
			if 4*same < 3*len(c.Losses) {
				t.Errorf("%d of %d rows have the same values", same, len(c.Losses))
			}
		})
	}
}

func TestOliVeRefuses(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]quantize.OliVeParams{
		"five bits": {Bits: 5, Strategy: compress.StrategyChannel},
		"odd group": {Bits: 4, Strategy: compress.StrategyGroup, Group: 33},
		"no group":  {Bits: 4, Strategy: compress.StrategyGroup},
		"strategy":  {Bits: 4},
	} {
		if _, err := quantize.NewOliVe(p); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	_, err := newOliVe(t, 4, 0).Layout(compress.Linear{Name: "model.layers.0.mlp.odd", Rows: 8, Cols: 33, DType: "BF16"})
	if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "encode model.layers.0.mlp.odd: its 33 columns are no pairs") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkOliVe(b *testing.B) {
	const rows, cols = 16, 4096
	in := methodtest.NewInput("weights", "BF16", cols, heavy(rows, cols, 0.02, 1))
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		b.Fatal(err)
	}
	enc, err := newOliVe(b, 4, 0).Prepare(b.Context(), []compress.Weights{w}, compress.Options{})
	if err != nil {
		b.Fatal(err)
	}
	var e compress.Encoded
	b.SetBytes(int64(len(in.Data)))
	for b.Loop() {
		if err := enc[0].Rows(&e, compress.Panel{Rows: rows, Cols: cols, DType: "BF16", Data: in.Data}); err != nil {
			b.Fatal(err)
		}
	}
}
