package shard

import (
	"errors"
	"slices"
	"testing"
)

func TestParseIndex(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       error
		total      int64
		files      []string
	}{
		{"plain", `{"metadata":{"total_size":12},"weight_map":{"b":"2.safetensors","a":"1.safetensors","c":"1.safetensors"}}`, nil, 12,
			[]string{"1.safetensors", "2.safetensors"}},
		{"size as a float", `{"metadata":{"total_size":12.0},"weight_map":{"a":"1"}}`, nil, -1, []string{"1"}},
		{"no metadata", `{"weight_map":{"a":"1"}}`, nil, -1, []string{"1"}},
		{"other members", `{"metadata":null,"x":[{"y":1}],"weight_map":{"a":"1"}}`, nil, -1, []string{"1"}},
		{"tensor twice", `{"weight_map":{"a":"1","a":"2"}}`, ErrDuplicate, 0, nil},
		{"map twice", `{"weight_map":{"a":"1"},"weight_map":{"a":"2"}}`, ErrDuplicate, 0, nil},
		{"no map", `{"metadata":{}}`, ErrMalformed, 0, nil},
		{"empty map", `{"weight_map":{}}`, ErrMalformed, 0, nil},
		{"path", `{"weight_map":{"a":"x/1"}}`, ErrMalformed, 0, nil},
		{"absolute path", `{"weight_map":{"a":"/1"}}`, ErrMalformed, 0, nil},
		{"other separator", `{"weight_map":{"a":"x\\1"}}`, ErrMalformed, 0, nil},
		{"parent", `{"weight_map":{"a":".."}}`, ErrMalformed, 0, nil},
		{"no file name", `{"weight_map":{"a":""}}`, ErrMalformed, 0, nil},
		{"number", `{"weight_map":{"a":1}}`, ErrMalformed, 0, nil},
		{"list", `[]`, ErrMalformed, 0, nil},
		{"more text", `{"weight_map":{"a":"1"}} x`, ErrMalformed, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x, err := ParseIndex([]byte(tt.text), IndexName)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && (x.TotalSize != tt.total || !slices.Equal(x.Files(), tt.files)) {
				t.Errorf("%+v", x)
			}
		})
	}
}

func TestMarshalIndex(t *testing.T) {
	t.Parallel()
	b, err := MarshalIndex(map[string]string{"b<": "2", "a": "1"}, 7)
	want := "{\n  \"metadata\": {\n    \"total_size\": 7\n  },\n  \"weight_map\": {\n    \"a\": \"1\",\n    \"b<\": \"2\"\n  }\n}\n"
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":12},"weight_map":{"b":"2.safetensors","a":"1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../1"},"x":[[[{"y":null}]]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseIndex(b, "x")
		if err != nil {
			return
		}
		m := map[string]string{}
		for _, e := range x.Entries {
			if _, ok := m[e.Tensor]; ok || fileNameProblem(e.File) != "" {
				t.Fatalf("entry %+v", e)
			}
			m[e.Tensor] = e.File
		}
		again, err := MarshalIndex(m, 0)
		if err != nil {
			t.Fatal(err)
		}
		y, err := ParseIndex(again, "y")
		if err != nil || len(y.Entries) != len(x.Entries) {
			t.Fatalf("%v after writing it", err)
		}
	})
}
