package quantize

import (
	"context"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// NF4 is the 4-bit NormalFloat of QLoRA (Dettmers et al., arXiv 2305.14314, section 3 and appendix E): every run of 64 weights is divided by
// its largest magnitude, and each weight becomes the place of the nearest of 16 numbers, quantiles of the normal distribution, so that the
// codes of normal weights are used about equally often.
//
// It minimises |w − ŵ| of each weight for the table and the run's largest magnitude. With double quantization the magnitudes, less their
// mean, become bytes of a map of 256 numbers in runs of 256, which takes the cost of scales from 0.5 to 0.127 bits a weight.
//
// Cost: one pass over the weights, bound by memory; with double quantization one before it, which finds the magnitudes.
//
// bitsandbytes, shardpress and dense can hold it. The codes are those of bitsandbytes 0.50 on a CPU, bit for bit.
type NF4 struct{ runs }

// NF4Name is the method's name in recipes.
const NF4Name = "nf4"

// nf4Version changes whenever the bytes of any output do.
const nf4Version = 1

// NF4Params are the parameters of NF4.
type NF4Params struct {
	Block       int64 `json:"block"`
	DoubleQuant bool  `json:"double_quant"`
}

// NF4Parameters describes NF4Params.
func NF4Parameters() []compress.Parameter { return runsParameters() }

// Validate refuses parameters that no linear can be encoded with.
func (p NF4Params) Validate() error { return runsParams(p).Validate() }

// NewNF4 makes the method.
func NewNF4(p NF4Params) (*NF4, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &NF4{runs{runsParams(p), NF4Name, compress.TableNF4, nf4Table()}}, nil
}

// Name implements compress.Method.
func (m *NF4) Name() string { return NF4Name }

// Version implements compress.Method.
func (m *NF4) Version() int { return nf4Version }

// Layout implements compress.Method.
func (m *NF4) Layout(l compress.Linear) (compress.Layout, error) { return m.layout(l) }

// Prepare implements compress.Method.
func (m *NF4) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	return m.prepare(ctx, group, o)
}

// nf4Table holds the numbers of appendix E as float32.
func nf4Table() *tensor.Table4 {
	return tensor.NewTable4([16]float32{
		-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
		0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
	}, [16]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
}
