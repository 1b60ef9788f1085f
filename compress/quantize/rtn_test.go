package quantize_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
)

func newRTN(t testing.TB, p quantize.RTNParams) *quantize.RTN {
	t.Helper()
	m, err := quantize.NewRTN(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRTN(t *testing.T) {
	t.Parallel()
	var tests []quantize.RTNParams
	for bits := 2; bits <= 8; bits++ {
		for _, symmetric := range []bool{true, false} {
			tests = append(tests,
				quantize.RTNParams{Bits: bits, Symmetric: symmetric, Strategy: compress.StrategyTensor},
				quantize.RTNParams{Bits: bits, Symmetric: symmetric, Strategy: compress.StrategyChannel},
				quantize.RTNParams{Bits: bits, Symmetric: symmetric, Strategy: compress.StrategyGroup, Group: 128})
		}
	}
	for _, group := range []int64{1, 3, 11, 16, 32, 43, 64} {
		tests = append(tests,
			quantize.RTNParams{Bits: 4, Symmetric: true, Strategy: compress.StrategyGroup, Group: group},
			quantize.RTNParams{Bits: 3, Symmetric: false, Strategy: compress.StrategyGroup, Group: group})
	}
	for _, symmetric := range []bool{true, false} {
		tests = append(tests,
			quantize.RTNParams{Bits: 4, Symmetric: symmetric, Strategy: compress.StrategyGroup, Group: 64, Search: true},
			quantize.RTNParams{Bits: 3, Symmetric: symmetric, Strategy: compress.StrategyChannel, Search: true},
			quantize.RTNParams{Bits: 2, Symmetric: symmetric, Strategy: compress.StrategyTensor, Search: true})
	}
	for _, p := range tests {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			t.Parallel()
			c := methodtest.Case{Method: newRTN(t, p), Oracle: rtnOracle(p)}
			if p.Strategy != compress.StrategyTensor {
				c.Restores = []string{"zeros", "negative zeros"}
			}
			methodtest.Run(t, c)
		})
	}
}

