package compress_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

func TestFP4Schemes(t *testing.T) {
	t.Parallel()
	for _, s := range []compress.Scheme{compress.MXFP4{}, compress.NVFP4{}} {
		raw, err := compress.MarshalScheme(s)
		if err != nil || string(raw) != `{"kind":"`+s.Kind()+`"}` {
			t.Errorf("written as %s, error %v", raw, err)
		}
		got, err := compress.ParseScheme(raw)
		if err != nil || got != s {
			t.Errorf("%s: read as %+v, error %v", raw, got, err)
		}
		if _, err := compress.ParseScheme(json.RawMessage(`{"kind":"` + s.Kind() + `","group":32}`)); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s with a group: error %v", s.Kind(), err)
		}
		for _, cols := range []int64{0, 8, 40} {
			if err := s.Validate(1, cols); !errors.Is(err, compress.ErrInvalid) {
				t.Errorf("%s of %d columns: error %v", s.Kind(), cols, err)
			}
		}
	}
}

func TestFP4Decode(t *testing.T) {
	t.Parallel()
	codes := []byte{0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0x7f}
	want := []float32{0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6}
	global := []byte{0, 0, 0x80, 0x3f} // 1
	for name, c := range map[string]struct {
		scheme compress.Scheme
		data   [][]byte
		scales []float32 // of the first weights and of the last two
	}{
		"mxfp4":          {compress.MXFP4{}, [][]byte{codes, {128}}, []float32{2, 2}},
		"mxfp4 smallest": {compress.MXFP4{}, [][]byte{codes, {0}}, []float32{0x1p-127, 0x1p-127}},
		"nvfp4":          {compress.NVFP4{}, [][]byte{codes, {0x38, 0x01}, global}, []float32{1, 0x1p-9}},
		"nvfp4 global":   {compress.NVFP4{}, [][]byte{codes, {0x38, 0x20}, {0, 0, 0x40, 0x40}}, []float32{1.0 / 3, 0.125 / 3}},
	} {
		dst := make([]float32, 32)
		if err := c.scheme.Decode(dst, 32, &compress.Encoded{Rows: 1, Data: c.data}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i, v := range want {
			if dst[i] != v*c.scales[0] {
				t.Errorf("%s: weight %d is %v, want %v", name, i, dst[i], v*c.scales[0])
			}
		}
		if dst[30] != -6*c.scales[1] || dst[31] != 6*c.scales[1] {
			t.Errorf("%s: last weights %v, want ∓6 × %v", name, dst[30:], c.scales[1])
		}
	}
	for name, c := range map[string]struct {
		scheme compress.Scheme
		data   [][]byte
	}{
		"mxfp4 scale":     {compress.MXFP4{}, [][]byte{codes, {255}}},
		"mxfp4 codes":     {compress.MXFP4{}, [][]byte{codes[1:], {1}}},
		"mxfp4 parts":     {compress.MXFP4{}, [][]byte{codes}},
		"nvfp4 scale":     {compress.NVFP4{}, [][]byte{codes, {1, 0x7f}, global}},
		"nvfp4 negative":  {compress.NVFP4{}, [][]byte{codes, {1, 0xff}, global}},
		"nvfp4 scales":    {compress.NVFP4{}, [][]byte{codes, {1}, global}},
		"nvfp4 no global": {compress.NVFP4{}, [][]byte{codes, {1, 1}, {0, 0, 0, 0}}},
		"nvfp4 infinite":  {compress.NVFP4{}, [][]byte{codes, {1, 1}, {0, 0, 0x80, 0x7f}}},
		"nvfp4 NaN":       {compress.NVFP4{}, [][]byte{codes, {1, 1}, {1, 0, 0x80, 0x7f}}},
		"nvfp4 below 0":   {compress.NVFP4{}, [][]byte{codes, {1, 1}, {0, 0, 0x80, 0xbf}}},
	} {
		if err := c.scheme.Decode(make([]float32, 32), 32, &compress.Encoded{Rows: 1, Data: c.data}); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Whatever a file says, decoding it ends in numbers or in an error.
func FuzzFP4(f *testing.F) {
	f.Add([]byte(`{"kind":"mxfp4"}`), []byte("any codes"), []byte{1, 2, 255}, []byte{}, 1, 32)
	f.Add([]byte(`{"kind":"nvfp4"}`), make([]byte, 16), []byte{1, 0x7f, 3, 4}, []byte{0, 0, 0x80, 0x3f}, 2, 16)
	f.Add([]byte(`{"kind":"nvfp4","x":1}`), []byte{}, []byte{}, []byte{}, -1, 0)
	f.Fuzz(func(t *testing.T, scheme, codes, scales, global []byte, rows, cols int) {
		s, err := compress.ParseScheme(scheme)
		if err != nil {
			return
		}
		if s.Kind() != compress.KindMXFP4 && s.Kind() != compress.KindNVFP4 {
			return
		}
		e := compress.Encoded{Rows: rows, Data: [][]byte{codes, scales}}
		if s.Kind() == compress.KindNVFP4 {
			e.Data = append(e.Data, global)
		}
		dst := make([]float32, 1<<12)
		if s.Decode(dst, cols, &e) != nil {
			return
		}
		for _, v := range dst[:rows*cols] {
			if math.IsNaN(float64(v)) {
				t.Fatal("decodes to something that is no number")
			}
		}
	})
}
