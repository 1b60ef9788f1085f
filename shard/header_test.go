package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestParseHeader(t *testing.T) {
	t.Parallel()
	const one = `{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}`
	tests := []struct {
		name   string
		header string
		data   int
		want   error
		says   string // part of the error
	}{
		{name: "one tensor", header: one, data: 8},
		{name: "no tensor", header: `{}`},
		{name: "metadata", header: `{"__metadata__":{"format":"pt"}}`},
		{name: "scalar", header: `{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`, data: 4},
		{name: "empty tensors anywhere", header: `{"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},` +
			`"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},"z":{"dtype":"F64","shape":[3,0],"data_offsets":[5,5]}}`, data: 5},
		{name: "order of members is free", header: `{"a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}`, data: 4},
		{name: "escaped name", header: `{"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, data: 1},
		{name: "truncated data", header: one, data: 7, want: ErrMalformed, says: "truncated"},
		{name: "trailing data", header: one, data: 9, want: ErrMalformed, says: "1 bytes after the last tensor"},
		{name: "same name twice", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`,
			data: 2, want: ErrDuplicate, says: `"a"`},
		{name: "same name twice, escaped", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`,
			data: 2, want: ErrDuplicate, says: `"a"`},
		{name: "same member twice", header: `{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, data: 1, want: ErrDuplicate},
		{name: "same metadata twice", header: `{"__metadata__":{"x":"1","x":"2"}}`, want: ErrDuplicate},
		{name: "overlap", header: `{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}`,
			data: 6, want: ErrMalformed, says: `overlaps "a"`},
		{name: "same bytes twice", header: `{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
			data: 4, want: ErrMalformed, says: "overlaps"},
		{name: "gap", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`,
			data: 3, want: ErrMalformed, says: "gap"},
		{name: "huge offset", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]}}`,
			data: 1, want: ErrMalformed, says: `"a"`},
		{name: "offset beyond 63 bits", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551616]}}`, data: 1, want: ErrMalformed, says: "63 bits"},
		{name: "offsets swapped", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, data: 1, want: ErrMalformed, says: "before it begins"},
		{name: "lying shape", header: `{"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,8]}}`, data: 8, want: ErrMalformed, says: "takes 6 bytes"},
		{name: "shape that wraps to the right size", header: `{"a":{"dtype":"BF16","shape":[4294967296,4294967297],"data_offsets":[0,8]}}`,
			data: 8, want: ErrMalformed, says: "too large"},
		{name: "huge empty shape", header: `{"a":{"dtype":"U8","shape":[9223372036854775807,9223372036854775807,0],"data_offsets":[0,0]}}`, want: ErrMalformed, says: "too large"},
		{name: "negative dimension", header: `{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "fractional dimension", header: `{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "exponent", header: `{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "leading zero", header: `{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "too many dimensions", header: `{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "unknown type", header: `{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}`, data: 1, want: ErrUnsupported, says: `"F4"`},
		{name: "unknown member", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0}}`, data: 1, want: ErrMalformed, says: `"x"`},
		{name: "no shape", header: `{"a":{"dtype":"U8","data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "three offsets", header: `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, data: 1, want: ErrMalformed},
		{name: "metadata is no text", header: `{"__metadata__":{"x":1}}`, want: ErrMalformed},
		{name: "empty name", header: `{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "control character in a name", header: `{"a\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "long name", header: `{"` + strings.Repeat("a", maxName+1) + `":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, data: 1, want: ErrMalformed},
		{name: "not UTF-8", header: "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", data: 1, want: ErrMalformed, says: "UTF-8"},
		{name: "text after the object", header: `{}{}`, want: ErrMalformed},
		{name: "array", header: `[]`, want: ErrMalformed},
		{name: "cut text", header: `{"a":{"dty`, want: ErrMalformed},
		{name: "deep", header: strings.Repeat(`{"a":`, 100), want: ErrMalformed},
		{name: "nothing", header: ``, want: ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := withLength([]byte(tt.header), make([]byte, tt.data))
			h, err := ReadHeader(bytes.NewReader(b), "x.safetensors", int64(len(b)))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "x.safetensors") || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %q must name the file and say %q", err, tt.says)
				}
				return
			}
			total := int64(0)
			for _, x := range h.Tensors {
				total += x.Length
			}
			if total != int64(tt.data) || h.Length != int64(len(b)-tt.data) || len(h.Digest) != 64 {
				t.Errorf("header %+v of %d data bytes", h, tt.data)
			}
		})
	}
}

func TestReadHeaderLength(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		file []byte
	}{
		{"empty file", nil},
		{"seven bytes", make([]byte, 7)},
		{"longer than the file", append(binary.LittleEndian.AppendUint64(nil, 3), "{}"...)},
		{"above the limit", append(binary.LittleEndian.AppendUint64(nil, MaxHeader+1), "{}"...)},
		{"all bits", append(binary.LittleEndian.AppendUint64(nil, ^uint64(0)), "{}"...)},
		{"sign bit", append(binary.LittleEndian.AppendUint64(nil, 1<<63), "{}"...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := ReadHeader(bytes.NewReader(tt.file), "x.safetensors", int64(len(tt.file))); !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v", err)
			}
		})
	}
	// The limit holds before anything is allocated or read: the file claims a size that nobody has.
	if _, err := ReadHeader(bytes.NewReader(binary.LittleEndian.AppendUint64(nil, 1<<40)), "x", 1<<50); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte(`{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"}}`), int64(8))
	f.Add([]byte(`{"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`), int64(4))
	f.Add([]byte(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,9223372036854775807]}}`), int64(1)<<62)
	f.Fuzz(func(t *testing.T, header []byte, data int64) {
		if data < 0 || data > 1<<62 {
			return
		}
		b := withLength(header, nil)
		size := int64(len(b)) + data
		h, err := ParseHeader(b, "x", size)
		if err != nil {
			return
		}
		// An accepted header covers the data exactly once.
		end, seen := h.Length, map[string]bool{}
		for _, x := range h.Tensors {
			n, ok := elements(x.Shape)
			if !ok || n*x.DType.Size() != x.Length || x.Offset != end || seen[x.Name] {
				t.Fatalf("tensor %+v after %d", x, end)
			}
			seen[x.Name] = true
			end += x.Length
		}
		if end != size {
			t.Fatalf("tensors end at %d of %d", end, size)
		}
	})
}
