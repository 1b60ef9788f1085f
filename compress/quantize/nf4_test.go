package quantize_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
	"github.com/shardpress/shardpress/internal/tensor"
)

func newNF4(t testing.TB, block int64, double bool) compress.Method {
	t.Helper()
	m, err := quantize.NewNF4(quantize.NF4Params{Block: block, DoubleQuant: double})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newFP4(t testing.TB, block int64, double bool) compress.Method {
	t.Helper()
	m, err := quantize.NewFP4(quantize.FP4Params{Block: block, DoubleQuant: double})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newLLMInt8(t testing.TB) compress.Method {
	t.Helper()
	m, err := quantize.NewLLMInt8(quantize.LLMInt8Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBitsAndBytesMethods(t *testing.T) {
	t.Parallel()
	for _, block := range []int64{32, 64, 1024} {
		for _, double := range []bool{false, true} {
			t.Run(fmt.Sprintf("nf4 %d %v", block, double), func(t *testing.T) {
				t.Parallel()
				methodtest.Run(t, methodtest.Case{Method: newNF4(t, block, double), Oracle: tableOracle(nf4Numbers(), block, double)})
			})
			t.Run(fmt.Sprintf("fp4 %d %v", block, double), func(t *testing.T) {
				t.Parallel()
				methodtest.Run(t, methodtest.Case{Method: newFP4(t, block, double), Oracle: tableOracle(fp4Numbers(), block, double)})
			})
		}
	}
	t.Run("llmint8", func(t *testing.T) {
		t.Parallel()
		methodtest.Run(t, methodtest.Case{Method: newLLMInt8(t)})
	})
}

func nf4Numbers() []float32 {
	return []float32{
		-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
		0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
	}
}

func fp4Numbers() []float32 {
	third := float32(1) / 3
	return []float32{0, 0.0625 / 12, 2 * third, 1, third, 0.5, third / 2, 0.25, 0, -0.0625 / 12, -2 * third, -1, -third, -0.5, -third / 2, -0.25}
}

// tableOracle looks at every entry of the table for every weight. It gives codes and, without double quantization, magnitudes.
func tableOracle(numbers []float32, block int64, double bool) func(l compress.Linear, w []float64) [][]byte {
	return func(_ compress.Linear, w []float64) [][]byte {
		codes, absmax := make([]byte, (len(w)+1)/2), []byte{}
		for at := 0; at < len(w); at += int(block) {
			run := w[at:min(at+int(block), len(w))]
			var top float32
			for _, v := range run {
				top = max(top, float32(math.Abs(v)))
			}
			short := len(run) < int(block)
			if short {
				top = max(top, 1e-38)
			}
			absmax = binary.LittleEndian.AppendUint32(absmax, math.Float32bits(top))
			inverse := 1 / max(top, 1e-38)
			for i, v := range run {
				y := float32(v) * inverse
				if short {
					y = float32(v) / top
				}
				// Of all entries that lie below the number, the largest; the next one if the number is beyond the middle of the two.
				below, above := -1, -1
				for c, x := range numbers {
					if x < y && (below < 0 || x > numbers[below]) {
						below = c
					}
					if x >= y && (above < 0 || x < numbers[above]) {
						above = c
					}
				}
				code := above
				switch {
				case above < 0:
					code = below
				case below >= 0 && y <= (numbers[below]+numbers[above])/2:
					code = below
				}
				if numbers[code] == 0 && len(numbers) == 16 && numbers[0] == 0 {
					code = 0 // of the two zeros the second takes what is above 0
					if y > 0 {
						code = 8
					}
				}
				codes[(at+i)/2] |= byte(code) << (4 - 4*((at+i)%2))
			}
		}
		if len(w)%2 == 1 && numbers[0] != 0 {
			codes[len(codes)-1] |= 7 // the code of 0
		}
		if double {
			return [][]byte{codes}
		}
		return [][]byte{codes, absmax}
	}
}

// goldenWeights are those of tools/interop/golden/nf4.py.
func goldenWeights(rows, cols, seed int) []float64 {
	w := make([]float64, rows*cols)
	state := seed
	for i := range w {
		total := 0
		for range 4 {
			state = (state*1103515245 + 12345) % (1 << 31)
			total += state >> 16
		}
		if rows <= 3 || i/cols != 2 {
			w[i] = float64(total-2*32768) / (1 << 17)
		}
	}
	return w
}

type bitsAndBytesCase struct {
	Method, DType    string
	Rows, Cols, Seed int
	Block            int64
	Nested           bool
	Codes, Absmax    string
	Table            string
	NestedAbsmax     string `json:"nested_absmax"`
	NestedTable      string `json:"nested_table"`
	Offset, Decoded  string
}

// Codes, scales and decoded weights are those of the library.
func TestBitsAndBytesGolden(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/bitsandbytes/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Cases []bitsAndBytesCase }
	if err := json.Unmarshal(b, &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Cases) < 50 {
		t.Fatalf("%d cases", len(document.Cases))
	}
	for _, c := range document.Cases {
		t.Run(fmt.Sprintf("%s %s %dx%d %d %v", c.Method, c.DType, c.Rows, c.Cols, c.Block, c.Nested), func(t *testing.T) {
			t.Parallel()
			var m compress.Method
			switch c.Method {
			case "nf4":
				m = newNF4(t, c.Block, c.Nested)
			case "fp4":
				m = newFP4(t, c.Block, c.Nested)
			default:
				m = newLLMInt8(t)
			}
			in := methodtest.NewInput("golden", c.DType, c.Cols, goldenWeights(c.Rows, c.Cols, c.Seed))
			layout, e := encodeWhole(t, m, in)
			want := []string{c.Codes, c.Absmax, c.Table, c.NestedAbsmax, c.NestedTable, c.Offset}
			for i, part := range layout.Components {
				if !bytes.Equal(e.Data[i], unbase64(t, want[i])) {
					t.Errorf("%s are %x, the library has %x", part.Name, clipped(e.Data[i]), clipped(unbase64(t, want[i])))
				}
			}
			if c.Decoded == "" {
				return
			}
			x := make([]float32, c.Rows*c.Cols)
			if err := layout.Scheme.Decode(x, c.Cols, e); err != nil {
				t.Fatal(err)
			}
			stored := "F32"
			if s, ok := layout.Scheme.(compress.Codebook); ok {
				stored = s.DType
			}
			d, err := tensor.ParseDType(stored)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(x)*d.Size())
			tensor.FromFloat32(got, x, d)
			if want := unbase64(t, c.Decoded); !bytes.Equal(got, want) {
				t.Errorf("decodes to %x, in the library to %x", clipped(got), clipped(want))
			}
		})
	}
}

func clipped(b []byte) []byte { return b[:min(len(b), 48)] }

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encodeWhole encodes a matrix in one panel.
func encodeWhole(t *testing.T, m compress.Method, in methodtest.Input) (compress.Layout, *compress.Encoded) {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := m.Layout(in.Linear)
	if err != nil {
		t.Fatal(err)
	}
	var out *compress.Encoded
	o := compress.Options{PanelRows: int(in.Linear.Rows + layout.RowUnit)}
	if err := compress.Encode(t.Context(), m, w, o, func(e *compress.Encoded) error { out = e; return nil }); err != nil {
		t.Fatal(err)
	}
	return layout, out
}

// A larger weight never decodes to a smaller one within a run.
func TestBitsAndBytesMonotone(t *testing.T) {
	t.Parallel()
	const n = 4096
	w := make([]float64, n)
	for i := range w {
		w[i] = float64(i-n/2) / 512
	}
	for _, m := range []compress.Method{newNF4(t, n, false), newFP4(t, n, true), newNF4(t, n, true), newLLMInt8(t)} {
		layout, e := encodeWhole(t, m, methodtest.NewInput("slope", "F32", n, w))
		x := make([]float32, n)
		if err := layout.Scheme.Decode(x, n, e); err != nil {
			t.Fatal(err)
		}
		seen := map[float32]bool{}
		for i, v := range x {
			if i > 0 && v < x[i-1] {
				t.Errorf("%s: %v decodes to %v after %v", m.Name(), w[i], v, x[i-1])
			}
			seen[v] = true
		}
		if want := map[string]int{"nf4": 16, "fp4": 15, "llmint8": 255}[m.Name()]; len(seen) != want {
			t.Errorf("%s: %d values, not %d", m.Name(), len(seen), want)
		}
	}
}

// Double quantization moves the scale of a run by at most half of the widest gap of the map of 256 numbers, at its lower end, times the largest
// distance from the mean among the 256 scales that share it.
func TestDoubleQuantizationIsBounded(t *testing.T) {
	t.Parallel()
	const rows, cols = 40, 1000 // 625 runs, the columns divide into none
	w := goldenWeights(rows, cols, 5)
	for i := range w {
		w[i] *= 1 + float64(i/64%7)
	}
	in := methodtest.NewInput("l", "F32", cols, w)
	_, plain := encodeWhole(t, newNF4(t, 64, false), in)
	_, double := encodeWhole(t, newNF4(t, 64, true), in)
	if !bytes.Equal(plain.Data[0], double.Data[0]) {
		t.Error("double quantization changes codes")
	}
	at := func(b []byte, i int) float64 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
	}
	worst := 0.0
	for i := range len(double.Data[1]) {
		top := at(double.Data[3], i/256)
		got := at(double.Data[4], int(double.Data[1][i]))*top + at(double.Data[5], 0)
		moved := math.Abs(got-at(plain.Data[1], i)) / top
		if worst = max(worst, moved); moved > 0.00704 {
			t.Errorf("run %d: scale moved by %g of %g", i, moved, top)
		}
	}
	if worst < 0.005 {
		t.Errorf("the worst scale moved by %g: the test sees nothing", worst)
	}
	if extra := float64(len(double.Data[1])+len(double.Data[3])) * 8 / (rows * cols); extra > 0.13 {
		t.Errorf("scales take %g bits a weight", extra)
	}
}

func TestBitsAndBytesRefuse(t *testing.T) {
	t.Parallel()
	for _, block := range []int64{0, 16, 48, 8192} {
		if _, err := quantize.NewNF4(quantize.NF4Params{Block: block}); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("block %d: error %v", block, err)
		}
	}
	m := newNF4(t, 64, false)
	in := methodtest.NewInput("l", "BF16", 96, goldenWeights(4, 96, 3))
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := m.Prepare(t.Context(), []compress.Weights{w}, compress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, rows := range [][2]int{{1, 2}, {0, 1}, {2, 1}} { // two rows are three runs
		p := compress.Panel{Row: int64(rows[0]), Rows: rows[1], Cols: 96, DType: "BF16", Data: in.Data[rows[0]*192:][:rows[1]*192]}
		if err := enc[0].Rows(&compress.Encoded{}, p); err == nil || !strings.Contains(err.Error(), "whole units of 2 rows") {
			t.Errorf("rows %v: error %v", rows, err)
		}
	}
	big := methodtest.NewInput("l", "F32", 4, []float64{1, 2, -3e37, 4})
	if w, err = compress.NewWeights(big.Linear, big.Data); err != nil {
		t.Fatal(err)
	}
	err = compress.Encode(t.Context(), newLLMInt8(t), w, compress.Options{}, func(*compress.Encoded) error { return nil })
	if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "row 0 has a weight of magnitude 3e+37") {
		t.Errorf("error %v", err)
	}
}

