package shard

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// naive gives one element of a linear by the definition of a view.
func naive(t Tensor, data []byte, l Linear, row, col int64) []byte {
	size := t.DType.Size()
	r := l.Row + row*l.RowStep
	shape := t.Shape
	base := int64(0)
	if l.Expert >= 0 {
		shape = shape[1:]
		base = int64(l.Expert) * shape[0] * shape[1]
	}
	at := base + r*shape[1] + col
	if l.Transposed {
		at = base + col*shape[1] + r
	}
	return data[at*size : (at+1)*size]
}

func TestReadRowsViews(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for _, d := range []DType{BF16, F32, F8E5M2, F64} {
		three := testTensor{name: "three", dtype: d, shape: []int64{3, 37, 150}}
		two := testTensor{name: "two", dtype: d, shape: []int64{41, 29}}
		c := checkpoint(t, "", three, two)
		data := map[string][]byte{
			"three": randomData(three, 3*37*150*d.Size()),
			"two":   randomData(two, 41*29*d.Size()),
		}
		for range 200 {
			l := Linear{Name: "x", Tensor: "two", Expert: -1, Role: RoleLinear, Block: -1, Transposed: r.IntN(2) == 0}
			rows, cols := int64(41), int64(29)
			if r.IntN(2) == 0 {
				l.Tensor, l.Expert, rows, cols = "three", r.IntN(3), 37, 150
			}
			if l.Transposed {
				rows, cols = cols, rows
			}
			l.RowStep = 1 + r.Int64N(3)
			l.Row = r.Int64N(rows)
			l.Rows = 1 + r.Int64N((rows-1-l.Row)/l.RowStep+1)
			l.Cols = cols
			row := r.Int64N(l.Rows)
			n := 1 + r.Int64N(l.Rows-row)
			dst := make([]byte, n*cols*d.Size())
			got, err := c.Source().ReadRows(t.Context(), c.Manifest, l, row, int(n), dst)
			if err != nil || got != d {
				t.Fatalf("%+v rows %d+%d: %s, %v", l, row, n, got, err)
			}
			x, _ := c.Manifest.Tensor(l.Tensor)
			for i := range n {
				for j := range cols {
					at := (i*cols + j) * d.Size()
					if want := naive(x, data[l.Tensor], l, row+i, j); !bytes.Equal(dst[at:at+d.Size()], want) {
						t.Fatalf("%+v: element %d, %d is %x, want %x", l, row+i, j, dst[at:at+d.Size()], want)
					}
				}
			}
		}
	}
}

// A transposed tensor whose stored rows are wider than the scratch, and one with more stripes than one.
func TestReadRowsWide(t *testing.T) {
	t.Parallel()
	wide := testTensor{name: "w", dtype: BF16, shape: []int64{3, scratchSize}}
	tall := testTensor{name: "t", dtype: BF16, shape: []int64{scratchSize / 4, 5}}
	c := checkpoint(t, "", wide, tall)
	for _, l := range []Linear{
		{Name: "w", Tensor: "w", Rows: scratchSize, Cols: 3, RowStep: 1, Expert: -1, Transposed: true, Block: -1, Role: RoleOther},
		{Name: "t", Tensor: "t", Rows: 5, Cols: scratchSize / 4, RowStep: 1, Expert: -1, Transposed: true, Block: -1, Role: RoleOther},
	} {
		x, _ := c.Manifest.Tensor(l.Tensor)
		data := randomData(testTensor{name: x.Name, dtype: BF16}, x.Length)
		for _, n := range []int64{1, 3, l.Rows} {
			dst := make([]byte, n*l.Cols*2)
			if _, err := c.Source().ReadRows(t.Context(), c.Manifest, l, l.Rows-n, int(n), dst); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				for j := range l.Cols {
					if at := 2 * (i*l.Cols + j); !bytes.Equal(dst[at:at+2], naive(x, data, l, l.Rows-n+i, j)) {
						t.Fatalf("%s: element %d, %d", l.Name, i, j)
					}
				}
			}
		}
	}
}

