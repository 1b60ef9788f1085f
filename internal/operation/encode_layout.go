package operation

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

// Layout is what EncodeOp will write and need, known from the spec alone. That of a
// plan holds the totals only.
type Layout struct {
	File     *shard.Layout
	size     int64
	manifest *shard.Manifest // of what the params name
	// parts say how each tensor of the file is made, in its order.
	parts []part
	// Items are in the order of the params' items.
	Items []ItemLayout
	// Memory is the peak need in bytes.
	Memory int64
	// SourceBytes are read from the source.
	SourceBytes int64
}

// ItemLayout is one item's share.
type ItemLayout struct {
	Tensors []shard.TensorSpec
	module  []shard.Part // what each tensor of an encoded module is
	stream  shard.Part   // of them, the one that is not put aside
	// Encoded are the layouts of the item's linears, in their order.
	Encoded []EncodedLayout
}

// EncodedLayout is what a method makes of a linear.
type EncodedLayout struct {
	Linear shard.Linear
	Method compress.Method
	Layout compress.Layout
	Format string
	Share  []shard.Linear // those that are prepared together, if several
	At     int            // which of them this one is
	Seed   uint64
}

// Size is the size of the weight file in bytes.
func (l *Layout) Size() int64 { return l.size }

// Totals is the layout without its contents, which are worked out anew where they
// are needed: a plan holds on to the layouts of all files of the result.
func (l *Layout) Totals() *Layout {
	return &Layout{size: l.size, Memory: l.Memory, SourceBytes: l.SourceBytes}
}

// part is how a tensor of the file is made: by which item, and which of its tensors.
type part struct{ item, tensor int }

// arrange puts the tensors into an order in which each is aligned to its elements,
// which readers that map the file need, and which otherwise is the items'. Tensors
// of a multiple of 8 bytes, nearly all, keep everything behind them aligned; the
// rest follow with the larger elements first.
func (l *Layout) arrange() ([]shard.TensorSpec, error) {
	var parts []part
	sizes := map[part]int64{}
	for i, it := range l.Items {
		for k, t := range it.Tensors {
			n, ok := t.Bytes()
			if !ok {
				return nil, fmt.Errorf("lay out tensor %q: %w: %s of shape %v", t.Name, task.ErrInvalid, t.DType, t.Shape)
			}
			sizes[part{i, k}] = n
			parts = append(parts, part{i, k})
		}
	}
	rank := func(p part) int64 {
		if sizes[p]%8 == 0 {
			return 0
		}
		return 8 - l.Items[p.item].Tensors[p.tensor].DType.Size() // elements of 4 bytes before 2 before 1
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(rank(a), rank(b)) })
	l.parts = parts
	specs := make([]shard.TensorSpec, len(parts))
	for i, p := range parts {
		specs[i] = l.Items[p.item].Tensors[p.tensor]
	}
	return specs, nil
}

// overhead is what a task needs whatever it does: write buffers, headers, the
// source's buffers, and the garbage collector's share of them, in bytes.
const overhead = 24 << 20

// Layout works out the file, refusing what can never work.
func (p *EncodeParams) Layout() (*Layout, error) {
	m := p.manifest()
	l := &Layout{manifest: m, Memory: overhead + panelBytes}
	var waiting int64
	for i := range p.Items {
		it := &p.Items[i]
		var out ItemLayout
		var err error
		switch {
		case it.Copy != "" && it.Rebuild == "" && it.Cast == nil && len(it.Encode) == 0:
			var t shard.Tensor
			if t, err = tensorNamed(m, it.Copy); err == nil {
				out.Tensors = []shard.TensorSpec{{Name: t.Name, DType: t.DType, Shape: t.Shape}}
				l.SourceBytes += t.Length
			}
		case it.Cast != nil && it.Copy == "" && it.Rebuild == "" && len(it.Encode) == 0:
			err = p.castLayout(m, *it.Cast, &out, l)
		case it.Rebuild != "" && it.Copy == "" && it.Cast == nil:
			err = p.rebuildLayout(m, it, &out, l)
		case len(it.Encode) == 1 && it.Copy == "" && it.Cast == nil:
			err = p.encodeLayout(m, &it.Encode[0], &out, l)
		default:
			err = fmt.Errorf("parameters of %s: %w: item %d is not one of copy, rebuild, cast and encode", EncodeOp, task.ErrInvalid, i)
		}
		if err != nil {
			return nil, err
		}
		l.Items = append(l.Items, out)
		waiting += out.waiting()
	}
	l.Memory += waiting
	specs, err := l.arrange()
	if err != nil {
		return nil, err
	}
	if l.File, err = shard.NewLayout(specs, nil); err != nil {
		return nil, err
	}
	l.size = l.File.Total
	return l, nil
}

func (p *EncodeParams) castLayout(m *shard.Manifest, index int, out *ItemLayout, l *Layout) error {
	v, err := p.linear(index)
	if err != nil {
		return err
	}
	d, err := m.LinearDType(v)
	if err != nil {
		return err
	}
	out.Tensors = []shard.TensorSpec{{Name: v.Name + ".weight", DType: d, Shape: []int64{v.Rows, v.Cols}}}
	l.SourceBytes += v.Rows * v.Cols * d.Size()
	need, err := panelNeed(m, v, 1, 0)
	l.Memory = max(l.Memory, overhead+need)
	return err
}

