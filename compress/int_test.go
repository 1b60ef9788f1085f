package compress_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

func TestIntDecode(t *testing.T) {
	t.Parallel()
	scheme := func(bits int, symmetric bool, strategy string, group int64) compress.Int {
		return compress.Int{Bits: bits, Symmetric: symmetric, Strategy: strategy, Group: group, ScaleDType: "BF16"}
	}
	tests := map[string]struct {
		s    compress.Int
		cols int
		e    compress.Encoded
		want []float32
	}{
		"int4 groups": {
			scheme(4, true, compress.StrategyGroup, 4), 8,
			compress.Encoded{Rows: 1, Data: [][]byte{{0x10, 0x32, 0x54, 0x76}, {0x80, 0x3f, 0x00, 0x40}}},
			[]float32{-8, -7, -6, -5, -8, -6, -4, -2},
		},
		"zero points": {
			scheme(2, false, compress.StrategyChannel, 4), 4,
			compress.Encoded{Rows: 2, Data: [][]byte{{0xe4, 0, 0, 0, 0xe4, 0, 0, 0}, {0x80, 0x3f, 0x00, 0x40}, {1, 3}}},
			[]float32{-1, 0, 1, 2, -6, -4, -2, 0},
		},
		"one scale": {
			scheme(8, true, compress.StrategyTensor, 2), 2,
			compress.Encoded{Row: 5, Rows: 2, Data: [][]byte{{0x81, 0x82, 0, 0, 0x00, 0xff, 0, 0}, {0x00, 0x3f}}},
			[]float32{0.5, 1, -64, 63.5},
		},
		"no rows": {scheme(4, true, compress.StrategyGroup, 4), 8, compress.Encoded{Data: [][]byte{{}, {}}}, []float32{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make([]float32, len(test.want))
			if err := test.s.Decode(got, test.cols, &test.e); err != nil || !slices.Equal(got, test.want) {
				t.Errorf("decoded %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestIntDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s *compress.Int, e *compress.Encoded, cols *int){
		"bits":          func(s *compress.Int, _ *compress.Encoded, _ *int) { s.Bits = 9 },
		"negative bits": func(s *compress.Int, _ *compress.Encoded, _ *int) { s.Bits = -4 },
		"strategy":      func(s *compress.Int, _ *compress.Encoded, _ *int) { s.Strategy = "block" },
		"group":         func(s *compress.Int, _ *compress.Encoded, _ *int) { s.Group = 3 },
		"no group":      func(s *compress.Int, _ *compress.Encoded, _ *int) { s.Group = 0 },
		"channel":       func(s *compress.Int, _ *compress.Encoded, _ *int) { s.Strategy = compress.StrategyChannel },
		"scale dtype":   func(s *compress.Int, _ *compress.Encoded, _ *int) { s.ScaleDType = "I8" },
		"unknown dtype": func(s *compress.Int, _ *compress.Encoded, _ *int) { s.ScaleDType = "" },
		"columns":       func(_ *compress.Int, _ *compress.Encoded, cols *int) { *cols = 0 },
		"more rows":     func(_ *compress.Int, e *compress.Encoded, _ *int) { e.Rows = 2 },
		"negative rows": func(_ *compress.Int, e *compress.Encoded, _ *int) { e.Rows = -1 },
		"no zeros":      func(_ *compress.Int, e *compress.Encoded, _ *int) { e.Data = e.Data[:2] },
		"short codes":   func(_ *compress.Int, e *compress.Encoded, _ *int) { e.Data[0] = e.Data[0][1:] },
		"long scales":   func(_ *compress.Int, e *compress.Encoded, _ *int) { e.Data[1] = append(e.Data[1], 0) },
		"zero point":    func(_ *compress.Int, e *compress.Encoded, _ *int) { e.Data[2][1] = 16 },
	} {
		s := compress.Int{Bits: 4, Strategy: compress.StrategyGroup, Group: 4, ScaleDType: "F16"}
		e := compress.Encoded{Rows: 1, Data: [][]byte{make([]byte, 4), make([]byte, 4), make([]byte, 2)}}
		cols, dst := 8, make([]float32, 8)
		if err := s.Decode(dst, cols, &e); err != nil {
			t.Fatal(err)
		}
		change(&s, &e, &cols)
		if err := s.Decode(dst, cols, &e); err == nil || name != "more rows" && name != "negative rows" && !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestComponents(t *testing.T) {
	t.Parallel()
	s := compress.Int{Bits: 3, Strategy: compress.StrategyTensor, Group: 33, ScaleDType: "F32"}
	want := []compress.Component{
		{Name: "codes", DType: "U8", Shape: []int64{5, 16}},
		{Name: "scales", DType: "F32", Shape: []int64{1}, Whole: true},
		{Name: "zeros", DType: "U8", Shape: []int64{1}, Whole: true},
	}
	got := s.Components(5, 33)
	for i, c := range got {
		if c.Name != want[i].Name || c.DType != want[i].DType || !slices.Equal(c.Shape, want[i].Shape) || c.Whole != want[i].Whole {
			t.Errorf("component %+v, want %+v", c, want[i])
		}
	}
	if l := (compress.Layout{Components: got}); l.Bytes() != 5*16+4+1 || got[0].RowBytes() != 16 || got[1].RowBytes() != 0 {
		t.Errorf("sizes %d, %d and %d", l.Bytes(), got[0].RowBytes(), got[1].RowBytes())
	}
}