// FP8 weights that come without a scale are widened, and nothing is lost by that; engines decode them to BF16.
func TestBitsAndBytesTakeFP8(t *testing.T) {
	t.Parallel()
	codes, same := make([]byte, 128), make([]float64, 128)
	for i := range codes {
		codes[i] = byte(i % 0x7f) // from 0 to 448
	}
	x := make([]float32, len(codes))
	tensor.ToFloat32(x, codes, tensor.F8E4M3)
	for i, v := range x {
		same[i] = float64(v)
	}
	for _, m := range []compress.Method{newNF4(t, 64, true), newFP4(t, 64, false), newLLMInt8(t)} {
		l := compress.Linear{Name: "l", Rows: 1, Cols: 128, DType: "F8_E4M3"}
		layout, got := encodeWhole(t, m, methodtest.Input{Linear: l, Data: codes})
		_, want := encodeWhole(t, m, methodtest.NewInput("l", "BF16", 128, same))
		for i := range want.Data {
			if !bytes.Equal(got.Data[i], want.Data[i]) {
				t.Errorf("%s: %s %x, as BF16 %x", m.Name(), layout.Components[i].Name, clipped(got.Data[i]), clipped(want.Data[i]))
			}
		}
		if s, ok := layout.Scheme.(compress.Codebook); ok && s.DType != "BF16" {
			t.Errorf("%s decodes to %s", m.Name(), s.DType)
		}
	}
}
