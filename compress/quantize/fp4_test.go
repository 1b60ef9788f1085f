package quantize_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
)

func newMXFP4(t testing.TB) *quantize.MXFP4 {
	t.Helper()
	m, err := quantize.NewMXFP4(quantize.MXFP4Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newNVFP4(t testing.TB) *quantize.NVFP4 {
	t.Helper()
	m, err := quantize.NewNVFP4(quantize.NVFP4Params{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMXFP4(t *testing.T) {
	t.Parallel()
	methodtest.Run(t, methodtest.Case{Method: newMXFP4(t), Oracle: mxfp4Oracle, Restores: []string{"negative zeros"}})
}

func TestNVFP4(t *testing.T) {
	t.Parallel()
	methodtest.Run(t, methodtest.Case{Method: newNVFP4(t), Oracle: nvfp4Oracle, Restores: []string{"negative zeros"}})
}

// floatFormat is a binary floating-point type: bits of the significand, exponents of the smallest subnormal and of the largest power of two.
type floatFormat struct{ digits, tiny, huge int }

func floatFormatOf(dtype string) floatFormat {
	switch dtype {
	case "BF16":
		return floatFormat{8, -133, 127}
	case "F16":
		return floatFormat{11, -24, 15}
	case "F8_E4M3":
		return floatFormat{4, -9, 8}
	}
	return floatFormat{24, -149, 127}
}

// round gives the nearest number of the format, ties to even, infinite beyond the largest one.
func (f floatFormat) round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) {
		return v
	}
	unit := math.Ldexp(1, max(math.Ilogb(v)-f.digits+1, f.tiny))
	if v = math.RoundToEven(v/unit) * unit; math.Abs(v) >= math.Ldexp(1, f.huge+1) {
		return math.Inf(1)
	}
	return v
}

// nearestIndex looks at all magnitudes of E2M1.
func nearestIndex(a float64) byte {
	values := []float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}
	best := 0
	for i, v := range values {
		if d, least := math.Abs(min(a, 8)-v), math.Abs(min(a, 8)-values[best]); d < least || d == least && i%2 == 0 {
			best = i
		}
	}
	return byte(best)
}

func nibblesOf(quotients []float64) []byte {
	out := make([]byte, len(quotients)/2)
	for i, q := range quotients {
		c := nearestIndex(math.Abs(q))
		if q < 0 {
			c |= 8
		}
		out[i/2] |= c << (i % 2 * 4)
	}
	return out
}

func workOf(l compress.Linear) string {
	if l.DType == "F64" {
		return "F32"
	}
	return l.DType
}

func topOf(w []float64) float64 {
	top := 0.0
	for _, v := range w {
		top = max(top, math.Abs(v))
	}
	return top
}

// mxfp4Oracle is MXFP4 from the description of the format.
func mxfp4Oracle(l compress.Linear, w []float64) [][]byte {
	work := workOf(l)
	f := floatFormatOf(work)
	var scales []byte
	var quotients []float64
	for ; len(w) > 0; w = w[32:] {
		x := make([]float64, 32)
		for i := range x {
			x[i] = floatFormatOf("F32").round(w[i])
		}
		stored := 0
		if top := topOf(x); top > 0 {
			e := math.Ilogb(top)
			if math.Ldexp(top, -e) >= 1.75 && e < f.huge {
				e++
			}
			if stored = max(e-2+127, 0); work == "F16" && top < 0.75*0x1p-14 {
				stored = 127
			} else if work == "F16" {
				stored = max(stored, 127-16)
			}
		} else if work == "F16" {
			stored = 127
		}
		scales = append(scales, byte(stored))
		for _, v := range x {
			quotients = append(quotients, f.round(math.Ldexp(v, 127-stored)))
		}
	}
	return [][]byte{nibblesOf(quotients), scales}
}

// nvfp4Oracle is NVFP4 from the description of the format, for one linear.
func nvfp4Oracle(l compress.Linear, w []float64) [][]byte {
	work := workOf(l)
	f, f32, e4m3 := floatFormatOf(work), floatFormatOf("F32"), floatFormatOf("F8_E4M3")
	x := make([]float64, len(w))
	for i, v := range w {
		x[i] = f32.round(v)
	}
	globalOf := func(f floatFormat, smallest float64) float64 {
		return f.round(f.round(1/max(topOf(x), smallest)) * 2688)
	}
	global := globalOf(f, map[string]float64{"F16": 0x1p-14, "BF16": 0x1p-126, "F32": 0x1p-126}[work])
	if math.IsInf(global, 0) && work == "F16" {
		global = globalOf(f32, 0x1p-126)
	}
	if math.IsInf(global, 0) {
		global = 1
	}
	var scales []byte
	var quotients []float64
	for ; len(x) > 0; x = x[16:] {
		sixth := f.round(topOf(x[:16]) / 6)
		local := e4m3.round(min(f32.round(global*sixth), 448))
		if local == 0 {
			local = 0.125
		}
		stored := math.Ldexp(local, 9) // subnormal
		if local >= 0x1p-6 {
			e := math.Ilogb(local)
			stored = float64((e+7)*8) + (math.Ldexp(local, -e)-1)*8
		}
		scales = append(scales, byte(stored))
		s := f32.round(local / global)
		for _, v := range x[:16] {
			quotients = append(quotients, f32.round(v/s))
		}
	}
	return [][]byte{nibblesOf(quotients), scales, binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(global)))}
}