// e4m3 decodes by the definition: sign, exponent of bias 7, three bits of mantissa.
func e4m3(b byte) float64 {
	v := float64(b&7) / 8
	switch e := int(b>>3) & 15; {
	case b&0x7f == 0x7f:
		v = math.NaN()
	case e == 0:
		v = math.Ldexp(v, -6)
	default:
		v = math.Ldexp(1+v, e-7)
	}
	if b&0x80 != 0 {
		v = -v
	}
	return v
}

// toBF16 rounds to nearest even by comparing neighbours in float64, where products of a code and a float32 are exact.
func toBF16(v float64) uint16 {
	f := float32(v)
	low := math.Float32bits(f) &^ 0xffff
	high := low + 0x10000
	a, b := float64(math.Float32frombits(low)), float64(math.Float32frombits(high))
	x := float64(f)
	switch {
	case math.Abs(x-a) < math.Abs(b-x), math.Abs(x-a) == math.Abs(b-x) && low>>16&1 == 0:
		return uint16(low >> 16)
	}
	return uint16(high >> 16)
}

func TestReadRowsFP8(t *testing.T) {
	t.Parallel()
	const rows, cols = 21, 45
	r := rand.New(rand.NewPCG(3, 4))
	codes := make([]byte, rows*cols)
	for i := range codes {
		for codes[i] = byte(r.Uint32()); codes[i]&0x7f == 0x7f; codes[i] = byte(r.Uint32()) {
		}
	}
	scaleOf := func(n int) []byte {
		b := make([]byte, 0, 4*n)
		for range n {
			v := math.Float32bits(float32(math.Ldexp(1+r.Float64(), r.IntN(20)-10)))
			b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
		}
		return b
	}
	const ctBlocks = `{"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"group_0":{"weights":{"block_structure":[8,16]}},
		"group_1":{"weights":{"block_structure":null}},"group_2":{"weights":null},"group_3":{"weights":{"block_structure":[8,16]}}}}}`
	tests := []struct {
		name, suffix, config string
		shape                []int64
		block                [2]int64
	}{
		{"blocks of config.json", "weight_scale_inv", `{"quantization_config":{"quant_method":"fp8","weight_block_size":[8,16]}}`, []int64{3, 3}, [2]int64{8, 16}},
		{"blocks of 128", "weight_scale_inv", "", []int64{1, 1}, [2]int64{128, 128}},
		{"per tensor", "weight_scale", "", []int64{}, [2]int64{rows, cols}},
		{"per channel", "weight_scale", "", []int64{rows, 1}, [2]int64{1, cols}},
		{"per channel, one dimension", "weight_scale", "", []int64{rows}, [2]int64{1, cols}},
		{"blocks of a group", "weight_scale", ctBlocks, []int64{3, 3}, [2]int64{8, 16}},
		{"per channel beside blocks", "weight_scale", ctBlocks, []int64{rows, 1}, [2]int64{1, cols}},
		{"per tensor beside blocks", "weight_scale", ctBlocks, []int64{1}, [2]int64{rows, cols}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, _ := elements(tt.shape)
			scales := scaleOf(int(n))
			c := checkpoint(t, tt.config,
				testTensor{"model.layers.0.up_proj." + tt.suffix, F32, tt.shape, scales},
				testTensor{"model.layers.0.up_proj.weight", F8E4M3, []int64{rows, cols}, codes},
				testTensor{"model.layers.0.up_proj.input_scale", F32, []int64{}, scales[:4]})
			if len(c.Manifest.Linears) != 1 || len(c.Manifest.Places) != 1 {
				t.Fatalf("linears %+v, places %+v", c.Manifest.Linears, c.Manifest.Places)
			}
			l := c.Manifest.Linears[0]
			if l.ScaleBlock != tt.block || l.Role != RoleLinear {
				t.Fatalf("linear %+v", l)
			}
			roundTrip(t, c.Manifest)
			if n, err := c.Manifest.RowBytes(l); err != nil || n != 2*cols {
				t.Fatalf("%d bytes a row, %v", n, err)
			}
			for _, span := range [][2]int64{{0, rows}, {0, 1}, {7, 2}, {rows - 1, 1}, {3, 0}} {
				dst := make([]byte, span[1]*cols*2)
				d, err := c.Source().ReadRows(t.Context(), c.Manifest, l, span[0], int(span[1]), dst)
				if err != nil || d != BF16 {
					t.Fatalf("%s, %v", d, err)
				}
				for i := range span[1] {
					for j := range int64(cols) {
						row := span[0] + i
						at := row/tt.block[0]*ceilDiv(cols, tt.block[1]) + j/tt.block[1]
						s := scales[4*at:]
						scale := math.Float32frombits(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
						want := toBF16(float64(float32(e4m3(codes[row*cols+j]) * float64(scale))))
						got := uint16(dst[2*(i*cols+j)]) | uint16(dst[2*(i*cols+j)+1])<<8
						if got != want {
							t.Fatalf("element %d, %d is %04x, want %04x", row, j, got, want)
						}
					}
				}
			}
		})
	}
}

