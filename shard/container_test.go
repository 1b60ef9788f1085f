package shard

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestContainer(t *testing.T) {
	t.Parallel()
	m := &Manifest{
		Linears: []Linear{{Name: "a", Rows: 2, Cols: 8}, {Name: "b.c", Rows: 2, Cols: 8}, {Name: "d", Rows: 2, Cols: 8}},
		Tensors: []Tensor{
			{Name: "a.mask", Length: 2}, {Name: "a.values", Length: 16}, {Name: "a.bias", Length: 4}, {Name: "b.c.left.codes", Length: 5}, {Name: "d.weight", Length: 32},
			{Name: "norm.weight", Length: 8},
		},
	}
	one, other := json.RawMessage(`{"kind":"sparse"}`), json.RawMessage(`{"kind":"factors"}`)
	raw, err := QuantizationConfig(m, []QuantizedLinear{
		{Name: "a", Rows: 2, Cols: 8, Format: FormatShardpress, Description: one}, {Name: "b.c", Rows: 2, Cols: 8, Format: FormatShardpress, Description: other},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseContainer("config.json", []byte(`{"quantization_config":`+string(raw)+`}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Container{QuantMethod: "shardpress", Version: 1, Ignore: []string{"d"}, Groups: []ContainerGroup{{one, []string{"a"}}, {other, []string{"b.c"}}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
	if got, want := c.Stored(m), []Stored{{Tensors: 2, Bytes: 18}, {Tensors: 1, Bytes: 5}}; !reflect.DeepEqual(got, want) {
		t.Errorf("stored %+v, want %+v", got, want)
	}
	m.Tensors = m.Tensors[2:]
	if got := c.Stored(m); len(got[0].Missing) != 1 || got[0].Missing[0] != "a" {
		t.Errorf("stored %+v", got)
	}

	for text, want := range map[string]error{
		``:                              nil,
		`{}`:                            nil,
		`{"quantization_config":null}`:  nil,
		`{"quantization_config":[1,2]}`: nil,
		`{"quantization_config":{"quant_method":"fp8"}}`:                                                                                                nil,
		`{"quantization_config":{"quant_method":"shardpress","version":2,"groups":[]}}`:                                                                 ErrUnsupported,
		`{"quantization_config":{"quant_method":"shardpress","version":1,"groups":3}}`:                                                                  ErrMalformed,
		`{"quantization_config":{"quant_method":"shardpress","version":1,"groups":[{"scheme":{},"linears":[]}]}}`:                                       ErrMalformed,
		`{"quantization_config":{"quant_method":"shardpress","version":1,"groups":[{"scheme":7,"linears":["a"]}]}}`:                                     ErrMalformed,
		`{"quantization_config":{"quant_method":"shardpress","version":1,"groups":[{"scheme":{},"linears":["a"]},{"scheme":{"x":1},"linears":["a"]}]}}`: ErrDuplicate,
	} {
		c, err := parseContainer("config.json", []byte(text))
		if c != nil || (want == nil) != (err == nil) || !errors.Is(err, want) {
			t.Errorf("%s: %+v, error %v", text, c, err)
		}
	}
	err = (&Manifest{Model: Model{Quantization: "shardpress"}}).CheckSource()
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "start from the unquantized checkpoint") {
		t.Errorf("a container as a source: %v", err)
	}
}

func FuzzContainer(f *testing.F) {
	f.Add([]byte(`{"quantization_config":{"quant_method":"shardpress","version":1,"groups":[{"scheme":{"kind":"int"},"linears":["a"]}],"ignore":["b"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseContainer("config.json", text)
		if err != nil || c == nil {
			return
		}
		m := &Manifest{Tensors: []Tensor{{Name: "a.codes", Length: 1}, {Name: "a", Length: 1}, {Name: "", Length: 1}, {Name: "..", Length: 1}}}
		var n int64
		for i, s := range c.Stored(m) {
			n += s.Bytes
			if len(c.Groups[i].Linears) == 0 || len(s.Missing) > len(c.Groups[i].Linears) {
				t.Errorf("%+v of %+v", s, c.Groups[i])
			}
		}
		if n > 4 {
			t.Errorf("%d bytes of 4", n)
		}
	})
}
