package quantize

import (
	"context"
	"math"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// MXFP8 rounds weights to E4M3 floats over a power of two for each 32 columns (OCP Microscaling Formats specification 1.0, section 5.3;
// Rouhani et al., arXiv 2310.10537).
//
// It minimises |w − ŵ| of each weight for its scale. The scale is 2^e where 2^(e+8) is the power of two below the largest magnitude of
// the group, or the next one above if that magnitude's significand is at least 1.75: then nothing is clamped by more than a rounding.
// This is compressed-tensors' rule; the specification's own takes the power below in every case and clamps. What
// compressed-tensors flushes to zero because the dtype of the weights cannot hold the scale (groups of F16 below
// 2^-14) keeps its scale here.
//
// Cost: one pass over the weights, bound by memory.
//
// mxfp8-quantized, shardpress and dense hold it.
type MXFP8 struct{}

// MXFP8Name is the method's name in recipes.
const MXFP8Name = "mxfp8"

// mxfp8Version changes whenever the bytes of any output do.
const mxfp8Version = 1

// MXFP8Params are the parameters of MXFP8: the format leaves no choice.
type MXFP8Params struct{}

// MXFP8Parameters describes MXFP8Params.
func MXFP8Parameters() []compress.Parameter { return []compress.Parameter{} }

// NewMXFP8 makes the method.
func NewMXFP8(MXFP8Params) (*MXFP8, error) { return &MXFP8{}, nil }

// Name implements compress.Method.
func (m *MXFP8) Name() string { return MXFP8Name }

// Version implements compress.Method.
func (m *MXFP8) Version() int { return mxfp8Version }

// Layout implements compress.Method.
func (m *MXFP8) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	source, work, err := workDType(l)
	if err != nil {
		return compress.Layout{}, err
	}
	if l.Cols%compress.MXGroup != 0 {
		return compress.Layout{}, compress.Invalidf("encode %s: its %d columns do not divide into groups of %d, and %s has no others: use method %s for it, or put it on the recipe's ignore list",
			l.Name, l.Cols, compress.MXGroup, MXFP8Name, FP8Name)
	}
	s := compress.MXFP8{}
	layout := compress.Layout{Scheme: s, Components: s.Components(l.Rows, l.Cols), RowUnit: 1, Scratch: l.Cols / compress.MXGroup * 8}
	if source != work {
		layout.Scratch += l.Cols * int64(work.Size())
	}
	return layout, nil
}

// Prepare implements compress.Method.
func (m *MXFP8) Prepare(_ context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	k, err := tensor.ForName(string(o.Kernel))
	if err != nil {
		return nil, compress.Invalidf("prepare %s: %w", MXFP8Name, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		e := &mxfp8Rows{linear: w.Linear(), kernels: k}
		if e.layout, err = m.Layout(e.linear); err != nil {
			return nil, err
		}
		if e.source, e.work, err = workDType(e.linear); err != nil {
			return nil, err
		}
		out[i] = e
	}
	return out, nil
}

// mxfp8Rows encodes the rows of one linear. It is not written to after Prepare.
type mxfp8Rows struct {
	linear       compress.Linear
	layout       compress.Layout
	kernels      *tensor.Kernels
	source, work tensor.DType
	pool         sync.Pool // of *floatScratch, for the calls under way
}

// Rows implements compress.RowEncoder.
func (e *mxfp8Rows) Rows(dst *compress.Encoded, p compress.Panel) error {
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	s, ok := e.pool.Get().(*floatScratch)
	if !ok {
		s = &floatScratch{}
	}
	defer e.pool.Put(s)
	dst.Resize(e.layout, p)
	n, rowBytes := p.Cols/compress.MXGroup, p.Cols*e.source.Size()
	s.top, s.scales = grow(s.top, n), grow(s.scales, n)
	for row := range p.Rows {
		data := widenRow(s, p.Data[row*rowBytes:][:rowBytes], e.source, e.work)
		clear(s.top)
		e.kernels.MaxMagnitudes(s.top, data, e.work, compress.MXGroup)
		stored := dst.Data[1][row*n:][:n]
		for g, top := range s.top {
			if top >= notFinite {
				return refuseNotFinite(e.linear, p)
			}
			stored[g] = mxExponent(top, mxfp8Offset)
			s.scales[g] = math.Float32frombits(uint32(stored[g]) << 23)
			switch {
			case top == 0:
				s.scales[g] = 1 // codes of zero under any scale, and vector code for this one
			case stored[g] == 0:
				s.scales[g] = 0x1p-127 // a subnormal float32
			}
		}
		dst.Error[row], dst.Power[row] = e.kernels.EncodeFloat8(dst.Data[0][row*p.Cols:][:p.Cols], data, e.work, s.scales, tensor.F8E4M3)
	}
	return nil
}

// mxfp8Offset is the exponent of the largest power of two in E4M3.
const mxfp8Offset = 8

// mxExponent is the E8M0 exponent for a group whose largest magnitude is top, as bits of a finite float32, in an element type whose
// largest power of two is 2^offset.
func mxExponent(top uint32, offset int) byte {
	// A significand of 1.75 and above carries into the exponent.
	return byte(max(int((top+1<<21)>>23)-offset, 0))
}
