package shard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

func nf4Linear(nested bool) QuantizedLinear {
	q := QuantizedLinear{
		Name: "model.layers.0.mlp.up_proj", Rows: 3, Cols: 33, Format: FormatBitsAndBytes,
		Scheme: Scheme{Kind: KindCodebook, Bits: 4, Table: "nf4", Group: 64, Nested: nested, Element: BF16},
		Components: []Component{
			{Name: "codes", DType: U8, Shape: []int64{50}}, {Name: "absmax", DType: F32, Shape: []int64{2}}, {Name: "table", DType: F32, Shape: []int64{16}},
		},
	}
	if nested {
		q.Components[1].DType = U8
		q.Components = append(q.Components, Component{"nested_absmax", F32, []int64{1}}, Component{"nested_table", F32, []int64{256}}, Component{"offset", F32, []int64{1}})
	}
	return q
}

func TestBitsAndBytesTensors(t *testing.T) {
	t.Parallel()
	eight := QuantizedLinear{Name: "model.layers.0.mlp.up_proj", Rows: 3, Cols: 33, Format: FormatBitsAndBytes, Scheme: Scheme{Kind: KindLLMInt8, Bits: 8}}
	state := len(nf4Linear(true).StateData(0))
	for name, c := range map[string]struct {
		q    QuantizedLinear
		want string
	}{
		"plain": {nf4Linear(false), "weight U8 [50 1], weight.absmax F32 [2], weight.quant_map F32 [16], " +
			fmt.Sprintf("weight.quant_state.bitsandbytes__nf4 U8 [%d]", len(nf4Linear(false).StateData(0)))},
		"nested": {nf4Linear(true), "weight U8 [50 1], weight.absmax U8 [2], weight.quant_map F32 [16], weight.nested_absmax F32 [1], " +
			"weight.nested_quant_map F32 [256], " + fmt.Sprintf("weight.quant_state.bitsandbytes__nf4 U8 [%d]", state)},
		"int8": {eight, "weight I8 [3 33], SCB F32 [3], weight_format U8 []"},
	} {
		tensors, err := c.q.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, x := range tensors {
			got = append(got, fmt.Sprintf("%s %s %v", strings.TrimPrefix(x.Name, c.q.Name+"."), x.DType, x.Shape))
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: tensors %v, want %s", name, got, c.want)
		}
	}
	if b := eight.ShapeData(); !bytes.Equal(b, []byte{0}) {
		t.Errorf("weight_format holds %v", b)
	}
	other := eight
	other.Scheme.Kind = KindInt
	told := eight
	told.Scheme.Activations = ActivationsInt8Token
	if err := told.Check(); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "leave activations out") {
		t.Errorf("error %v", err)
	}
	if err := other.Check(); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "holds NF4, FP4 and LLM.int8") {
		t.Errorf("error %v", err)
	}
}

// The size of quant_state is known before the offset is.
func TestQuantStateHasOneSize(t *testing.T) {
	t.Parallel()
	q := nf4Linear(true)
	want := len(q.StateData(0))
	for _, v := range []float32{0, 1, -1, 0.1, 0.046880863, math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, -1.1754942e-38, 1e-7, 123456789} {
		b := q.StateData(v)
		if len(b) != want {
			t.Errorf("%v: %d bytes, not %d", v, len(b), want)
		}
		var got struct {
			Offset float64 `json:"nested_offset"`
			Shape  []int64
		}
		if err := json.Unmarshal(b, &got); err != nil || got.Offset != float64(v) {
			t.Errorf("%v reads as %v, %v", v, got.Offset, err)
		}
		raw, err := q.OffsetOf(b)
		if err != nil || math.Float32frombits(binary.LittleEndian.Uint32(raw)) != v {
			t.Errorf("%v comes back as %v, %v", v, raw, err)
		}
	}
	for _, bad := range []string{"", "{}", "[]", `{"nested_offset":1e999}`, strings.Replace(string(q.StateData(1)), "64", "32", 1)} {
		if _, err := q.OffsetOf([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: error %v", bad, err)
		}
	}
	if text := string(nf4Linear(false).StateData(7)); text != `{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[3,33]}` {
		t.Errorf("state %s", text)
	}
}

// FuzzOffsetOf reads states that a file may hold.
func FuzzOffsetOf(f *testing.F) {
	q := nf4Linear(true)
	f.Add(q.StateData(0.25))
	f.Add([]byte(`{"nested_offset":"x"}`))
	f.Fuzz(func(t *testing.T, state []byte) {
		b, err := q.OffsetOf(state)
		if err != nil {
			return
		}
		if v := math.Float32frombits(binary.LittleEndian.Uint32(b)); !bytes.Equal(q.StateData(v), state) {
			t.Errorf("%q is the state of %v", state, v)
		}
	})
}

func TestBitsAndBytesConfig(t *testing.T) {
	t.Parallel()
	m := &Manifest{Linears: []Linear{{Name: "model.layers.0.mlp.up_proj", Rows: 3, Cols: 33}, {Name: "model.layers.0.mlp.gate", Rows: 4, Cols: 33}}}
	m.Model.Head = "lm_head"
	b, err := QuantizationConfig(m, []QuantizedLinear{nf4Linear(true)})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"quant_method":"bitsandbytes","load_in_4bit":true,"load_in_8bit":false,"bnb_4bit_quant_type":"nf4","bnb_4bit_use_double_quant":true,` +
		`"bnb_4bit_compute_dtype":"bfloat16","bnb_4bit_quant_storage":"uint8","llm_int8_threshold":6.0,"llm_int8_has_fp16_weight":false,` +
		`"llm_int8_skip_modules":["model.layers.0.mlp.gate","lm_head"]}`
	if string(b) != want {
		t.Errorf("config %s", b)
	}
	second := nf4Linear(false)
	second.Name, second.Rows = "model.layers.0.mlp.gate", 4
	if _, err := QuantizationConfig(m, []QuantizedLinear{nf4Linear(true), second}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "nf4 64 nested and linear") {
		t.Errorf("error %v", err)
	}
}
