package shard

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckSource(t *testing.T) {
	t.Parallel()
	x := func(name string, d DType, shape ...int64) testTensor {
		return testTensor{name: name, dtype: d, shape: shape}
	}
	const fp8 = `{"quantization_config":{"quant_method":"compressed-tensors"}}`
	tests := []struct {
		name, config string
		tensors      []testTensor
		says         string // "" when the checkpoint can be read
	}{
		{"plain", "", llama(1), ""},
		{"FP8 blocks", fp8, []testTensor{x("l.0.a.weight", F8E4M3, 8, 8), x("l.0.a.weight_scale_inv", F32, 1, 1)}, ""},
		{"FP8 of its own", "", []testTensor{x("l.0.a.weight", F8E4M3, 8, 8)}, ""},
		{"FP8 with a lost scale", fp8, []testTensor{x("l.0.a.weight", F8E4M3, 8, 8)}, "l.0.a.weight"},
		{"FP8 experts", `{"hidden_size":8}`, []testTensor{x("l.0.experts.down_proj", F8E4M3, 2, 8, 4), x("l.0.experts.down_proj_scale", F32, 2)}, "down_proj"},
		{"GPTQ", "", []testTensor{x("l.0.a.qweight", I32, 1, 8)}, "qweight"},
		{"MXFP4", `{"quantization_config":{"quant_method":"mxfp4"}}`, []testTensor{x("l.0.experts.down_proj_blocks", U8, 2, 8, 4, 16)}, "mxfp4"},
		{"NVFP4", "", []testTensor{x("l.0.a.weight", U8, 8, 4), x("l.0.a.weight_scale", F8E4M3, 8, 1)}, "U8"},
		{"int8", "", []testTensor{x("l.0.a.weight", I8, 8, 8)}, "I8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := classified(t, tt.config, tt.tensors...)
			if err != nil {
				t.Fatal(err)
			}
			err = m.CheckSource()
			if tt.says == "" && err != nil || tt.says != "" && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error %v", err)
			}
		})
	}
}
