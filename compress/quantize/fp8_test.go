package quantize_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
	"github.com/shardpress/shardpress/internal/tensor"
)

func newFP8(t testing.TB, p quantize.FP8Params) *quantize.FP8 {
	t.Helper()
	m, err := quantize.NewFP8(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newMXFP8(t testing.TB) *quantize.MXFP8 {
	t.Helper()
	m, err := quantize.NewMXFP8(quantize.MXFP8Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// narrow rounds to a float of so many bits of significand and the smallest exponent, by arithmetic on float64 alone.
func narrow(v float64, bits, low int) float64 {
	if v == 0 || math.IsInf(v, 0) {
		return v
	}
	_, e := math.Frexp(v)
	unit := math.Ldexp(1, max(e-bits, low))
	return math.RoundToEven(v/unit) * unit
}

// inDType rounds to an element type.
func inDType(v float64, dtype string) float64 {
	switch dtype {
	case "BF16":
		return narrow(v, 8, -133)
	case "F16":
		return narrow(v, 11, -24)
	}
	return narrow(v, 24, -149)
}

// float8Oracle encodes weights whose scale is scale(top) for the largest magnitude of a tile of rows × cols.
func float8Oracle(dtype string, codeBits, codeLow int, limit float64, w []float64, cols, tileRows, tileCols int, scale func(top float64) float64) (values, scales []float64) {
	values = make([]float64, len(w))
	rows := len(w) / cols
	for r0 := 0; r0 < rows; r0 += tileRows {
		for c0 := 0; c0 < cols; c0 += tileCols {
			var in []int
			top := 0.0
			for r := r0; r < min(r0+tileRows, rows); r++ {
				for c := c0; c < c0+tileCols; c++ {
					in = append(in, r*cols+c)
					top = max(top, math.Abs(inDType(w[r*cols+c], dtype)))
				}
			}
			s := scale(top)
			scales = append(scales, s)
			for _, i := range in {
				y := inDType(narrow(inDType(w[i], dtype)/s, 24, -149), dtype)
				values[i] = narrow(min(max(y, -limit), limit), codeBits, codeLow)
				if y == 0 && math.Signbit(w[i]) {
					values[i] = math.Copysign(0, -1)
				}
			}
		}
	}
	return values, scales
}

// float8Bytes finds the codes of values.
func float8Bytes(values []float64, d tensor.DType) []byte {
	table := tensor.Float8Values(d)
	out := make([]byte, len(values))
	for i, v := range values {
		out[i] = byte(slices.IndexFunc(table[:], func(x float32) bool {
			return float64(x) == v && math.Signbit(float64(x)) == math.Signbit(v)
		}))
	}
	return out
}

func storedScales(scales []float64, dtype string) []byte {
	d, err := tensor.ParseDType(dtype)
	if err != nil {
		panic(err)
	}
	x := make([]float32, len(scales))
	for i, s := range scales {
		x[i] = float32(s)
	}
	out := make([]byte, len(x)*d.Size())
	tensor.FromFloat32(out, x, d)
	return out
}

func fp8Oracle(p quantize.FP8Params) func(compress.Linear, []float64) [][]byte {
	return func(l compress.Linear, w []float64) [][]byte {
		dtype, epsilon := l.DType, map[string]float64{"BF16": 0x1p-7, "F16": 0x1p-10, "F32": 0x1p-23}
		if dtype == "F64" {
			dtype = "F32"
		}
		rows, cols := int(l.Rows), int(l.Cols)
		tileRows, tileCols := rows, cols
		switch p.Strategy {
		case compress.StrategyChannel:
			tileRows = 1
		case compress.StrategyBlock:
			tileRows, tileCols = int(p.BlockRows), int(p.BlockCols)
		}
		d, bits, low, limit := tensor.F8E4M3, 4, -9, 448.0
		if p.Element == quantize.ElementE5M2 {
			d, bits, low, limit = tensor.F8E5M2, 3, -16, 57344
		}
		values, scales := float8Oracle(dtype, bits, low, limit, w, cols, tileRows, tileCols, func(top float64) float64 {
			s := inDType(narrow(top/limit, 24, -149), dtype)
			if s == 0 {
				return epsilon[dtype]
			}
			return s
		})
		return [][]byte{float8Bytes(values, d), storedScales(scales, dtype)}
	}
}

func TestFP8(t *testing.T) {
	t.Parallel()
	for _, element := range []string{quantize.ElementE4M3, quantize.ElementE5M2} {
		for _, p := range []quantize.FP8Params{
			{Strategy: compress.StrategyTensor},
			{Strategy: compress.StrategyChannel},
			{Strategy: compress.StrategyBlock, BlockRows: 1, BlockCols: 128},
			{Strategy: compress.StrategyBlock, BlockRows: 2, BlockCols: 32},
			{Strategy: compress.StrategyBlock, BlockRows: 3, BlockCols: 11},
			{Strategy: compress.StrategyBlock, BlockRows: 4, BlockCols: 1},
		} {
			p.Element = element
			t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
				t.Parallel()
				methodtest.Run(t, methodtest.Case{
					Method: newFP8(t, p), Oracle: fp8Oracle(p), Restores: []string{"negative zeros"},
				})
			})
		}
	}
}

func TestMXFP8(t *testing.T) {
	t.Parallel()
	methodtest.Run(t, methodtest.Case{
		Method: newMXFP8(t), Restores: []string{"negative zeros"},
		Oracle: func(l compress.Linear, w []float64) [][]byte {
			dtype := l.DType
			if dtype == "F64" {
				dtype = "F32"
			}
			var stored []byte
			values, _ := float8Oracle(dtype, 4, -9, 448, w, int(l.Cols), 1, 32, func(top float64) float64 {
				fraction, e := math.Frexp(top) // in [0.5, 1)
				if fraction >= 0.875 {
					e++
				}
				e = max(e-1-8, -127)
				if top == 0 {
					e = -127
				}
				stored = append(stored, byte(e+127))
				return math.Ldexp(1, e)
			})
			return [][]byte{float8Bytes(values, tensor.F8E4M3), stored}
		},
	})
}

// The full tile of DeepSeek's layout, the last one lower, in panels of any number of tiles.
func TestFP8Block128(t *testing.T) {
	t.Parallel()
	p := quantize.FP8Params{Element: quantize.ElementE4M3, Strategy: compress.StrategyBlock, BlockRows: 128, BlockCols: 128}
	m := newFP8(t, p)
	w := make([]float64, 300*256)
	for i := range w {
		w[i] = float64(i*i%1013-500) / 4096 * float64(1+i/9000)
	}
	for _, dtype := range []string{"BF16", "F64"} {
		in := methodtest.NewInput("l", dtype, 256, w)
		want := fp8Oracle(p)(in.Linear, in.Weights)
		for _, rows := range []int{0, 1, 128, 200, 256, 300} {
			got := encodeIn(t, m, in, rows)
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("%s in panels of %d rows: component %d differs", dtype, rows, i)
				}
			}
		}
	}
}

