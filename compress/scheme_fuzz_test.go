package compress

import (
	"encoding/json"
	"testing"
)

// FuzzScheme reads schemes as files hold them: what passes Validate has components of a sane size, and decoding bytes of that size ends in weights or an error.
func FuzzScheme(f *testing.F) {
	for kind := range parsers() {
		f.Add([]byte(`{"kind":"`+kind+`"}`), uint16(4), uint16(8), []byte{1, 2, 3})
	}
	for _, s := range []string{
		`{"kind":"int","bits":4,"symmetric":true,"strategy":"group","group":8,"scale_dtype":"BF16"}`,
		`{"kind":"int","bits":3,"strategy":"channel","group":8,"scale_dtype":"F32"}`,
		`{"kind":"plain","dtype":"F16"}`,
		`{"kind":"factors","rank":2,"left":{"kind":"plain","dtype":"BF16"},"right":{"kind":"plain","dtype":"F32"}}`,
		`{"kind":"corrected","base":{"kind":"plain","dtype":"F16"},"correction":{"rank":1,"left":{"kind":"plain","dtype":"BF16"},"right":{"kind":"plain","dtype":"F32"}}}`,
	} {
		f.Add([]byte(s), uint16(4), uint16(8), []byte{7})
	}
	f.Fuzz(func(t *testing.T, raw []byte, r, c uint16, data []byte) {
		rows, cols := int(r%64), int(c%256)
		s, err := ParseScheme(raw)
		if err != nil || rows == 0 || s.Validate(int64(rows), int64(cols)) != nil {
			return
		}
		again, err := MarshalScheme(s)
		if err != nil || !json.Valid(again) {
			t.Fatalf("%s: written as %s, %v", raw, again, err)
		}
		e := &Encoded{Rows: rows}
		for _, part := range s.Components(int64(rows), int64(cols)) {
			n := part.PanelBytes(int64(rows))
			if part.Ragged {
				n = int64(len(data))
			}
			if n < 0 || n > 1<<24 {
				t.Fatalf("%s: %s of %d × %d has %d bytes", raw, part.Name, rows, cols, n)
			}
			b := make([]byte, n)
			for i := range b {
				if len(data) > 0 {
					b[i] = data[i%len(data)]
				}
			}
			e.Data = append(e.Data, b)
		}
		_ = s.Decode(make([]float32, rows*cols), cols, e) // an error is fine, a panic is not
	})
}
