package quantize_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
)

func newBCQ(t testing.TB, p quantize.BCQParams) *quantize.BCQ {
	t.Helper()
	m, err := quantize.NewBCQ(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func bcqParams(bits int, group int64, rounds int, offset bool) quantize.BCQParams {
	p := quantize.BCQParams{Bits: bits, Strategy: compress.StrategyGroup, Group: group, Rounds: rounds, Offset: offset}
	if group == 0 {
		p.Strategy = compress.StrategyChannel
	}
	return p
}

func TestBCQ(t *testing.T) {
	t.Parallel()
	for _, p := range []quantize.BCQParams{
		bcqParams(1, 128, 15, false), bcqParams(2, 64, 15, false), bcqParams(3, 0, 15, false), bcqParams(4, 128, 15, false), bcqParams(8, 32, 3, false),
		bcqParams(1, 1, 15, true), bcqParams(2, 0, 15, true), bcqParams(4, 11, 15, true), bcqParams(3, 43, 0, false), bcqParams(4, 0, 0, true),
	} {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			t.Parallel()
			methodtest.Run(t, methodtest.Case{Method: newBCQ(t, p), Restores: []string{"zeros", "negative zeros", "one value", "one negative value", "one weight", "one column"}})
		})
	}
}

// Rounds never make a group worse, and more planes or an offset help.
func TestBCQLaws(t *testing.T) {
	t.Parallel()
	for _, in := range methodtest.Inputs() {
		if in.Linear.Cols%32 != 0 || in.Name == "outlier" {
			continue
		}
		loss := func(bits, rounds int, offset bool, at int) float64 {
			got := decoded(t, newBCQ(t, bcqParams(bits, 32, rounds, offset)), in)
			return lossOf(in.Weights[at:][:32], got[at:][:32], 2)
		}
		for at := 0; at < len(in.Weights); at += 32 * 37 {
			for bits := 1; bits <= 5; bits++ {
				for _, offset := range []bool{false, true} {
					last := math.Inf(1)
					for _, rounds := range []int{0, 1, 2, 15} {
						got := loss(bits, rounds, offset, at)
						if got > last*(1+1e-6) {
							t.Errorf("%s: %d bits, offset %v: %d rounds have the error %g, fewer %g", in.Name, bits, offset, rounds, got, last)
						}
						last = got
					}
				}
			}
		}
	}
	in := methodtest.NewInput("weights", "BF16", 256, heavy(16, 256, 0.02, 3))
	last := math.Inf(1)
	for bits := 1; bits <= 6; bits++ {
		got := lossOf(in.Weights, decoded(t, newBCQ(t, bcqParams(bits, 128, 15, false)), in), 2)
		if got > 0.6*last {
			t.Errorf("%d bits: error %g, one less has %g", bits, got, last)
		}
		last = got
	}
	rtn := newRTN(t, quantize.RTNParams{Bits: 3, Symmetric: true, Strategy: compress.StrategyGroup, Group: 128})
	if is, was := lossOf(in.Weights, decoded(t, newBCQ(t, bcqParams(3, 128, 15, false)), in), 2), lossOf(in.Weights, decoded(t, rtn, in), 2); is > 0.7*was {
		t.Errorf("error %g, round to nearest has %g", is, was)
	}
}

// What LUT-GEMM's own code makes of each group.
func TestBCQGolden(t *testing.T) {
	t.Parallel()
	var golden struct {
		Cases map[string]struct {
			Bits, Rows, Cols, Rounds int
			Group                    int64
			Weights, Codes, Alphas   hexBytes
			Losses                   []float64
		}
	}
	readGolden(t, "testdata/bcq/cases.json", &golden)
	for name, c := range golden.Cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := methodtest.NewInput("weights", "F32", c.Cols, c.Weights.floats())
			got := decoded(t, newBCQ(t, bcqParams(c.Bits, c.Group, c.Rounds, false)), in)
			alphas := c.Alphas.floats()
			var is, was float64
			same := 0
			for g, loss := range c.Losses {
				at := g * int(c.Group)
				equal := true
				for i, code := range c.Codes[at:][:c.Group] {
					var v float64
					for b, a := range alphas[g*c.Bits:][:c.Bits] {
						v += a * float64(2*int(code>>b&1)-1)
					}
					equal = equal && math.Abs(v-float64(got[at+i])) < 1e-4
				}
				ours := lossOf(in.Weights[at:][:c.Group], got[at:][:c.Group], 2)
				is, was = is+ours, was+loss
				if equal {
					same++
				} else if c.Rounds == 0 {
					t.Errorf("group %d: other values", g)
				}
			}
			t.Logf("%d of %d groups have the same values; error %g, the authors' %g", same, len(c.Losses), is, was)
			if is > was*(1+1e-4) {
				t.Errorf("error %g, the authors' %g", is, was)
			}
		})
	}
}

func TestBCQRefuses(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]quantize.BCQParams{
		"no bits":   bcqParams(0, 128, 15, false),
		"nine bits": bcqParams(9, 128, 15, false),
		"rounds":    bcqParams(4, 128, -1, false),
		"group":     bcqParams(4, -128, 15, false),
		"strategy":  {Bits: 4, Strategy: compress.StrategyTensor},
	} {
		if _, err := quantize.NewBCQ(p); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func BenchmarkBCQ(b *testing.B) {
	const rows, cols = 16, 4096
	in := methodtest.NewInput("weights", "BF16", cols, heavy(rows, cols, 0.02, 1))
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		b.Fatal(err)
	}
	for _, bits := range []int{2, 3, 4, 8} {
		b.Run(fmt.Sprintf("%dbit", bits), func(b *testing.B) {
			enc, err := newBCQ(b, bcqParams(bits, 128, 15, false)).Prepare(b.Context(), []compress.Weights{w}, compress.Options{})
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
		})
	}
}