// encodeIn encodes a matrix in panels of rows rows and gives the components.
func encodeIn(t *testing.T, m compress.Method, in methodtest.Input, rows int) [][]byte {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := m.Layout(in.Linear)
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(layout.Components))
	err = compress.Encode(t.Context(), m, w, compress.Options{PanelRows: rows}, func(e *compress.Encoded) error {
		for i, d := range e.Data {
			if !layout.Components[i].Whole || e.Row == 0 {
				out[i] = append(out[i], d...)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type goldenArray struct {
	DType string
	Shape []int64
	Data  string
}

func (a goldenArray) bytes(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString(a.Data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What compressed-tensors makes of a matrix is what the methods make, byte for byte; and what its decompressor makes of that is what
// Decode says.
func TestFP8Golden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/fp8/*.json")
	if err != nil || len(files) < 13 {
		t.Fatalf("%d golden cases, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Rows, Cols          int64
				Format, Strategy    string
				Block               []int64
				Weight, Dequantized goldenArray
				Stored              map[string]goldenArray
			}
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			var m compress.Method = newMXFP8(t)
			if c.Format == "float-quantized" {
				p := quantize.FP8Params{Element: quantize.ElementE4M3, Strategy: c.Strategy}
				if c.Block != nil {
					p.BlockRows, p.BlockCols = c.Block[0], c.Block[1]
				}
				m = newFP8(t, p)
			}
			in := methodtest.Input{
				Linear: compress.Linear{Name: "l", Rows: c.Rows, Cols: c.Cols, DType: c.Weight.DType, Role: compress.RoleLinear},
				Data:   c.Weight.bytes(t),
			}
			layout, err := m.Layout(in.Linear)
			if err != nil {
				t.Fatal(err)
			}
			got := encodeIn(t, m, in, 0)
			for i, name := range []string{"weight", "weight_scale"} {
				want := c.Stored[name]
				if layout.Components[i].DType != want.DType || !slices.Equal(layout.Components[i].Shape, want.Shape) {
					t.Errorf("%s is %s %v, theirs %s %v", name, layout.Components[i].DType, layout.Components[i].Shape, want.DType, want.Shape)
				}
				theirs := want.bytes(t)
				if filepath.Base(file) == "mxfp8-f16.json" && name == "weight_scale" {
					// F16 cannot hold the scale of a group of zeros, 2^-127, and theirs becomes 1.
					for at := 4; at < 6; at++ {
						theirs[at] = 0
					}
				}
				if !bytes.Equal(got[i], theirs) {
					t.Errorf("%s: %s", name, firstDifference(got[i], theirs))
				}
			}
			// Their decompressor, given our codes.
			values := make([]float32, c.Rows*c.Cols)
			theirs := &compress.Encoded{Rows: int(c.Rows), Data: [][]byte{c.Stored["weight"].bytes(t), c.Stored["weight_scale"].bytes(t)}}
			if err := layout.Scheme.Decode(values, int(c.Cols), theirs); err != nil {
				t.Fatal(err)
			}
			d, err := tensor.ParseDType(c.Dequantized.DType)
			if err != nil {
				t.Fatal(err)
			}
			decoded := make([]byte, len(values)*d.Size())
			tensor.FromFloat32(decoded, values, d)
			if want := c.Dequantized.bytes(t); !bytes.Equal(decoded, want) {
				t.Errorf("decoded: %s", firstDifference(decoded, want))
			}
		})
	}
}

func firstDifference(a, b []byte) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d bytes against %d", len(a), len(b))
	}
	n := 0
	first := -1
	for i := range a {
		if a[i] != b[i] {
			if n++; first < 0 {
				first = i
			}
		}
	}
	return fmt.Sprintf("%d of %d bytes differ, at %d %#02x against %#02x", n, len(a), first, a[first], b[first])
}

// The error is within half a step of every code: 2^-4 of the weight for E4M3, and half of the smallest code times the scale. Decoding is
// monotone.
func TestFP8Laws(t *testing.T) {
	t.Parallel()
	for _, in := range methodtest.Inputs() {
		if !strings.HasPrefix(in.Name, "random") {
			continue
		}
		for _, m := range []compress.Method{
			newFP8(t, quantize.FP8Params{Element: quantize.ElementE4M3, Strategy: compress.StrategyChannel}), newMXFP8(t),
		} {
			rows, cols := int(in.Linear.Rows), int(in.Linear.Cols)
			layout, err := m.Layout(in.Linear)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, rows*cols)
			if err := layout.Scheme.Decode(got, cols, &compress.Encoded{Rows: rows, Data: encodeIn(t, m, in, 0)}); err != nil {
				t.Fatal(err)
			}
			for row := range rows {
				top := 0.0
				for _, w := range in.Weights[row*cols:][:cols] {
					top = max(top, math.Abs(w))
				}
				for col, w := range in.Weights[row*cols:][:cols] {
					v := float64(got[row*cols+col])
					if bound := math.Abs(w)*(0x1p-4+0x1p-7) + top/224*0x1p-10; math.Abs(w-v) > bound {
						t.Fatalf("%s %s: %g becomes %g, more than %g away", m.Name(), in.Name, w, v, bound)
					}
				}
				if m.Name() == quantize.MXFP8Name {
					continue // scales differ within a row
				}
				for i := range cols - 1 {
					if a, b := row*cols+i, row*cols+i+1; in.Weights[a] <= in.Weights[b] && got[a] > got[b] {
						t.Fatalf("%s: %g ≤ %g become %g > %g", in.Name, in.Weights[a], in.Weights[b], got[a], got[b])
					}
				}
			}
		}
	}
}

// FP8 weights are widened to BF16, which holds all of them, and encoded with scales of their own.
func TestFP8OfFP8(t *testing.T) {
	t.Parallel()
	data := make([]byte, 4*64)
	for i := range data {
		data[i] = byte(i)
		if data[i]&0x7f == 0x7f {
			data[i] = 0x10
		}
	}
	for _, d := range []tensor.DType{tensor.F8E4M3, tensor.F8E5M2} {
		source := slices.Clone(data)
		for i, b := range source {
			if d == tensor.F8E5M2 && b&0x7c == 0x7c {
				source[i] = 0x30
			}
		}
		x := make([]float32, len(source))
		tensor.ToFloat32(x, source, d)
		wide := make([]byte, 2*len(x))
		tensor.FromFloat32(wide, x, tensor.BF16)
		in := methodtest.Input{Linear: compress.Linear{Name: "l", Rows: 4, Cols: 64, DType: d.String()}, Data: source}
		as := methodtest.Input{Linear: compress.Linear{Name: "l", Rows: 4, Cols: 64, DType: "BF16"}, Data: wide}
		for _, m := range []compress.Method{
			newFP8(t, quantize.FP8Params{Element: quantize.ElementE4M3, Strategy: compress.StrategyBlock, BlockRows: 2, BlockCols: 32}),
			newFP8(t, quantize.FP8Params{Element: quantize.ElementE5M2, Strategy: compress.StrategyTensor}), newMXFP8(t),
		} {
			got, want := encodeIn(t, m, in, 0), encodeIn(t, m, as, 0)
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("%s of %v: component %d is not that of the same weights in BF16", m.Name(), d, i)
				}
			}
		}
		in.Data[70] = 0x7f // NaN in both
		err := compress.Encode(t.Context(), newMXFP8(t), mustWeights(t, in), compress.Options{}, func(*compress.Encoded) error { return nil })
		if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "row 1, column 6 is NaN") {
			t.Errorf("%v with NaN: %v", d, err)
		}
	}
}

func mustWeights(t *testing.T, in methodtest.Input) compress.Weights {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestFP8Refuses(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]quantize.FP8Params{
		"element is":        {Element: "e3m4", Strategy: "channel"},
		"strategy is":       {Element: "e4m3", Strategy: "group"},
		"block is 0 × 128":  {Element: "e4m3", Strategy: "block", BlockCols: 128},
		"block is 128 × 0":  {Element: "e4m3", Strategy: "block", BlockRows: 128},
		"has a meaning":     {Element: "e4m3", Strategy: "channel", BlockRows: 128},
		"block is -1 × 128": {Element: "e4m3", Strategy: "block", BlockRows: -1, BlockCols: 128},
	} {
		if _, err := quantize.NewFP8(p); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
	block := newFP8(t, quantize.FP8Params{Element: "e4m3", Strategy: "block", BlockRows: 128, BlockCols: 128})
	for cols, want := range map[int64]string{192: "use block_cols=64", 160: "use block_cols=32", 100: "blocks of 128: use strategy=channel"} {
		if _, err := block.Layout(compress.Linear{Name: "m.q", Rows: 8, Cols: cols, DType: "BF16"}); !errors.Is(err, compress.ErrInvalid) ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "m.q") {
			t.Errorf("%d columns: %v, want %q", cols, err, want)
		}
	}
	if _, err := newMXFP8(t).Layout(compress.Linear{Name: "m.q", Rows: 8, Cols: 48, DType: "BF16"}); !errors.Is(err, compress.ErrInvalid) ||
		!strings.Contains(err.Error(), "use method fp8") {
		t.Errorf("48 columns: %v", err)
	}
	// A panel that begins inside of a tile would make scales of half of it.
	in := methodtest.NewInput("l", "F32", 128, make([]float64, 256*128))
	enc, err := block.Prepare(t.Context(), []compress.Weights{mustWeights(t, in)}, compress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := compress.Panel{Row: 1, Rows: 2, Cols: 128, DType: "F32", Data: in.Data[512:][:1024]}
	if err := enc[0].Rows(&compress.Encoded{}, p); err == nil || !strings.Contains(err.Error(), "inside of a tile") {
		t.Errorf("panel inside of a tile: %v", err)
	}
}

// Values worked out by hand.
func TestFP8ByHand(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		m       compress.Method
		dtype   string
		cols    int
		weights []float64
		want    []string
	}{
		// absmax 448 makes the scale 1; 17 is between 16 and 18 and goes to 16, 19 to 20; the smallest code is 2^-9.
		"channel": {
			newFP8(t, quantize.FP8Params{Element: "e4m3", Strategy: "channel"}), "BF16", 8,
			[]float64{448, -448, 1, 17, 19, 0x1p-9, 0x1p-10, -0}, []string{"7efe38585a010000", "803f"},
		},
		"e5m2": {
			newFP8(t, quantize.FP8Params{Element: "e5m2", Strategy: "tensor"}), "F32", 2,
			[]float64{57344, 1, -1.25, 0x1p-16}, []string{"7b3cbd01", "0000803f"},
		},
		"zeros": {newFP8(t, quantize.FP8Params{Element: "e4m3", Strategy: "channel"}), "F16", 4, make([]float64, 4), []string{"00000000", "0014"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := encodeOne(t, test.m, methodtest.NewInput("l", test.dtype, test.cols, test.weights))
			if strings.Join(got, " ") != strings.Join(test.want, " ") {
				t.Errorf("components %v, want %v", got, test.want)
			}
		})
	}
}
