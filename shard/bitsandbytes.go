package shard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kinds of schemes that FormatBitsAndBytes holds.
const (
	KindCodebook = "codebook"
	KindLLMInt8  = "llmint8"
)

// Parts of KindCodebook and KindLLMInt8 beside codes.
const (
	partAbsmax       Part = "absmax"
	partTable        Part = "table"
	partNestedAbsmax Part = "nested_absmax"
	partNestedTable  Part = "nested_table"
	// PartOffset is the mean of the magnitudes that double quantization takes away. FormatBitsAndBytes has it as text inside quant_state:
	// StateData makes that of it, OffsetOf undoes it.
	PartOffset Part = "offset"
)

// The library cuts magnitudes into runs of 256, and knows of no other.
const nestedBlock = 256

// quantState is the document in quant_state (formats.md 6.1), which readers may not find other members in.
type quantState struct {
	QuantType    string           `json:"quant_type"`
	BlockSize    int64            `json:"blocksize"`
	DType        string           `json:"dtype"`
	Shape        [2]int64         `json:"shape"`
	NestedBlock  int64            `json:"nested_blocksize,omitempty"`
	NestedDType  string           `json:"nested_dtype,omitempty"`
	NestedOffset *json.RawMessage `json:"nested_offset,omitempty"`
}

// offsetDigits is the room for nested_offset: sign, 17 digits, point and exponent of any float32 widened to float64.
const offsetDigits = 24

// checkBitsAndBytes refuses what the library cannot read.
func (q QuantizedLinear) checkBitsAndBytes() error {
	s := q.Scheme
	if s.Activations != ActivationsKept {
		return q.refuse("activations %q; the library decides about them by itself: leave activations out of the recipe", s.Activations)
	}
	switch s.Kind {
	case KindLLMInt8:
		return nil
	case KindCodebook:
		if _, ok := torchName(s.Element); !ok {
			return q.refuse("weights of type %s", s.Element)
		}
		if q.Rows > math.MaxInt32 || q.Cols > math.MaxInt32 {
			return q.refuse("%d rows of %d columns", q.Rows, q.Cols)
		}
		return nil
	}
	return q.refuse("it holds NF4, FP4 and LLM.int8, not a scheme of kind %s", s.Kind)
}

// torchName is what PyTorch calls an element type.
func torchName(d DType) (string, bool) {
	switch d {
	case BF16:
		return "bfloat16", true
	case F16:
		return "float16", true
	case F32:
		return "float32", true
	}
	return "", false
}

// bitsAndBytesTensors lists the tensors of the library's checkpoints (formats.md 6).
func (q QuantizedLinear) bitsAndBytesTensors() ([]ModuleTensor, error) {
	weight := q.Name + ".weight"
	if q.Scheme.Kind == KindLLMInt8 {
		return []ModuleTensor{
			{TensorSpec{weight, I8, []int64{q.Rows, q.Cols}}, PartCodes},
			{TensorSpec{q.Name + ".SCB", F32, []int64{q.Rows}}, partAbsmax},
			{TensorSpec{q.Name + ".weight_format", U8, []int64{}}, PartShape}, // 0: rows as they are
		}, nil
	}
	state := PartShape
	var out []ModuleTensor
	for _, c := range q.Components {
		t := TensorSpec{weight + "." + c.Name, c.DType, c.Shape}
		switch part := Part(c.Name); part {
		case PartCodes:
			t.Name, t.Shape = weight, append(append([]int64{}, c.Shape...), 1)
		case partTable:
			t.Name = weight + ".quant_map"
		case partNestedTable:
			t.Name = weight + ".nested_quant_map"
		case partAbsmax, partNestedAbsmax:
		case PartOffset:
			state = PartOffset
			continue
		default:
			return nil, q.refuse("it has no room for component %q", c.Name)
		}
		out = append(out, ModuleTensor{t, Part(c.Name)})
	}
	n := int64(len(q.StateData(0)))
	return append(out, ModuleTensor{TensorSpec{weight + ".quant_state.bitsandbytes__" + q.Scheme.Table, U8, []int64{n}}, state}), nil
}