func TestReadRowsRefuses(t *testing.T) {
	t.Parallel()
	c := checkpoint(t, "", bf16("model.layers.0.up_proj.weight", 4, 8))
	good := c.Manifest.Linears[0]
	tests := []struct {
		name   string
		change func(*Linear)
		row    int64
		rows   int
		size   int
		want   error
	}{
		{"all rows", func(*Linear) {}, 0, 4, 64, nil},
		{"row below", func(*Linear) {}, -1, 1, 16, ErrMissing},
		{"row above", func(*Linear) {}, 4, 1, 16, ErrMissing},
		{"row far above", func(*Linear) {}, math.MaxInt64, 1, 16, ErrMissing},
		{"negative count", func(*Linear) {}, 0, -1, 0, ErrMissing},
		{"small buffer", func(*Linear) {}, 0, 1, 15, ErrOrder},
		{"large buffer", func(*Linear) {}, 0, 1, 17, ErrOrder},
		{"other tensor", func(l *Linear) { l.Tensor = "x" }, 0, 1, 16, ErrMissing},
		{"view beyond the tensor", func(l *Linear) { l.Row = 1 }, 0, 1, 16, ErrMalformed},
		{"step beyond the tensor", func(l *Linear) { l.RowStep = math.MaxInt64 }, 0, 1, 16, ErrMalformed},
		{"expert of a matrix", func(l *Linear) { l.Expert = 0 }, 0, 1, 16, ErrMalformed},
		{"columns", func(l *Linear) { l.Cols = 7 }, 0, 1, 14, ErrMalformed},
		{"scale of 16-bit weights", func(l *Linear) { l.Scale, l.ScaleBlock = l.Tensor, [2]int64{1, 1} }, 0, 1, 16, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := good
			tt.change(&l)
			if _, err := c.Source().ReadRows(t.Context(), c.Manifest, l, tt.row, tt.rows, make([]byte, tt.size)); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSlices(t *testing.T) {
	t.Parallel()
	config := []byte(`{"num_attention_heads":4,"num_key_value_heads":2,"hidden_size":32}`)
	l := Linear{Name: "model.layers.0.self_attn.qkv_proj", Rows: 64, Cols: 32, RowStep: 1, Expert: -1}
	parts, err := Slices(l, config)
	if err != nil || fmt.Sprint(parts[0].Rows, parts[1].Rows, parts[1].Row, parts[2].Row, len(parts)) != "32 16 32 48 3" ||
		parts[2].Name != "model.layers.0.self_attn.v_proj" {
		t.Errorf("%+v, %v", parts, err)
	}
	if _, err := Slices(l, []byte(`{"num_attention_heads":4,"hidden_size":32}`)); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v", err)
	}
	if _, err := Slices(l, nil); !errors.Is(err, ErrMissing) {
		t.Errorf("error %v", err)
	}
	l.Name = "mlp.gate_up_proj"
	if parts, err = Slices(l, nil); err != nil || len(parts) != 2 || parts[1].Row != 32 || parts[1].Name != "mlp.up_proj" {
		t.Errorf("%+v, %v", parts, err)
	}
	l.Name = "o_proj"
	if parts, err = Slices(l, nil); err != nil || len(parts) != 1 || parts[0] != l {
		t.Errorf("%+v, %v", parts, err)
	}
}
