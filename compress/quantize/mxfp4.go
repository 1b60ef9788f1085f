package quantize

import (
	"context"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// MXFP4 rounds every weight to the nearest 4-bit float (E2M1) under a power of two for 32 columns: the microscaling format of the Open
// Compute Project (OCP Microscaling Formats 1.0; Rouhani et al., arXiv 2310.10537).
//
// For the given scales it minimises |w − ŵ| of each weight. The scale is the largest magnitude's power of two over 4, or the next one
// where that would saturate what has a significand of 1.75 and more: compressed-tensors' choice between the specification's floor, which
// saturates all beyond 6, and rounding up, which wastes a bit. [tensor.Kernels.EncodeMXFP4] states the arithmetic, which is
// compressed-tensors' bit for bit but where its scale overflows: for a largest weight in the last 1/8 of its type's range
// it has an infinite scale, we keep the finite one below.
//
// Cost: one pass over the weights, bound by memory. mxfp4-pack-quantized, shardpress and dense can hold it.
type MXFP4 struct{}

// MXFP4Name is the method's name in recipes.
const MXFP4Name = "mxfp4"

// mxfp4Version changes whenever the bytes of any output do.
const mxfp4Version = 1

// MXFP4Params are the parameters of MXFP4: the format leaves none to choose.
type MXFP4Params struct{}

// Validate refuses nothing.
func (MXFP4Params) Validate() error { return nil }

// NewMXFP4 makes the method.
func NewMXFP4(MXFP4Params) (*MXFP4, error) { return &MXFP4{}, nil }

// Name implements compress.Method.
func (*MXFP4) Name() string { return MXFP4Name }

// Version implements compress.Method.
func (*MXFP4) Version() int { return mxfp4Version }

// Layout implements compress.Method.
func (*MXFP4) Layout(l compress.Linear) (compress.Layout, error) {
	return fp4Layout(l, compress.MXFP4{}, tensor.MXFP4Group)
}

// Prepare implements compress.Method.
func (m *MXFP4) Prepare(_ context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", MXFP4Name, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		layout, err := m.Layout(w.Linear())
		if err != nil {
			return nil, err
		}
		if out[i], err = newFP4Rows(w.Linear(), layout, k); err != nil {
			return nil, err
		}
	}
	return out, nil
}
