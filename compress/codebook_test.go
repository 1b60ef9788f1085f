package compress_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/shardpress/shardpress/compress"
)

// FuzzTableSchemes decodes components that a file may hold, under schemes that it may name: an error or numbers, never a panic.
func FuzzTableSchemes(f *testing.F) {
	f.Add([]byte(`{"kind":"codebook","table":"nf4","block":64,"nested":true,"dtype":"BF16"}`), int64(2), 2, 48, []byte{1, 2, 3})
	f.Add([]byte(`{"kind":"codebook","table":"fp4","block":32,"nested":false,"dtype":"F32"}`), int64(0), 3, 33, []byte{0xff})
	f.Add([]byte(`{"kind":"llmint8"}`), int64(0), 2, 5, []byte{0x80})
	f.Fuzz(func(t *testing.T, raw []byte, row int64, rows, cols int, fill []byte) {
		s, err := compress.ParseScheme(raw)
		if err != nil {
			if !errors.Is(err, compress.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := compress.MarshalScheme(s)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := compress.ParseScheme(again); err != nil || same != s {
			t.Fatalf("%s reads as %v, %v", again, same, err)
		}
		rows, cols = rows%64, cols%512
		e := &compress.Encoded{Row: row, Rows: rows, Data: [][]byte{fill, fill}}
		dst := make([]float32, max(rows*cols, 0))
		_ = s.Decode(dst, cols, e) // whatever it says
		if s.Validate(int64(rows), int64(cols)) != nil || rows < 1 {
			return
		}
		e.Row, e.Data = 0, nil
		for _, c := range s.Components(int64(rows), int64(cols)) {
			b := make([]byte, c.Bytes())
			for i := range b {
				if len(fill) > 0 {
					b[i] = fill[i%len(fill)]
				}
			}
			e.Data = append(e.Data, b)
		}
		if err := s.Decode(dst, cols, e); err != nil {
			t.Fatal(err)
		}
		e.Row = row
		_ = s.Decode(dst, cols, e)
		if r, ok := s.(compress.RaggedScheme); ok {
			for i, c := range s.Components(int64(rows), int64(cols)) {
				if n, err := r.RaggedBytes(i, cols, e); c.Ragged && (err != nil || n != c.Bytes()) {
					t.Fatalf("component %s: %d bytes, %v", c.Name, n, err)
				}
			}
		}
	})
}

func TestCodebookRefuses(t *testing.T) {
	t.Parallel()
	good := compress.Codebook{Table: compress.TableNF4, Block: 64, Nested: true, DType: "BF16"}
	for name, c := range map[string]struct {
		s          compress.Codebook
		rows, cols int64
	}{
		"table":    {compress.Codebook{Table: "af4", Block: 64, DType: "BF16"}, 1, 64},
		"block":    {compress.Codebook{Table: "nf4", Block: 96, DType: "BF16"}, 1, 64},
		"dtype":    {compress.Codebook{Table: "nf4", Block: 64, DType: "I8"}, 1, 64},
		"no rows":  {good, 0, 64},
		"no cols":  {good, 1, 0},
		"overflow": {good, math.MaxInt64 / 4, 64},
	} {
		if err := c.s.Validate(c.rows, c.cols); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	e := &compress.Encoded{Row: 256 * 64, Rows: 1, Data: [][]byte{make([]byte, 32), {0}, make([]byte, 64), make([]byte, 4), make([]byte, 1024), make([]byte, 4)}}
	if err := good.Decode(make([]float32, 64), 64, e); !errors.Is(err, compress.ErrInvalid) { // its run 16384 has no scale of scales
		t.Errorf("error %v", err)
	}
	e.Row = 0
	if err := good.Decode(make([]float32, 64), 64, e); err != nil {
		t.Error(err)
	}
	if _, err := compress.ParseScheme(json.RawMessage(`{"kind":"codebook","colour":1}`)); !errors.Is(err, compress.ErrInvalid) {
		t.Errorf("unknown member: %v", err)
	}
	for cols, want := range map[int64]int64{64: 1, 128: 1, 96: 2, 33: 64, 172: 16, 1: 64} {
		if got := good.RowUnit(cols); got != want || got*cols%64 != 0 {
			t.Errorf("%d columns: units of %d rows, not %d", cols, got, want)
		}
	}
}