// StateData returns the bytes of quant_state. Without double quantization the offset is not looked at. The size does not depend on it: spaces
// fill what a shorter number leaves, after the document, where readers of JSON ignore them.
func (q QuantizedLinear) StateData(offset float32) []byte {
	dtype, _ := torchName(q.Scheme.Element)
	s := quantState{QuantType: q.Scheme.Table, BlockSize: q.Scheme.Group, DType: dtype, Shape: [2]int64{q.Rows, q.Cols}}
	pad := 0
	if q.Scheme.Nested {
		// As Python writes a float32 that became a float64: all digits that the latter has.
		number := json.RawMessage(strconv.FormatFloat(float64(offset), 'g', 17, 64))
		s.NestedBlock, s.NestedDType, s.NestedOffset = nestedBlock, "float32", &number
		pad = offsetDigits - len(number)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil // numbers that are none, which no method makes and Tensors gives no room to
	}
	return append(b, strings.Repeat(" ", pad)...)
}

// OffsetOf reads the offset out of the bytes of quant_state, which must be those that StateData makes of it, and gives it as the four bytes
// of a float32.
func (q QuantizedLinear) OffsetOf(state []byte) ([]byte, error) {
	var s struct {
		NestedOffset float64 `json:"nested_offset"`
	}
	if err := json.Unmarshal(state, &s); err != nil {
		return nil, fmt.Errorf("read quant_state of linear %q: %w: %w", q.Name, ErrMalformed, err)
	}
	if !bytes.Equal(state, q.StateData(float32(s.NestedOffset))) {
		return nil, fmt.Errorf("read quant_state of linear %q: %w: it does not say what the linear is", q.Name, ErrMalformed)
	}
	return binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(s.NestedOffset))), nil
}

// bitsAndBytesConfig is the quantization_config of the library's checkpoints, as transformers writes it.
type bitsAndBytesConfig struct {
	QuantMethod  string          `json:"quant_method"`
	Load4        bool            `json:"load_in_4bit"`
	Load8        bool            `json:"load_in_8bit"`
	QuantType    string          `json:"bnb_4bit_quant_type,omitempty"`
	DoubleQuant  *bool           `json:"bnb_4bit_use_double_quant,omitempty"`
	ComputeDType string          `json:"bnb_4bit_compute_dtype,omitempty"`
	Storage      string          `json:"bnb_4bit_quant_storage,omitempty"`
	Threshold    json.RawMessage `json:"llm_int8_threshold"`
	Fp16Weight   bool            `json:"llm_int8_has_fp16_weight"`
	Skip         []string        `json:"llm_int8_skip_modules"`
}

// bitsAndBytes describes a result. Loaders know one kind of codes for all linears that are not skipped.
func bitsAndBytes(m *Manifest, quantized []QuantizedLinear) (bitsAndBytesConfig, error) {
	// 6 is the threshold of the paper (Dettmers et al., arXiv 2208.07339, section 3.2), and the library's; transformers refuses it without
	// the point.
	c := bitsAndBytesConfig{QuantMethod: string(FormatBitsAndBytes), Threshold: json.RawMessage("6.0"), Skip: Ignored(m, quantized)}
	first := quantized[0]
	for _, q := range quantized {
		a, b := q.Scheme, first.Scheme
		if a.Kind != b.Kind || a.Table != b.Table || a.Nested != b.Nested {
			return c, fmt.Errorf("describe quantization: linear %q as %s and linear %q as %s: %w in one checkpoint of bitsandbytes; choose one method for all of them, or format %s",
				first.Name, b, q.Name, a, ErrUnsupported, FormatShardpress)
		}
	}
	s := first.Scheme
	if c.Load8 = s.Kind == KindLLMInt8; c.Load8 {
		return c, nil
	}
	c.Load4, c.QuantType, c.DoubleQuant, c.Storage = true, s.Table, &s.Nested, "uint8"
	c.ComputeDType, _ = torchName(s.Element)
	return c, nil
}