// resolve works out what a method makes of a linear.
func (p *EncodeParams) resolve(m *shard.Manifest, e *EncodeLinear) (EncodedLayout, error) {
	v, err := p.linear(e.Linear)
	if err != nil {
		return EncodedLayout{}, err
	}
	method, err := e.method()
	if err != nil {
		return EncodedLayout{}, err
	}
	al, err := AsLinear(m, v)
	if err != nil {
		return EncodedLayout{}, err
	}
	made, err := method.Layout(al)
	if err != nil {
		return EncodedLayout{}, err
	}
	x := EncodedLayout{Linear: v, Method: method, Layout: made, Format: e.Format, Seed: e.Seed, At: -1}
	if len(e.Share) == 0 {
		return x, nil
	}
	for i, index := range e.Share {
		peer, err := p.linear(index)
		if err != nil {
			return EncodedLayout{}, err
		}
		x.Share = append(x.Share, peer)
		if index == e.Linear {
			x.At = i
		}
	}
	if x.At < 0 {
		return EncodedLayout{}, fmt.Errorf("parameters of %s: %w: linear %s does not share with itself", EncodeOp, task.ErrInvalid, v.Name)
	}
	return x, nil
}

func (p *EncodeParams) encodeLayout(m *shard.Manifest, e *EncodeLinear, out *ItemLayout, l *Layout) error {
	x, err := p.resolve(m, e)
	if err != nil {
		return err
	}
	out.Encoded = []EncodedLayout{x}
	d, err := m.LinearDType(x.Linear)
	if err != nil {
		return err
	}
	l.SourceBytes += x.Linear.Rows * x.Linear.Cols * d.Size()
	need, err := x.need(m, d)
	if err != nil {
		return err
	}
	if e.Format == FormatDense {
		out.Tensors = []shard.TensorSpec{{Name: x.Linear.Tensor, DType: d, Shape: []int64{x.Linear.Rows, x.Linear.Cols}}}
	} else {
		q, err := Quantized(x)
		if err != nil {
			return err
		}
		module, err := q.Tensors()
		if err != nil {
			return err
		}
		out.stream = streaming(x.Layout.Components)
		// What streams comes first: the rest is known once it is out, and so the
		// linear is encoded once.
		slices.SortStableFunc(module, func(a, b shard.ModuleTensor) int {
			return cmp.Compare(bit(a.Part != out.stream), bit(b.Part != out.stream))
		})
		for _, t := range module {
			out.Tensors = append(out.Tensors, t.TensorSpec)
			out.module = append(out.module, t.Part)
		}
		// One component streams; the others have another place in the file and wait
		// for it in memory, those of one linear after those of another. Zero points are
		// packed into a second buffer.
		need += out.aside()
		for _, c := range x.Layout.Components {
			if shard.Part(c.Name) != out.stream {
				need += c.Bytes()
			}
		}
	}
	l.Memory = max(l.Memory, overhead+need)
	return nil
}

func (p *EncodeParams) rebuildLayout(m *shard.Manifest, it *Item, out *ItemLayout, l *Layout) error {
	t, err := tensorNamed(m, it.Rebuild)
	if err != nil {
		return err
	}
	var need int64
	for i := range it.Encode {
		x, err := p.resolve(m, &it.Encode[i])
		if err != nil {
			return err
		}
		if x.Linear.Tensor != t.Name || x.Format != FormatDense || x.Linear.Scale != "" {
			return fmt.Errorf("parameters of %s: %w: linear %s cannot be rebuilt into %s", EncodeOp, task.ErrInvalid, x.Linear.Name, t.Name)
		}
		out.Encoded = append(out.Encoded, x)
		n, err := x.need(m, t.DType)
		if err != nil {
			return err
		}
		need = max(need, n)
	}
	if len(t.Shape) != 2 && len(t.Shape) != 3 || t.Length == 0 {
		return fmt.Errorf("parameters of %s: %w: tensor %s of shape %v cannot be rebuilt", EncodeOp, task.ErrInvalid, t.Name, t.Shape)
	}
	out.Tensors = []shard.TensorSpec{{Name: t.Name, DType: t.DType, Shape: t.Shape}}
	l.SourceBytes += t.Length
	matrix := t.Length
	if len(t.Shape) == 3 && t.Shape[0] > 0 {
		matrix /= t.Shape[0]
	}
	l.Memory = max(l.Memory, overhead+matrix+need) // a matrix at a time is written by rows that arrive as columns
	return nil
}

// streaming names the component that streams: the codes, and where there are none the one of the most bytes that grows with the rows.
func streaming(components []compress.Component) shard.Part {
	var best *compress.Component
	for i := range components {
		c := &components[i]
		if c.Name == compress.ComponentCodes {
			return shard.PartCodes
		}
		if !c.Whole && (best == nil || c.Bytes() > best.Bytes()) {
			best = c
		}
	}
	if best == nil {
		return ""
	}
	return shard.Part(best.Name)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
