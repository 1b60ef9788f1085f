package quantize

import (
	"context"
	"encoding/binary"
	"math"
	"sync"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
)

// LLMInt8 makes the weights of LLM.int8() (Dettmers et al., arXiv 2208.07339, equation 4): each row is scaled so that its largest magnitude
// becomes 127, and rounded to whole numbers. It minimises |w − ŵ| of each weight for that scale.
//
// What the paper adds, columns of large activations that stay in 16 bits, happens where the model runs: the engine takes these columns out
// of both operands, and the format tells it the threshold. Nothing about it is known, or needed, here.
//
// The library rounds weights to float16 before it quantizes them; this method starts from the weights as they are. On float16 weights both
// give the same bytes.
//
// Cost: one pass over the weights.
//
// bitsandbytes, shardpress and dense can hold it.
type LLMInt8 struct{}

// LLMInt8Name is the method's name in recipes.
const LLMInt8Name = "llmint8"

// llmInt8Version changes whenever the bytes of any output do.
const llmInt8Version = 1

// LLMInt8Params has no members: the method has no parameters.
type LLMInt8Params struct{}

// LLMInt8Parameters describes LLMInt8Params.
func LLMInt8Parameters() []compress.Parameter { return nil }

// Validate implements the rule that parameters have one.
func (LLMInt8Params) Validate() error { return nil }

// NewLLMInt8 makes the method.
func NewLLMInt8(LLMInt8Params) (*LLMInt8, error) { return &LLMInt8{}, nil }

// Name implements compress.Method.
func (m *LLMInt8) Name() string { return LLMInt8Name }

// Version implements compress.Method.
func (m *LLMInt8) Version() int { return llmInt8Version }

// Layout implements compress.Method.
func (m *LLMInt8) Layout(l compress.Linear) (compress.Layout, error) {
	if err := l.Validate(); err != nil {
		return compress.Layout{}, err
	}
	if _, err := l.WorkDType(); err != nil {
		return compress.Layout{}, err
	}
	s := compress.LLMInt8{}
	return compress.Layout{Scheme: s, Components: s.Components(l.Rows, l.Cols), RowUnit: 1, Scratch: llmInt8Scratch(l)}, nil
}

// llmInt8Scratch is a panel as float32.
func llmInt8Scratch(l compress.Linear) int64 {
	const panelWeights = 1 << 19 // at most, unless a row has more
	return 4 * max(min(l.Rows*l.Cols, panelWeights), l.Cols)
}

// Prepare implements compress.Method.
func (m *LLMInt8) Prepare(_ context.Context, group []compress.Weights, o compress.Options) ([]compress.RowEncoder, error) {
	if _, err := tensor.ForName(string(o.Kernel)); err != nil {
		return nil, compress.Invalidf("prepare %s: %w", LLMInt8Name, err)
	}
	out := make([]compress.RowEncoder, len(group))
	for i, w := range group {
		layout, err := m.Layout(w.Linear())
		if err != nil {
			return nil, err
		}
		out[i] = &llmInt8Rows{linear: w.Linear(), layout: layout}
	}
	return out, nil
}

// llmInt8Rows encodes the rows of one linear.
type llmInt8Rows struct {
	linear compress.Linear
	layout compress.Layout
	pool   sync.Pool // of *[]float32
}

// Rows implements compress.RowEncoder.
func (e *llmInt8Rows) Rows(dst *compress.Encoded, p compress.Panel) error {
	x, ok := e.pool.Get().(*[]float32)
	if !ok {
		x = new([]float32)
	}
	defer e.pool.Put(x)
	if err := p.Validate(e.linear); err != nil {
		return err
	}
	*x = grow(*x, p.Rows*p.Cols)
	if err := p.Floats(e.linear, *x); err != nil {
		return err
	}
	dst.Resize(e.layout, p)
	for row := range p.Rows {
		w := (*x)[row*p.Cols:][:p.Cols]
		var top float32
		for _, v := range w {
			top = max(top, float32(math.Abs(float64(v))))
		}
		if top > math.MaxFloat32/127 {
			return compress.Invalidf("encode %s: row %d has a weight of magnitude %g, which times 127 is beyond float32, and so would decode to infinity: choose another method, or put the linear on the recipe's ignore list",
				e.linear.Name, p.Row+int64(row), top)
		}
		binary.LittleEndian.PutUint32(dst.Data[1][4*row:], math.Float32bits(top))
		dst.Error[row], dst.Power[row] = encodeInt8(dst.Data[0][row*p.Cols:][:p.Cols], w, top)
	}
	return nil
}

// encodeInt8 rounds float32(x · float32(127/absmax)) to even and gives Σ(w − ŵ)² and Σw². A row of zeros has codes of 0.
func encodeInt8(codes []byte, x []float32, top float32) (lost, power float64) {
	scale := 127 / top
	for i, v := range x {
		var q float64
		switch {
		case top == 0:
		case math.IsInf(float64(scale), 0): // top is subnormal
			q = math.RoundToEven(float64(v) / float64(top) * 127)
		default:
			q = math.RoundToEven(float64(float32(v * scale)))
		}
		codes[i] = byte(int8(q))
		e := float64(v) - float64(float32(float32(float32(q)*top)*float32(1.0/127)))
		lost += float64(e * e)
		power += float64(float64(v) * float64(v))
	}
	return lost, power
}
