package quantize

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// NVFP4 rounds every weight to the nearest 4-bit float (E2M1) under an 8-bit float (E4M3) for 16 columns and one scale for the linear, which
// puts the 8-bit ones into their range (NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv 2509.25149, section 2).
//
// For the given scales it minimises |w − ŵ| of each weight. Linears that engines fuse into one matrix have one global scale, made of the
// largest weight of them all: 448 · 6 over it. [tensor.Kernels.EncodeNVFP4] states the arithmetic of the rest, which is
// compressed-tensors' bit for bit; [globalScale] that of the global scale.
//
// Cost: two passes over the weights, and one more over those of the linears it is fused with, each bound by memory. nvfp4-pack-quantized,
// shardpress and dense can hold it.
type NVFP4 struct{}

// NVFP4Name is the method's name in recipes.
const NVFP4Name = "nvfp4"

// nvfp4Version changes whenever the bytes of any output do.
const nvfp4Version = 1

// NVFP4Params are the parameters of NVFP4: the format leaves none to choose.
type NVFP4Params struct{}

// Validate refuses nothing.
func (NVFP4Params) Validate() error { return nil }

// NewNVFP4 makes the method.
func NewNVFP4(NVFP4Params) (*NVFP4, error) { return &NVFP4{}, nil }

// Name implements compress.Method.
func (*NVFP4) Name() string { return NVFP4Name }

// Version implements compress.Method.
func (*NVFP4) Version() int { return nvfp4Version }

// Layout implements compress.Method.
func (*NVFP4) Layout(l compress.Linear) (compress.Layout, error) {
	layout, err := fp4Layout(l, compress.NVFP4{}, tensor.NVFP4Group)
	layout.AllRows, layout.Share = true, compress.ShareFused
	return layout, err
}

// Prepare implements compress.Method. It reads the group once, for the global scale.
func (m *NVFP4) Prepare(ctx context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", NVFP4Name, err)
	}
	rows := make([]*fp4Rows, len(group))
	var top uint32
	var work tensor.DType
	for i, w := range group {
		layout, err := m.Layout(w.Linear())
		if err != nil {
			return nil, err
		}
		if rows[i], err = newFP4Rows(w.Linear(), layout, k); err != nil {
			return nil, err
		}
		if top, err = rows[i].largest(ctx, w, o, top); err != nil {
			return nil, err
		}
		switch {
		case i == 0:
			work = rows[i].work
		case work != rows[i].work:
			work = tensor.F32 // no library says how to round for several types
		}
	}
	global := globalScale(math.Float32frombits(top), work)
	stored := binary.LittleEndian.AppendUint32(nil, math.Float32bits(global))
	out := make([]compress.RowEncoder, len(group))
	for i, e := range rows {
		e.global, e.whole = global, stored
		out[i] = e
	}
	return out, nil
}

// globalScale is 448 · 6 over the largest magnitude, as compressed-tensors computes it: by the reciprocal, each step rounded to the
// weights' type, and 1 where that overflows. In F16 it overflows for every magnitude below 0.041, where a scale of 1 would leave two or
// three bits to the local ones: there the steps are those of F32.
func globalScale(top float32, work tensor.DType) float32 {
	const whole = 448 * 6
	quotient := func(d tensor.DType) float32 {
		smallest := float32(0x1p-126) // normal number
		if d == tensor.F16 {
			smallest = 0x1p-14
		}
		return round(round(1/max(top, smallest), d)*whole, d)
	}
	g := quotient(work)
	if math.IsInf(float64(g), 0) && work == tensor.F16 {
		g = quotient(tensor.F32)
	}
	if math.IsInf(float64(g), 0) {
		return 1
	}
	return g
}

// round gives the number of type d that is nearest to v.
func round(v float32, d tensor.DType) float32 {
	var b [4]byte
	x := [1]float32{v}
	tensor.FromFloat32(b[:], x[:], d)
	tensor.ToFloat32(x[:], b[:], d)
	return x[0]
}
