package shard

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// moe is a block with a mixture of two experts, after one without.
func moe(t *testing.T) *Manifest {
	t.Helper()
	tensors := llama(1)
	p := "model.layers.1."
	for _, x := range llama(1)[5:9] { // attention
		tensors = append(tensors, bf16(strings.Replace(x.name, "layers.0", "layers.1", 1), x.shape...))
	}
	tensors = append(tensors, bf16(p+"mlp.gate.weight", 2, 32))
	for e := range 2 {
		for _, name := range []string{"gate_proj", "up_proj"} {
			tensors = append(tensors, bf16(fmt.Sprintf("%smlp.experts.%d.%s.weight", p, e, name), 16, 32))
		}
		tensors = append(tensors, bf16(fmt.Sprintf("%smlp.experts.%d.down_proj.weight", p, e), 32, 16))
	}
	m, err := classified(t, `{"num_hidden_layers":2}`, tensors...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// quantize gives a scheme to the linears in the blocks for which pick returns one.
func quantize(m *Manifest, pick func(name string) (Scheme, bool)) []QuantizedLinear {
	var out []QuantizedLinear
	for _, l := range m.Linears {
		if l.Role != RoleLinear {
			continue
		}
		if s, ok := pick(l.Name); ok {
			out = append(out, QuantizedLinear{Name: l.Name, Rows: l.Rows, Cols: l.Cols, Scheme: s})
		}
	}
	return out
}

// storedIn gives all linears one format.
func storedIn(f Format, quantized []QuantizedLinear) []QuantizedLinear {
	for i := range quantized {
		quantized[i].Format = f
	}
	return quantized
}

func TestQuantizationConfig(t *testing.T) {
	t.Parallel()
	m := moe(t)
	channel8 := Scheme{Kind: KindInt, Bits: 8, Symmetric: true, Strategy: StrategyChannel, ScaleDType: BF16}
	tests := []struct {
		name    string
		pick    func(name string) (Scheme, bool)
		targets [][]string
		ignore  []string
	}{
		{"one scheme", func(string) (Scheme, bool) { return int4(8), true }, [][]string{{"Linear"}}, []string{"lm_head", "model.layers.1.mlp.gate"}},
		{"one left out", func(n string) (Scheme, bool) { return int4(8), !strings.HasSuffix(n, "0.mlp.down_proj") }, [][]string{{"Linear"}},
			[]string{"lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.gate"}},
		{"channels of linears of unlike widths are one scheme", func(n string) (Scheme, bool) {
			s := channel8
			s.Group = int64(len(n))
			return s, true
		}, [][]string{{"Linear"}}, []string{"lm_head", "model.layers.1.mlp.gate"}},
		{"the experts' scheme takes the class", func(n string) (Scheme, bool) {
			if strings.Contains(n, ".experts.") {
				return channel8, true
			}
			return int4(8), strings.HasSuffix(n, "o_proj") || strings.Contains(n, "layers.0.mlp")
		}, [][]string{{"model.layers.0.self_attn.o_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj",
			"model.layers.1.self_attn.o_proj"}, {"Linear"}},
			[]string{"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj",
				"model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.gate"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			quantized := quantize(m, tt.pick)
			b, err := QuantizationConfig(m, storedIn(FormatPackQuantized, quantized))
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Method string `json:"quant_method"`
				Groups map[string]struct {
					Targets []string
				} `json:"config_groups"`
				Ignore []string
			}
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if got.Method != "compressed-tensors" || !slices.Equal(got.Ignore, tt.ignore) || len(got.Groups) != len(tt.targets) {
				t.Errorf("%s", b)
			}
			for i, want := range tt.targets {
				if g := got.Groups[fmt.Sprintf("group_%d", i)]; !slices.Equal(g.Targets, want) {
					t.Errorf("group %d has targets %v, want %v", i, g.Targets, want)
				}
			}
		})
	}
}

func TestActivations(t *testing.T) {
	t.Parallel()
	m := moe(t)
	channel8 := func(string) (Scheme, bool) {
		return Scheme{Kind: KindInt, Bits: 8, Symmetric: true, Strategy: StrategyChannel, ScaleDType: BF16, Activations: ActivationsInt8Token}, true
	}
	got, err := QuantizationConfig(m, storedIn(FormatIntQuantized, quantize(m, channel8)))
	want := `"input_activations":{"num_bits":8,"type":"int","symmetric":true,"strategy":"token","group_size":null,"dynamic":true,` +
		`"actorder":null,"block_structure":null,"observer":null,"observer_kwargs":{}}`
	if err != nil || !strings.Contains(string(got), want) {
		t.Errorf("%s, %v", got, err)
	}
	wrong := quantize(m, channel8)
	wrong[0].Scheme.Activations = "fp8"
	if _, err := QuantizationConfig(m, storedIn(FormatIntQuantized, wrong)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}

// Tiles of 8-bit floats as the FP8_BLOCK preset has them, and what engines cannot fuse or run of them.
func TestFloatQuantizationConfig(t *testing.T) {
	t.Parallel()
	m := moe(t)
	blocks := func(rows int64, a Activations, f Format) []QuantizedLinear {
		quantized := storedIn(f, quantize(m, func(string) (Scheme, bool) {
			return Scheme{Kind: KindFloat, Bits: 8, Symmetric: true, Strategy: StrategyBlock, Block: [2]int64{rows, 16}, ScaleDType: BF16, Element: F8E4M3, Activations: a}, true
		}))
		for i := range quantized {
			q := &quantized[i]
			q.Components = []Component{{"codes", F8E4M3, []int64{q.Rows, q.Cols}}, {"scales", BF16, []int64{ceilDiv(q.Rows, rows), q.Cols / 16}}}
		}
		return quantized
	}
	got, err := QuantizationConfig(m, blocks(8, ActivationsFP8Group, FormatFloatQuantized))
	for _, want := range []string{
		`"format":"float-quantized"`,
		`"weights":{"num_bits":8,"type":"float","symmetric":true,"strategy":"block","group_size":null,"dynamic":false,"actorder":null,"block_structure":[8,16],`,
		`"input_activations":{"num_bits":8,"type":"float","symmetric":true,"strategy":"group","group_size":128,"dynamic":true,`,
	} {
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	if _, err := QuantizationConfig(m, blocks(24, ActivationsKept, FormatFloatQuantized)); !errors.Is(err, ErrFused) || !strings.Contains(err.Error(), "whole tiles of 24") {
		t.Errorf("tiles across parts: %v", err)
	}
	for name, change := range map[string]func(q *QuantizedLinear){
		"int activations":   func(q *QuantizedLinear) { q.Scheme.Activations = ActivationsInt8Token },
		"mxfp8 activations": func(q *QuantizedLinear) { q.Scheme.Activations = ActivationsMXFP8Group },
		"F8_E5M2":           func(q *QuantizedLinear) { q.Scheme.Element = F8E5M2 },
		"kind":              func(q *QuantizedLinear) { q.Format = FormatMXFP8 },
	} {
		q := blocks(8, ActivationsKept, FormatFloatQuantized)[0]
		if err := q.Check(); err != nil {
			t.Fatal(err)
		}
		change(&q)
		if err := q.Check(); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The W4A16 preset as formats.md 2.1 gives it.
func TestQuantizationConfigText(t *testing.T) {
	t.Parallel()
	m, err := classified(t, `{"num_hidden_layers":1}`, bf16("model.embed_tokens.weight", 48, 128), bf16("model.layers.0.self_attn.o_proj.weight", 128, 128))
	if err != nil {
		t.Fatal(err)
	}
	got, err := QuantizationConfig(m, storedIn(FormatPackQuantized, []QuantizedLinear{{Name: "model.layers.0.self_attn.o_proj", Rows: 128, Cols: 128, Scheme: int4(128)}}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"quant_method":"compressed-tensors","format":"pack-quantized","quantization_status":"compressed",` +
		`"config_groups":{"group_0":{"targets":["Linear"],` +
		`"weights":{"num_bits":4,"type":"int","symmetric":true,"strategy":"group","group_size":128,` +
		`"dynamic":false,"actorder":null,"block_structure":null,"observer":"minmax","observer_kwargs":{}},` +
		`"input_activations":null,"output_activations":null}},"ignore":["lm_head"],"kv_cache_scheme":null,"global_compression_ratio":null}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestQuantizationConfigRefuses(t *testing.T) {
	t.Parallel()
	m := moe(t)
	tests := []struct {
		name string
		pick func(name string) (Scheme, bool)
		add  []QuantizedLinear
		want error
		says []string
	}{
		{"nothing", func(string) (Scheme, bool) { return Scheme{}, false }, nil, ErrMissing, []string{"targets"}},
		{"q without k", func(n string) (Scheme, bool) { return int4(8), strings.HasSuffix(n, "q_proj") }, nil, ErrFused, []string{"q_proj", "k_proj", "16 bits"}},
		{"gate unlike up", func(n string) (Scheme, bool) {
			if strings.HasSuffix(n, "layers.0.mlp.gate_proj") {
				return int4(16), true
			}
			return int4(8), true
		}, nil, ErrFused, []string{"layers.0.mlp.gate_proj", "layers.0.mlp.up_proj", "group 16"}},
		{"one expert left out", func(n string) (Scheme, bool) { return int4(8), !strings.Contains(n, "experts.1") }, nil, ErrFused, []string{"experts.1"}},
		{"unknown linear", func(string) (Scheme, bool) { return int4(8), true }, []QuantizedLinear{{Name: "x", Rows: 8, Cols: 8, Scheme: int4(8)}}, ErrMissing, []string{`"x"`}},
		{"twice", func(string) (Scheme, bool) { return int4(8), true }, []QuantizedLinear{{Name: "lm_head", Rows: 48, Cols: 32, Scheme: int4(8)}, {Name: "lm_head", Rows: 48, Cols: 32, Scheme: int4(8)}}, ErrDuplicate, []string{"lm_head"}},
		{"other shape", func(string) (Scheme, bool) { return int4(8), true }, []QuantizedLinear{{Name: "lm_head", Rows: 48, Cols: 16, Scheme: int4(8)}}, ErrMalformed, []string{"lm_head"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := QuantizationConfig(m, storedIn(FormatPackQuantized, append(quantize(m, tt.pick), tt.add...)))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
		})
	}
	tied, err := classified(t, `{"tie_word_embeddings":true}`, llama(1)...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := QuantizationConfig(tied, storedIn(FormatPackQuantized, []QuantizedLinear{{Name: "lm_head", Rows: 48, Cols: 32, Scheme: int4(8)}})); !errors.Is(err, ErrUnsupported) {
		t.Errorf("tied head: error %v", err)
	}
}

func TestOutputConfig(t *testing.T) {
	t.Parallel()
	q := json.RawMessage(`{"a":[1,{}],"b":"<&>"}`)
	tests := []struct {
		name, source string
		q            json.RawMessage
		want         string
	}{
		{"added last, order and oddities kept", "{\n  \"z\": 1.0e-05,\n  \"a\" :[1 , Infinity],\n  \"é\\u0041\": null\n}\n", q,
			"{\n  \"z\": 1.0e-05,\n  \"a\" :[1 , Infinity],\n  \"é\\u0041\": null,\n  \"quantization_config\": {\n    \"a\": [\n      1,\n      {}\n    ],\n    \"b\": \"<&>\"\n  }\n}\n"},
		{"replaced in place", `{"a": 1, "quantization_config": {"quant_method": "fp8"}, "b": 2}`, q, `{"a": 1, "quantization_config": {"a":[1,{}],"b":"<&>"}, "b": 2}`},
		{"dropped in the middle", "{\n  \"a\": 1,\n  \"quantization_config\": {\n    \"x\": 1\n  },\n  \"b\": 2\n}", nil, "{\n  \"a\": 1,\n  \"b\": 2\n}"},
		{"dropped at the end", "{\n  \"a\": 1,\n  \"quantization_config\": {}\n}", nil, "{\n  \"a\": 1\n}"},
		{"dropped alone", `{ "quantization_config": {} }`, nil, `{  }`},
		{"nothing to drop", " {\"a\":1}\n", nil, " {\"a\":1}\n"},
		{"added to nothing", `{}`, q, `{"quantization_config":{"a":[1,{}],"b":"<&>"}}`},
		{"added to one line", `{"a":1}`, json.RawMessage(`1`), `{"a":1, "quantization_config": 1}`},
		{"inner one dropped", `{"text_config": {"quantization_config": {}, "x": 1}, "compression_config": 0, "y": 2}`, nil, `{"text_config": {"x": 1}, "y": 2}`},
		{"same words elsewhere", `{"quantization": {"quantization_config": 1}, "s": "quantization_config"}`, nil, `{"quantization": {"quantization_config": 1}, "s": "quantization_config"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := OutputConfig(json.RawMessage(tt.source), tt.q)
			if err != nil || string(got) != tt.want {
				t.Errorf("got\n%s\nwant\n%s\n%v", got, tt.want, err)
			}
		})
	}
	if got, err := OutputConfig(nil, nil); err != nil || got != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := OutputConfig(nil, q); !errors.Is(err, ErrMissing) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{`[]`, `{"a":1`, `{"a":1,"a":2}`, `{"a":1}x`} {
		if _, err := OutputConfig(json.RawMessage(bad), q); err == nil {
			t.Errorf("no error for %s", bad)
		}
	}
}

func FuzzOutputConfig(f *testing.F) {
	f.Add([]byte("{\n  \"a\": 1,\n  \"quantization_config\": {\n    \"x\": 1\n  },\n  \"text_config\": {\"quantization_config\":1}\n}"))
	f.Add([]byte(`{"a":Infinity}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := OutputConfig(b, json.RawMessage(`{"q":1}`))
		if err != nil {
			return
		}
		before, err := members("before", b)
		if err != nil {
			t.Fatal(err)
		}
		after, err := members("after", out)
		if err != nil {
			t.Fatalf("%q became %q: %v", b, out, err)
		}
		if string(after["quantization_config"]) == "" {
			t.Fatalf("%q became %q", b, out)
		}
		for key, value := range before {
			switch key {
			case "quantization_config", "compression_config", "text_config", "llm_config", "language_config":
			default:
				if string(after[key]) != string(value) {
					t.Fatalf("%q became %q", b, out)
				}
			}
		}
		plain, err := OutputConfig(out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if left, err := members("plain", plain); err != nil || left["quantization_config"] != nil {
			t.Fatalf("%q became %q, %v", b, plain, err)
		}
	})
}
