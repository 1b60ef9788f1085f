package compress_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

func TestSparse(t *testing.T) {
	t.Parallel()
	one := func(dtype string, values ...float32) []byte {
		var b []byte
		for _, v := range values {
			u := math.Float32bits(v)
			if dtype == "F32" {
				b = append(b, byte(u), byte(u>>8))
			}
			b = append(b, byte(u>>16), byte(u>>24))
		}
		return b
	}
	tensor := compress.Sparse{DType: "F32", Pattern: "tensor", Sparsity: 0.4}
	row := compress.Sparse{DType: "BF16", Pattern: "row", Sparsity: 0.5}
	runs := compress.Sparse{DType: "BF16", Pattern: "n:m", N: 1, M: 2}
	for name, test := range map[string]struct {
		s      compress.Scheme
		cols   int
		mask   []byte
		values []byte
		want   []float32
		err    string
	}{
		"tensor":        {s: tensor, cols: 5, mask: []byte{0x16, 0x09}, values: one("F32", 1, 2, 3, 4, 5), want: []float32{0, 1, 2, 0, 3, 4, 0, 0, 5, 0}},
		"tensor, all":   {s: tensor, cols: 2, mask: []byte{3, 3}, values: one("F32", 1, 2, 3, 4), want: []float32{1, 2, 3, 4}},
		"tensor, none":  {s: tensor, cols: 9, mask: []byte{0, 0}, want: make([]float32, 9)},
		"row":           {s: row, cols: 5, mask: []byte{0x07, 0x1c}, values: one("BF16", 1, 2, 3, 4, 5, 6), want: []float32{1, 2, 3, 0, 0, 0, 0, 4, 5, 6}},
		"n of m":        {s: runs, cols: 4, mask: []byte{0x06, 0x09}, values: one("BF16", 1, 2, 3, 4), want: []float32{0, 1, 2, 0, 3, 0, 0, 4}},
		"minus zero":    {s: runs, cols: 2, mask: []byte{0x01}, values: one("BF16", float32(math.Copysign(0, -1))), want: []float32{float32(math.Copysign(0, -1)), 0}},
		"beyond":        {s: tensor, cols: 5, mask: []byte{0x16, 0x29}, values: one("F32", 1, 2, 3, 4, 5, 6), err: "row 1: its mask keeps columns beyond the 5"},
		"too few":       {s: tensor, cols: 5, mask: []byte{0x16, 0x09}, values: one("F32", 1, 2, 3, 4), err: "row 1: its mask keeps 2 weights, and there are values for 1"},
		"too many":      {s: tensor, cols: 5, mask: []byte{0x16, 0x09}, values: one("F32", 1, 2, 3, 4, 5, 6), err: "4 bytes of values are left over"},
		"half a value":  {s: tensor, cols: 5, mask: []byte{0x16, 0x09}, values: make([]byte, 22), err: "2 bytes of values are left over"},
		"uneven rows":   {s: row, cols: 5, mask: []byte{0x03, 0x1e}, values: make([]byte, 12), err: "row 0: its mask keeps 2 weights, not 3"},
		"uneven runs":   {s: runs, cols: 4, mask: []byte{0x09, 0x03}, values: make([]byte, 8), err: "row 1: its mask keeps 2 of the 2 columns from 0, not 1"},
		"short mask":    {s: runs, cols: 4, mask: []byte{0x09}, values: make([]byte, 8), err: "mask hold 1 bytes, not 2"},
		"short values":  {s: runs, cols: 4, mask: []byte{0x09, 0x09}, values: make([]byte, 6), err: "values hold 6 bytes, not 8"},
		"runs too long": {s: runs, cols: 5, mask: []byte{0, 0}, err: "runs of 2 columns do not divide 5"},
	} {
		rows := 2
		if len(test.want) > 0 {
			rows = len(test.want) / test.cols
		}
		dst := make([]float32, rows*test.cols)
		for i := range dst {
			dst[i] = 77
		}
		e := &compress.Encoded{Rows: rows, Data: [][]byte{test.mask, test.values}}
		err := test.s.Decode(dst, test.cols, e)
		if test.err != "" {
			if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v, want %q", name, err, test.err)
			}
			continue
		}
		same := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
		if err != nil || !slices.EqualFunc(dst, test.want, same) {
			t.Errorf("%s: %v, %v", name, dst, err)
		}
		if r := test.s.(compress.RaggedScheme); test.s == compress.Scheme(tensor) {
			if n, err := r.RaggedBytes(1, test.cols, e); err != nil || n != int64(len(test.values)) {
				t.Errorf("%s: %d bytes of values, %v", name, n, err)
			}
		}
	}
}

