package compress_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

func TestFloatDecode(t *testing.T) {
	t.Parallel()
	block := compress.Float{Element: "F8_E4M3", Strategy: compress.StrategyBlock, BlockRows: 2, BlockCols: 2, ScaleDType: "BF16"}
	one, two, half := []byte{0x80, 0x3f}, []byte{0x00, 0x40}, []byte{0x00, 0x3f}
	for name, test := range map[string]struct {
		s    compress.Scheme
		cols int
		e    compress.Encoded
		want []float32
	}{
		"channel": {
			compress.Float{Element: "F8_E4M3", Strategy: compress.StrategyChannel, ScaleDType: "BF16"}, 2,
			compress.Encoded{Rows: 2, Data: [][]byte{{0x38, 0xb8, 0x7e, 0x01}, slices.Concat(two, half)}}, []float32{2, -2, 224, 0x1p-10},
		},
		"tensor": {
			compress.Float{Element: "F8_E5M2", Strategy: compress.StrategyTensor, ScaleDType: "F32"}, 2,
			compress.Encoded{Row: 7, Rows: 2, Data: [][]byte{{0x3c, 0xbc, 0x7b, 0x01}, {0, 0, 0, 0x40}}}, []float32{2, -2, 114688, 0x1p-15},
		},
		"a lower last tile": {
			block, 4,
			compress.Encoded{Rows: 3, Data: [][]byte{{0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38}, slices.Concat(one, two, half, one)}},
			[]float32{1, 1, 2, 2, 1, 1, 2, 2, 0.5, 0.5, 1, 1},
		},
		"no rows": {block, 4, compress.Encoded{Data: [][]byte{{}, {}}}, []float32{}},
		"mxfp8": {
			compress.MXFP8{}, 32,
			compress.Encoded{Rows: 2, Data: [][]byte{slices.Repeat([]byte{0x38}, 64), {127, 0}}},
			slices.Concat(slices.Repeat([]float32{1}, 32), slices.Repeat([]float32{0x1p-127}, 32)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make([]float32, len(test.want))
			if err := test.s.Decode(got, test.cols, &test.e); err != nil || !slices.Equal(got, test.want) {
				t.Errorf("decoded %v, %v, want %v", got, err, test.want)
			}
			raw, err := compress.MarshalScheme(test.s)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := compress.ParseScheme(raw); err != nil || again != test.s {
				t.Errorf("%s reads as %+v, %v", raw, again, err)
			}
		})
	}
}

func TestFloatDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s *compress.Float, e *compress.Encoded, cols *int){
		"element":       func(s *compress.Float, _ *compress.Encoded, _ *int) { s.Element = "F8_E8M0" },
		"no element":    func(s *compress.Float, _ *compress.Encoded, _ *int) { s.Element = "" },
		"strategy":      func(s *compress.Float, _ *compress.Encoded, _ *int) { s.Strategy = "group" },
		"no rows":       func(s *compress.Float, _ *compress.Encoded, _ *int) { s.BlockRows = 0 },
		"tall":          func(s *compress.Float, _ *compress.Encoded, _ *int) { s.BlockRows = 1 << 40 },
		"no columns":    func(s *compress.Float, _ *compress.Encoded, _ *int) { s.BlockCols = 0 },
		"negative":      func(s *compress.Float, _ *compress.Encoded, _ *int) { s.BlockCols = -4 },
		"block":         func(s *compress.Float, _ *compress.Encoded, _ *int) { s.BlockCols = 3 },
		"channel":       func(s *compress.Float, _ *compress.Encoded, _ *int) { s.Strategy = compress.StrategyChannel },
		"scale dtype":   func(s *compress.Float, _ *compress.Encoded, _ *int) { s.ScaleDType = "U8" },
		"unknown dtype": func(s *compress.Float, _ *compress.Encoded, _ *int) { s.ScaleDType = "" },
		"columns":       func(_ *compress.Float, _ *compress.Encoded, cols *int) { *cols = 0 },
		"more rows":     func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Rows = 3 },
		"negative rows": func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Rows = -1 },
		"no scales":     func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Data = e.Data[:1] },
		"short codes":   func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Data[0] = e.Data[0][1:] },
		"long scales":   func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Data[1] = append(e.Data[1], 0) },
		"code":          func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Data[0][5] = 0xff },
		"scale":         func(_ *compress.Float, e *compress.Encoded, _ *int) { e.Data[1][3] = 0x7c },
	} {
		s := compress.Float{Element: "F8_E4M3", Strategy: compress.StrategyBlock, BlockRows: 2, BlockCols: 4, ScaleDType: "F16"}
		e := compress.Encoded{Rows: 2, Data: [][]byte{make([]byte, 16), make([]byte, 4)}}
		cols, dst := 8, make([]float32, 16)
		if err := s.Decode(dst, cols, &e); err != nil {
			t.Fatal(err)
		}
		change(&s, &e, &cols)
		if err := s.Decode(dst, cols, &e); err == nil || name != "more rows" && name != "negative rows" && !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	e := compress.Encoded{Rows: 1, Data: [][]byte{make([]byte, 32), {255}}}
	if err := (compress.MXFP8{}).Decode(make([]float32, 32), 32, &e); !errors.Is(err, compress.ErrInvalid) {
		t.Errorf("scale that is no number: %v", err)
	}
	if err := (compress.MXFP8{}).Validate(1, 48); !errors.Is(err, compress.ErrInvalid) {
		t.Errorf("48 columns: %v", err)
	}
}

// FuzzFloatDecode gives schemes of floats, and components of sizes that need not fit them.
func FuzzFloatDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"float","element":"F8_E4M3","strategy":"block","block_rows":2,"block_cols":2,"scale_dtype":"BF16"}`), 3, 4, make([]byte, 12), make([]byte, 8))
	f.Add([]byte(`{"kind":"float","element":"F8_E5M2","strategy":"tensor","scale_dtype":"F32"}`), 2, 3, []byte{1, 2, 3, 4, 5, 0x7c}, make([]byte, 4))
	f.Add([]byte(`{"kind":"mxfp8"}`), 1, 32, make([]byte, 32), []byte{255})
	f.Fuzz(func(t *testing.T, scheme []byte, rows, cols int, codes, scales []byte) {
		s, err := compress.ParseScheme(json.RawMessage(scheme))
		if err != nil {
			if !errors.Is(err, compress.ErrInvalid) {
				t.Fatalf("%s: %v", scheme, err)
			}
			return
		}
		if rows < 0 || cols < 0 || rows > 1<<12 || cols > 1<<12 || rows*cols > 1<<16 {
			return
		}
		_ = s.Decode(make([]float32, rows*cols), cols, &compress.Encoded{Rows: rows, Data: [][]byte{codes, scales}})
	})
}