type fp4Array struct {
	DType string
	Shape []int64
	Data  string
}

func (a fp4Array) bytes(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString(a.Data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What compressed-tensors stores, and what it makes of that, bit for bit.
func TestFP4Golden(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("testdata", "fp4", "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Method, Name string
			Linears      []struct {
				Weight, Dequantized fp4Array
				Stored              map[string]fp4Array
			}
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	methods := map[string]compress.Method{"mxfp4": newMXFP4(t), "nvfp4": newNVFP4(t)}
	names := []string{"weight_packed", "weight_scale", "weight_global_scale"}
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			m := methods[c.Method]
			var group []compress.Weights
			for i, l := range c.Linears {
				w, err := compress.NewWeights(compress.Linear{
					Name: fmt.Sprint("linear ", i), Rows: l.Weight.Shape[0], Cols: l.Weight.Shape[1], DType: l.Weight.DType,
				}, l.Weight.bytes(t))
				if err != nil {
					t.Fatal(err)
				}
				group = append(group, w)
			}
			encoders, err := m.Prepare(t.Context(), group, compress.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for i, l := range c.Linears {
				layout, err := m.Layout(group[i].Linear())
				if err != nil {
					t.Fatal(err)
				}
				var e compress.Encoded
				for p, err := range group[i].Panels(t.Context(), 1<<20) {
					if err != nil {
						t.Fatal(err)
					}
					if err := encoders[i].Rows(&e, p); err != nil {
						t.Fatal(err)
					}
				}
				for k, part := range layout.Components {
					want := l.Stored[names[k]]
					if part.DType != want.DType || fmt.Sprint(part.Shape) != fmt.Sprint(want.Shape) {
						t.Errorf("linear %d: %s is %s %v, theirs %s %v", i, part.Name, part.DType, part.Shape, want.DType, want.Shape)
					}
					if !bytes.Equal(e.Data[k], want.bytes(t)) {
						t.Errorf("linear %d: %s %x, theirs %s", i, part.Name, e.Data[k], want.Data)
					}
				}
				rows, cols := int(l.Weight.Shape[0]), int(l.Weight.Shape[1])
				got := make([]float32, rows*cols)
				if err := layout.Scheme.Decode(got, cols, &e); err != nil {
					t.Fatal(err)
				}
				want := l.Dequantized.bytes(t)
				for at, v := range got {
					theirs := uint32(binary.LittleEndian.Uint16(want[2*at:])) << 16
					u := math.Float32bits(v)
					if ours := (u + 0x7fff + u>>16&1) &^ 0xffff; ours != theirs {
						t.Fatalf("linear %d: weight %d is %x, theirs %x", i, at, ours, theirs)
					}
				}
			}
		})
	}
}

func TestFP4Refuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method compress.Method
		cols   int64
		dtype  string
		want   string
	}{
		{newMXFP4(t), 48, "BF16", "use method nvfp4"},
		{newMXFP4(t), 40, "BF16", "strategy=channel"},
		{newNVFP4(t), 24, "BF16", "strategy=channel"},
		{newNVFP4(t), 32, "I8", "ignore list"},
	} {
		_, err := test.method.Layout(compress.Linear{Name: "the.linear", Rows: 4, Cols: test.cols, DType: test.dtype})
		if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "the.linear") {
			t.Errorf("%s, %d columns of %s: error %v, want %q", test.method.Name(), test.cols, test.dtype, err, test.want)
		}
	}
}

