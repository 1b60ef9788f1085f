package quantize

import (
	"context"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// FP4 is the 4-bit float of bitsandbytes: as NF4, with the 16 numbers that a sign, two bits of exponent and one of mantissa give. They are
// not those of MXFP4 and NVFP4: the smallest is 1/192 of the largest, and zero has two codes. Its papers are those of NF4 (Dettmers et al.,
// arXiv 2305.14314, table 2, where NF4 loses less) and of the choice of bits (Dettmers and Zettlemoyer, arXiv 2212.09720, appendix A).
//
// It minimises |w − ŵ| of each weight for the table and the run's largest magnitude; the magnitudes are quantized as NF4's.
//
// Cost: that of NF4.
//
// bitsandbytes, shardpress and dense can hold it. The codes are those of bitsandbytes 0.50 on a CPU, bit for bit.
type FP4 struct{ runs }

// FP4Name is the method's name in recipes.
const FP4Name = "fp4"

// fp4Version changes whenever the bytes of any output do.
const fp4Version = 1

// FP4Params are the parameters of FP4.
type FP4Params struct {
	Block       int64 `json:"block"`
	DoubleQuant bool  `json:"double_quant"`
}

// FP4Parameters describes FP4Params.
func FP4Parameters() []compress.Parameter { return runsParameters() }

// Validate refuses parameters that no linear can be encoded with.
func (p FP4Params) Validate() error { return runsParams(p).Validate() }

// NewFP4 makes the method.
func NewFP4(p FP4Params) (*FP4, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &FP4{runs{runsParams(p), FP4Name, compress.TableFP4, fp4Table()}}, nil
}

// Name implements compress.Method.
func (m *FP4) Name() string { return FP4Name }

// Version implements compress.Method.
func (m *FP4) Version() int { return fp4Version }

// Layout implements compress.Method.
func (m *FP4) Layout(l compress.Linear) (compress.Layout, error) { return m.layout(l) }

// Prepare implements compress.Method.
func (m *FP4) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	return m.prepare(ctx, group, o)
}

// fp4Table holds 0, 1/16, 8, 12, 4, 6, 2, 3, each over 12, by code; codes from 8 up are negative. Code 8 is the second zero, and takes what is
// above 0 and nearest to it; code 0 takes 0 and what is below.
func fp4Table() *tensor.Table4 {
	var values [16]float32
	for i, v := range [8]float32{0, 0.0625, 8, 12, 4, 6, 2, 3} {
		values[i] = v / 12
		if i > 0 {
			values[8+i] = -v / 12
		}
	}
	return tensor.NewTable4(values, [16]uint8{11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3})
}
