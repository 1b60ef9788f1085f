package compress_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

// The schemes whose scales and zero points are floats: affine, binary, pairs.
func TestShortFloatDecode(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		s    compress.Scheme
		cols int
		e    compress.Encoded
		want []float32
	}{
		"affine": {
			// Codes -8, -7, 0, 7 over scale 2 and zero point -0.5, then 0.5 and 1.
			compress.Affine{Bits: 4, Group: 4, ScaleDType: "BF16", ZeroDType: "F16"}, 8,
			compress.Encoded{Rows: 1, Data: [][]byte{{0x10, 0xf8, 0x10, 0xf8}, {0x00, 0x40, 0x00, 0x3f}, {0x00, 0xb8, 0x00, 0x3c}}},
			[]float32{-15, -13, 1, 15, -4.5, -4, -0.5, 3},
		},
		"binary": {
			compress.Binary{Bits: 2, Group: 2, ScaleDType: "BF16"}, 4,
			compress.Encoded{Rows: 2, Data: [][]byte{{0x05, 0x03, 0x0f, 0x00}, {0x00, 0x40, 0x80, 0x3f, 0x80, 0x3f, 0x00, 0x3f, 0x00, 0x40, 0x80, 0x3f, 0x80, 0x3f, 0x00, 0x3f}}},
			[]float32{3, -1, 0.5, -1.5, 1, 1, 0.5, 0.5},
		},
		"binary with an offset": {
			compress.Binary{Bits: 1, Group: 3, Offset: true, ScaleDType: "BF16"}, 3,
			compress.Encoded{Rows: 1, Data: [][]byte{{0xfa}, {0x00, 0x40}, {0x80, 0x3f}}}, []float32{-1, 3, -1},
		},
		"pairs": {
			// 3 and -7; 12 and its victim; a victim and -96.
			compress.Pairs{Bits: 4, Group: 6, ScaleDType: "BF16"}, 6,
			compress.Encoded{Rows: 1, Data: [][]byte{{0x93, 0x81, 0xf8, 0}, {0x00, 0x3f}}}, []float32{1.5, -3.5, 6, 0, 0, -48},
		},
		"pairs of 8 bits": {
			compress.Pairs{Bits: 8, Group: 2, ScaleDType: "BF16"}, 4,
			compress.Encoded{Rows: 1, Data: [][]byte{{0x81, 0x7f, 0x01, 0x80}, {0x80, 0x3f, 0x00, 0x40}}}, []float32{-127, 127, 264, 0},
		},
		"no rows": {compress.Pairs{Bits: 8, Group: 2, ScaleDType: "BF16"}, 4, compress.Encoded{Data: [][]byte{{}, {}}}, []float32{}},
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

func TestShortFloatRefuses(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]compress.Scheme{
		"affine: one bit":       compress.Affine{Bits: 1, Group: 4, ScaleDType: "F16", ZeroDType: "F16"},
		"affine: group":         compress.Affine{Bits: 4, Group: 3, ScaleDType: "F16", ZeroDType: "F16"},
		"affine: no group":      compress.Affine{Bits: 4, ScaleDType: "F16", ZeroDType: "F16"},
		"affine: scales":        compress.Affine{Bits: 4, Group: 4, ScaleDType: "U8", ZeroDType: "F16"},
		"affine: zeros":         compress.Affine{Bits: 4, Group: 4, ScaleDType: "F16", ZeroDType: "I32"},
		"affine: no zero type":  compress.Affine{Bits: 4, Group: 4, ScaleDType: "F16"},
		"binary: no bits":       compress.Binary{Group: 4, ScaleDType: "F16"},
		"binary: nine bits":     compress.Binary{Bits: 9, Group: 4, ScaleDType: "F16"},
		"binary: group":         compress.Binary{Bits: 4, Group: -4, ScaleDType: "F16"},
		"binary: scales":        compress.Binary{Bits: 4, Group: 4, ScaleDType: "F8_E4M3"},
		"pairs: five bits":      compress.Pairs{Bits: 5, Group: 4, ScaleDType: "F16"},
		"pairs: group":          compress.Pairs{Bits: 4, Group: 5, ScaleDType: "F16"},
		"pairs: groups of one":  compress.Pairs{Bits: 4, Group: 1, ScaleDType: "F16"},
		"pairs: unknown scales": compress.Pairs{Bits: 4, Group: 4, ScaleDType: "X"},
	} {
		if err := s.Validate(2, 8); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
		if err := s.Decode(make([]float32, 16), 8, &compress.Encoded{Rows: 2}); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: decode: error %v", name, err)
		}
	}
	s := compress.Pairs{Bits: 4, Group: 4, ScaleDType: "F16"}
	for _, codes := range [][]byte{{0x88, 0, 0, 0}, {0x08, 0, 0, 0}, {0x80, 0, 0, 0}} { // two victims; an outlier that means nothing
		err := s.Decode(make([]float32, 4), 4, &compress.Encoded{Rows: 1, Data: [][]byte{codes, {0, 0x3c}}})
		if !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("codes %x: error %v", codes, err)
		}
	}
}

// FuzzShortFloatDecode: no scheme and no components from a file make Decode do more than refuse, or write beyond its rows.
func FuzzShortFloatDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"affine","bits":4,"group":4,"scale_dtype":"BF16","zero_dtype":"F16"}`), 2, 8, []byte{1, 2, 3}, []byte{0x80, 0x3f}, []byte{0, 0x3c})
	f.Add([]byte(`{"kind":"binary","bits":3,"group":4,"offset":true,"scale_dtype":"F32"}`), 2, 8, []byte{0xff}, []byte{0, 0, 0x80, 0x3f}, []byte{0})
	f.Add([]byte(`{"kind":"pairs","bits":4,"group":8,"scale_dtype":"F16"}`), 1, 8, []byte{0x81, 0x11}, []byte{0, 0x3c}, []byte{})
	f.Fuzz(func(t *testing.T, raw []byte, rows, cols int, a, b, c []byte) {
		if rows < 0 || rows > 8 || cols < 0 || cols > 256 {
			return
		}
		s, err := compress.ParseScheme(json.RawMessage(raw))
		if err != nil || s.Validate(int64(rows), int64(cols)) != nil {
			return
		}
		e := compress.Encoded{Rows: rows}
		for i, part := range s.Components(int64(rows), int64(cols)) {
			if i > 2 {
				return
			}
			from, data := [][]byte{a, b, c}[i], make([]byte, part.PanelBytes(int64(rows)))
			for j := range data {
				if len(from) > 0 {
					data[j] = from[j%len(from)]
				}
			}
			e.Data = append(e.Data, data)
		}
		dst := slices.Repeat([]float32{math.MaxFloat32}, rows*cols+1)
		if err := s.Decode(dst, cols, &e); err != nil && !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("error %v", err)
		}
		if dst[rows*cols] != math.MaxFloat32 {
			t.Error("written beyond the rows")
		}
	})
}