// FP8 weights widen to BF16: the same codes.
func TestFP4TakesFP8(t *testing.T) {
	t.Parallel()
	codes := make([]byte, 4*64)
	values := make([]float64, len(codes))
	for i := range codes {
		codes[i] = byte(i*7) &^ 0x40
		e, frac := int(codes[i]>>3&15), float64(codes[i]&7)
		if values[i] = math.Ldexp(frac, -9); e > 0 {
			values[i] = math.Ldexp(8+frac, e-10)
		}
		if codes[i]&0x80 != 0 {
			values[i] = -values[i]
		}
	}
	wide := methodtest.NewInput("wide", "BF16", 64, values)
	narrow := methodtest.Input{Name: "narrow", Linear: wide.Linear, Data: codes}
	narrow.Linear.DType = "F8_E4M3"
	for _, m := range []compress.Method{newMXFP4(t), newNVFP4(t)} {
		a, b := encodeOne(t, m, wide), encodeOne(t, m, narrow)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s: %v of BF16, %v of F8_E4M3", m.Name(), a, b)
		}
	}
}

// The global scale is that of the largest weight of the group, wherever it is.
func TestNVFP4Shares(t *testing.T) {
	t.Parallel()
	m := newNVFP4(t)
	fill := func(n int, v float64) []float64 {
		w := make([]float64, n)
		for i := range w {
			w[i] = v * float64(i%7-3)
		}
		return w
	}
	small, large := methodtest.NewInput("small", "BF16", 32, fill(64, 0.01)), methodtest.NewInput("large", "BF16", 32, fill(96, 0.5))
	globals := func(group ...methodtest.Input) []string {
		var ws []compress.Weights
		for _, in := range group {
			w, err := compress.NewWeights(in.Linear, in.Data)
			if err != nil {
				t.Fatal(err)
			}
			ws = append(ws, w)
		}
		encoders, err := m.Prepare(t.Context(), ws, compress.Options{PanelRows: 1})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for i, w := range ws {
			for p, err := range w.Panels(t.Context(), 100) {
				if err != nil {
					t.Fatal(err)
				}
				var e compress.Encoded
				if err := encoders[i].Rows(&e, p); err != nil {
					t.Fatal(err)
				}
				out = append(out, hex.EncodeToString(e.Data[2]))
			}
		}
		return out
	}
	alone := globals(large)[0]
	for _, g := range append(globals(small, large), globals(large, small)...) {
		if g != alone {
			t.Errorf("a global scale of %s, and of the largest alone %s", g, alone)
		}
	}
	if globals(small)[0] == alone {
		t.Error("the small one alone has the scale of the large one")
	}
	mixed := methodtest.NewInput("mixed", "F32", 32, fill(64, 0.3))
	if g := globals(small, mixed); g[0] != g[1] {
		t.Errorf("global scales %v of one group", g)
	}
}

// NVFP4 loses less than MXFP4 on weights without structure, and both less than the grid of 2 bits.
func TestFP4Errors(t *testing.T) {
	t.Parallel()
	in := methodtest.Inputs()[0]
	relative := func(m compress.Method) float64 {
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			t.Fatal(err)
		}
		var lost, power float64
		if err := compress.Encode(t.Context(), m, w, compress.Options{}, func(e *compress.Encoded) error {
			lost, power = compress.Sum(lost, e.Error), compress.Sum(power, e.Power)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return math.Sqrt(lost / power)
	}
	nv, mx := relative(newNVFP4(t)), relative(newMXFP4(t))
	coarse := relative(newRTN(t, quantize.RTNParams{Bits: 2, Symmetric: true, Strategy: compress.StrategyGroup, Group: 32}))
	if !(nv < mx && mx < coarse) || nv < 0.05 || mx > 0.2 {
		t.Errorf("relative errors: nvfp4 %.3f, mxfp4 %.3f, 2 bits %.3f", nv, mx, coarse)
	}
}