func TestSparseScheme(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"kind":"sparse","dtype":"BF16","pattern":"tensor","sparsity":0.5}`:  "",
		`{"kind":"sparse","dtype":"F16","pattern":"row"}`:                     "",
		`{"kind":"sparse","dtype":"F32","pattern":"n:m","n":2,"m":4}`:         "",
		`{"kind":"sparse","dtype":"F64","pattern":"tensor","sparsity":0.5}`:   `values are "F64"`,
		`{"kind":"sparse","pattern":"tensor","sparsity":0.5}`:                 `values are ""`,
		`{"kind":"sparse","dtype":"BF16","pattern":"tensor","sparsity":1.5}`:  "sparsity is 1.5",
		`{"kind":"sparse","dtype":"BF16","pattern":"tensor","sparsity":-0.1}`: "sparsity is -0.1",
		`{"kind":"sparse","dtype":"BF16","pattern":"column"}`:                 `pattern "column" is not known`,
		`{"kind":"sparse","dtype":"BF16","pattern":"n:m","n":5,"m":4}`:        "5 of 4 columns",
		`{"kind":"sparse","dtype":"BF16","pattern":"n:m","n":0,"m":4}`:        "0 of 4 columns",
		`{"kind":"sparse","dtype":"BF16","pattern":"n:m","n":1,"m":3}`:        "runs of 3 columns do not divide 8",
		`{"kind":"sparse","dtype":"BF16","pattern":"n:m","n":64,"m":128}`:     "64 of 128 columns",
		`{"kind":"sparse","dtype":"BF16","pattern":"row","n":1,"m":2}`:        "pattern row with 1 of 2 columns",
	} {
		s, err := compress.ParseScheme(json.RawMessage(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		err = s.Validate(2, 8)
		if want == "" {
			again, merr := compress.MarshalScheme(s)
			if err != nil || merr != nil || string(again) != text {
				t.Errorf("%s: %v, written again as %s, %v", text, err, again, merr)
			}
		} else if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	for _, test := range []struct {
		sparsity float64
		n, want  int64
	}{{0.5, 7, 3}, {0, 9, 0}, {1, 9, 9}, {0.29, 100, 28}, {0.6, 5, 3}, {1e-300, 1 << 52, 0}, {1, 1 << 52, 1 << 52}} {
		if got := compress.PrunedCount(test.sparsity, test.n); got != test.want {
			t.Errorf("%v of %d weights are %d, want %d", test.sparsity, test.n, got, test.want)
		}
	}
}

// FuzzSparse decodes hostile schemes and components: no panic, and what is decoded agrees with the mask.
func FuzzSparse(f *testing.F) {
	f.Add(`{"kind":"sparse","dtype":"BF16","pattern":"tensor","sparsity":0.5}`, 9, 2, []byte{1, 0, 2, 1}, []byte{0, 1, 2, 3, 4, 5})
	f.Add(`{"kind":"sparse","dtype":"F32","pattern":"row","sparsity":0.5}`, 8, 1, []byte{0x55}, make([]byte, 16))
	f.Add(`{"kind":"sparse","dtype":"F16","pattern":"n:m","n":2,"m":4}`, 8, 1, []byte{0x33}, make([]byte, 8))
	f.Fuzz(func(t *testing.T, text string, cols, rows int, mask, values []byte) {
		parsed, err := compress.ParseScheme(json.RawMessage(text))
		s, ok := parsed.(compress.Sparse)
		if err != nil || !ok || cols > 1<<10 || rows > 1<<10 || rows < 0 {
			return
		}
		e := &compress.Encoded{Rows: rows, Data: [][]byte{mask, values}}
		n, rerr := s.RaggedBytes(1, cols, e)
		if rerr == nil && (n < 0 || n > 4*int64(len(mask))*8) {
			t.Errorf("%d bytes of values for a mask of %d bytes", n, len(mask))
		}
		dst := make([]float32, max(cols, 0)*max(rows, 0))
		if err := s.Decode(dst, cols, e); err != nil {
			if !errors.Is(err, compress.ErrInvalid) {
				t.Errorf("%v is not ErrInvalid", err)
			}
			return
		}
		if s.Pattern == "tensor" && (rerr != nil || n != int64(len(values))) {
			t.Errorf("%d bytes of values were taken for %d, %v", len(values), n, rerr)
		}
		for i, v := range dst {
			if mask[i/cols*((cols+7)/8)+i%cols/8]>>(i%cols%8)&1 == 0 && v != 0 {
				t.Fatalf("weight %d is pruned and decodes to %v", i, v)
			}
		}
	})
}