// encodeOne encodes a matrix in one panel and gives the components in hex.
func encodeOne(t *testing.T, m compress.Method, in methodtest.Input) []string {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	err = compress.Encode(t.Context(), m, w, compress.Options{}, func(e *compress.Encoded) error {
		for _, d := range e.Data {
			out = append(out, hex.EncodeToString(d))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Values worked out by hand.
func TestRTNByHand(t *testing.T) {
	t.Parallel()
	group := func(bits int, symmetric bool, n int64) quantize.RTNParams {
		return quantize.RTNParams{Bits: bits, Symmetric: symmetric, Strategy: compress.StrategyGroup, Group: n}
	}
	tests := map[string]struct {
		p       quantize.RTNParams
		dtype   string
		weights []float64
		want    []string
	}{
		// absmax 7.5 makes the scale 1; -7.5 is a tie and goes to -8. The word is 0x76543210.
		"int4 counts up": {group(4, true, 8), "BF16", []float64{-7.5, -7, -6, -5, -4, -3, -2, -1}, []string{"10325476", "803f"}},
		// 7.5 would round to 8 and is clamped before.
		"int4 clamps": {group(4, true, 8), "BF16", []float64{7.5, 6.5, 5.5, 0.5, 1.5, -0.5, 0, 7}, []string{"ef8e8af8", "803f"}},
		// scale 127.5/127.5 = 1.
		"int8": {group(8, true, 4), "F32", []float64{127.5, -127.5, 1, 0.4}, []string{"ff008180", "0000803f"}},
		// 0..15 has scale 1 and zero point -8, stored as 0.
		"int4 with zero point": {group(4, false, 8), "F16", []float64{0, 1, 2, 3, 12, 13, 14, 15}, []string{"1032dcfe", "003c", "00"}},
		// -1..2: scale 1, zero point -8+1.
		"int2 with zero point": {group(2, false, 4), "BF16", []float64{-1, 0, 1, 2}, []string{"e4000000", "803f", "01"}},
		"zeros":                {group(4, true, 8), "F16", make([]float64, 8), []string{"88888888", "0014"}},
		// Rows are padded to words: 3 codes of 3 bits, q + 4 = 7, 4, 0 for scale 1 of 3.5.
		"int3 pads": {group(3, true, 3), "BF16", []float64{3.5, 0, -3.5}, []string{"27000000", "803f"}},
		"per tensor": {
			quantize.RTNParams{Bits: 8, Symmetric: true, Strategy: compress.StrategyTensor}, "BF16",
			[]float64{127.5, 1, 2, 3, -1, -2, -3, 0}, []string{"ff8182837f7e7d80", "803f"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cols := len(test.weights)
			if test.p.Strategy == compress.StrategyTensor {
				cols /= 2
			}
			got := encodeOne(t, newRTN(t, test.p), methodtest.NewInput("l", test.dtype, cols, test.weights))
			if strings.Join(got, " ") != strings.Join(test.want, " ") {
				t.Errorf("components %v, want %v", got, test.want)
			}
		})
	}
}

func TestRTNRefuses(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]quantize.RTNParams{
		"zero":              {},
		"one bit":           {Bits: 1, Strategy: compress.StrategyChannel},
		"nine bits":         {Bits: 9, Strategy: compress.StrategyChannel},
		"strategy":          {Bits: 4, Strategy: "block"},
		"no group":          {Bits: 4, Strategy: compress.StrategyGroup},
		"group for nothing": {Bits: 4, Strategy: compress.StrategyTensor, Group: 128},
	} {
		if _, err := quantize.NewRTN(p); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	m := newRTN(t, quantize.RTNParams{Bits: 4, Symmetric: true, Strategy: compress.StrategyGroup, Group: 128})
	for _, test := range []struct {
		cols int64
		want string
	}{
		{352, "encode model.layers.0.mlp.down_proj: its 352 columns do not divide into groups of 128: use group=16 or 32, or strategy=channel"},
		{172, "no power of two from 16 up divides them; use strategy=channel"},
		{64, "use group=16 or 32 or 64, or strategy=channel"},
	} {
		_, err := m.Layout(compress.Linear{Name: "model.layers.0.mlp.down_proj", Rows: 8, Cols: test.cols, DType: "BF16"})
		if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
	// A float64 that is finite but no float32.
	in := methodtest.NewInput("l", "F64", 128, append([]float64{1, -1e300}, make([]float64, 126)...))
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	err = compress.Encode(t.Context(), m, w, compress.Options{}, func(*compress.Encoded) error { return nil })
	if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "row 0, column 1 is -1e+300, beyond float32") {
		t.Errorf("error %v", err)
	}
}

// FP8 weights that come without a scale are widened, and nothing is lost by that.
func TestRTNTakesFP8(t *testing.T) {
	t.Parallel()
	m := newRTN(t, quantize.RTNParams{Bits: 8, Symmetric: true, Strategy: compress.StrategyChannel})
	for _, test := range []struct {
		dtype string
		data  []byte
		same  []float64
	}{
		{"F8_E4M3", []byte{0x38, 0xb8, 0x01, 0x7e, 0x00}, []float64{1, -1, 0x1p-9, 448, 0}},
		{"F8_E5M2", []byte{0x3c, 0xbc, 0x01, 0x7b, 0x00}, []float64{1, -1, 0x1p-16, 57344, 0}},
	} {
		l := compress.Linear{Name: "l", Rows: 1, Cols: 5, DType: test.dtype}
		got := encodeOne(t, m, methodtest.Input{Linear: l, Data: test.data})
		want := encodeOne(t, m, methodtest.NewInput("l", "BF16", 5, test.same))
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: components %v, as BF16 %v", test.dtype, got, want)
		}
	}
}

// The search is worth its time: no larger a loss, by the measure it minimises, than the full range has.
func TestRTNSearchImproves(t *testing.T) {
	t.Parallel()
	loss := func(search bool, in methodtest.Input) (sum float64) {
		p := quantize.RTNParams{Bits: 3, Symmetric: true, Strategy: compress.StrategyGroup, Group: 64, Search: search}
		m := newRTN(t, p)
		layout, err := m.Layout(in.Linear)
		if err != nil {
			return 0
		}
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			t.Fatal(err)
		}
		cols := int(in.Linear.Cols)
		err = compress.Encode(t.Context(), m, w, compress.Options{}, func(e *compress.Encoded) error {
			x := make([]float32, e.Rows*cols)
			if err := layout.Scheme.Decode(x, cols, e); err != nil {
				return err
			}
			for i, v := range x {
				sum += math.Pow(math.Abs(in.Weights[int(e.Row)*cols+i]-float64(v)), 2.4)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	better := 0
	for _, in := range methodtest.Inputs() {
		plain, searched := loss(false, in), loss(true, in)
		if searched > plain*(1+1e-6) {
			t.Errorf("%s: loss %g, searched %g", in.Name, plain, searched)
		}
		if searched < 0.9*plain {
			better++
		}
	}
	if better < 3 {
		t.Errorf("the search helps %d inputs", better)
	}
}

func BenchmarkRTN(b *testing.B) {
	in := methodtest.NewInput("l", "BF16", 4096, make([]float64, 256*4096))
	for i := range in.Data {
		in.Data[i] = byte(i*2654435761>>13)&0x3f | byte(i&1)*0x80 // no exponent of all ones
	}
	for _, p := range []quantize.RTNParams{
		{Bits: 4, Symmetric: true, Strategy: compress.StrategyGroup, Group: 128},
		{Bits: 8, Symmetric: true, Strategy: compress.StrategyChannel},
		{Bits: 4, Symmetric: false, Strategy: compress.StrategyGroup, Group: 128},
		{Bits: 8, Symmetric: true, Strategy: compress.StrategyTensor},
		{Bits: 4, Symmetric: true, Strategy: compress.StrategyGroup, Group: 128, Search: true},
	} {
		b.Run(fmt.Sprintf("%+v", p), func(b *testing.B) {
			w, err := compress.NewWeights(in.Linear, in.Data)
			if err != nil {
				b.Fatal(err)
			}
			enc, err := newRTN(b, p).Prepare(b.Context(), []compress.Weights{w}, compress.Options{})
			if err != nil {
				b.Fatal(err)
			}
			var e compress.Encoded
			panel := compress.Panel{Rows: 256, Cols: 4096, DType: "BF16", Data: in.Data}
			b.SetBytes(int64(len(in.Data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := enc[0].Rows(&e, panel); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
