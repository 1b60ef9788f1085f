package model

import (
	"context"
	"fmt"
	"strings"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// Spec is the shape of a block, taken from its tensors.
type Spec struct {
	Index        int
	Hidden       int
	Heads        int // of queries
	KVHeads      int // of keys and values, each read by Heads/KVHeads queries
	HeadDim      int
	Window       int // positions that a token sees, itself included; 0 for all before it
	Intermediate int // width of the MLP, or of the first expert
	Experts      int // 0 for a dense MLP
}

// Block is a decoder block whose weights are in memory, apart from its experts.
type Block struct {
	Spec Spec

	m                      *Model
	attentionNorm, mlpNorm []float32 // hidden
	query, key, value, out *linear
	queryNorm, keyNorm     []float32 // head dim, or nil
	mlp                    *gated    // or
	router                 *linear   // with experts
	experts                []string  // prefixes of their modules
	resident               []*gated  // experts that are kept, or nil
	consumed               map[string]struct{}
}

// gated is an MLP of three linears.
type gated struct{ gate, up, down *linear }

// Block loads a decoder block.
func (m *Model) Block(ctx context.Context, i int) (*Block, error) {
	if m.kept != nil {
		return m.kept[i], nil
	}
	return m.load(ctx, i, false)
}

func (m *Model) load(ctx context.Context, i int, keep bool) (*Block, error) {
	b := &Block{m: m, Spec: Spec{Index: i, Hidden: m.Config.Hidden, HeadDim: m.Config.HeadDim, Window: m.Config.Windows[i]}, consumed: map[string]struct{}{}}
	for _, step := range []func(context.Context, bool) error{b.loadAttention, b.loadMLP} {
		if err := step(ctx, keep); err != nil {
			return nil, fmt.Errorf("load block %d: %w", i, err)
		}
	}
	for _, name := range m.tensors[i] {
		if _, ok := b.consumed[name]; !ok && !ignorable(name) {
			return nil, fmt.Errorf("load block %d: tensor %q: nothing in a model of type %s reads it: %w", i, name, m.Config.ModelType, ErrUnsupported)
		}
	}
	return b, nil
}

// module is the full name of a module of the block.
func (b *Block) module(name string) string {
	return fmt.Sprintf("%s.%d.%s", b.m.ck.Manifest.Model.BlockPrefix, b.Spec.Index, name)
}

func (b *Block) loadAttention(ctx context.Context, _ bool) error {
	n, s, c := b.m.family.names, &b.Spec, &b.m.Config
	var err error
	if b.attentionNorm, err = b.norm(ctx, n.attentionNorm, s.Hidden); err != nil {
		return err
	}
	if b.mlpNorm, err = b.norm(ctx, n.mlpNorm, s.Hidden); err != nil {
		return err
	}
	for _, x := range []struct {
		to   **linear
		name string
	}{{&b.query, n.query}, {&b.key, n.key}, {&b.value, n.value}, {&b.out, n.output}} {
		if *x.to, err = b.linear(ctx, x.name, true); err != nil {
			return err
		}
	}
	if s.Heads, err = b.heads(b.query, "num_attention_heads", c.Heads); err != nil {
		return err
	}
	if s.KVHeads, err = b.heads(b.key, "num_key_value_heads", c.KVHeads); err != nil {
		return err
	}
	width := s.Heads * s.HeadDim
	if s.Heads%s.KVHeads != 0 {
		return fmt.Errorf("%d heads of queries cannot share %d of keys: %w", s.Heads, s.KVHeads, ErrConfig)
	}
	for _, x := range []struct {
		l          *linear
		rows, cols int
	}{{b.query, width, s.Hidden}, {b.key, s.KVHeads * s.HeadDim, s.Hidden}, {b.value, s.KVHeads * s.HeadDim, s.Hidden}, {b.out, s.Hidden, width}} {
		if err := x.l.shaped(x.rows, x.cols); err != nil {
			return err
		}
	}
	if b.m.family.headNorm {
		if b.queryNorm, err = b.norm(ctx, n.queryNorm, s.HeadDim); err != nil {
			return err
		}
		b.keyNorm, err = b.norm(ctx, n.keyNorm, s.HeadDim)
	}
	return err
}

// heads counts the heads that a linear makes.
func (b *Block) heads(l *linear, key string, most int) (int, error) {
	dim := b.Spec.HeadDim
	if l.rows%dim != 0 || l.rows/dim > most {
		return 0, fmt.Errorf("linear %s has %d rows, %s says %s %d of %d rows each: %w", l.name, l.rows, shard.ConfigName, key, most, dim, ErrConfig)
	}
	return l.rows / dim, nil
}

// shaped refuses a linear of another shape.
func (l *linear) shaped(rows, cols int) error {
	if l.rows != rows || l.cols != cols {
		return fmt.Errorf("linear %s is %d × %d, what surrounds it wants %d × %d: %w", l.name, l.rows, l.cols, rows, cols, ErrConfig)
	}
	return nil
}

func (b *Block) loadMLP(ctx context.Context, keep bool) error {
	n := b.m.family.names
	if b.m.family.experts {
		router, tensors, err := b.m.linear(ctx, b.module(n.router), true)
		if err != nil {
			return err
		}
		if router != nil {
			b.consume(tensors...)
			b.router = router
			return b.loadExperts(ctx, keep)
		}
	}
	var err error
	if b.mlp, err = b.gated(ctx, "", n.gate, n.up, n.down, true); err != nil {
		return err
	}
	if b.Spec.Intermediate = b.mlp.gate.rows; b.Spec.Intermediate > b.m.Config.Intermediate {
		return fmt.Errorf("linear %s has %d rows, %s says intermediate_size %d: %w", b.mlp.gate.name, b.Spec.Intermediate, shard.ConfigName, b.m.Config.Intermediate, ErrConfig)
	}
	return nil
}

// gated finds the three linears of an MLP, whose names follow the prefix.
func (b *Block) gated(ctx context.Context, prefix, gate, up, down string, load bool) (*gated, error) {
	g := &gated{}
	var err error
	if g.gate, err = b.linear(ctx, prefix+gate, load); err != nil {
		return nil, err
	}
	if g.up, err = b.linear(ctx, prefix+up, load); err != nil {
		return nil, err
	}
	if g.down, err = b.linear(ctx, prefix+down, load); err != nil {
		return nil, err
	}
	width := g.gate.rows
	if err = g.gate.shaped(width, b.Spec.Hidden); err == nil {
		err = g.up.shaped(width, b.Spec.Hidden)
	}
	if err == nil {
		err = g.down.shaped(b.Spec.Hidden, width)
	}
	return g, err
}

func (b *Block) consume(tensors ...string) {
	for _, t := range tensors {
		b.consumed[t] = struct{}{}
	}
}

// linear finds a linear of the block and its bias, as far as the family has one.
func (b *Block) linear(ctx context.Context, name string, load bool) (*linear, error) {
	module := b.module(name)
	l, tensors, err := b.m.linear(ctx, module, load)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, fmt.Errorf("tensor %q: %w", module+".weight", shard.ErrMissing)
	}
	b.consume(tensors...)
	bias := module + ".bias"
	_, have := b.m.ck.Manifest.Tensor(bias)
	f := b.m.family
	if contains(f.biases, name) || have && contains(f.optional, name) {
		if l.bias, err = b.m.vector(ctx, bias, l.rows); err != nil {
			return nil, err
		}
		b.consume(bias)
	}
	return l, nil
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func (b *Block) norm(ctx context.Context, name string, n int) ([]float32, error) {
	t := b.module(name) + ".weight"
	b.consume(t)
	return b.m.vector(ctx, t, n)
}

// linear finds a linear by its module, and loads it if it is asked to; nil if there is none.
func (m *Model) linear(ctx context.Context, module string, load bool) (*linear, []string, error) {
	if m.reader != nil {
		w, tensors, err := m.reader.Linear(ctx, module)
		if err != nil {
			return nil, nil, fmt.Errorf("linear %s: %w", module, err)
		}
		if w != nil {
			l := &linear{name: module, w: w}
			l.rows, l.cols = w.Size()
			return l, tensors, nil
		}
	}
	view, ok := m.linears[module]
	if !ok {
		return nil, nil, nil
	}
	s, err := newStored(m.ck, view)
	if err != nil {
		return nil, nil, err
	}
	if load {
		if err := s.load(ctx); err != nil {
			return nil, nil, err
		}
	}
	l := &linear{name: module, w: s}
	l.rows, l.cols = s.Size()
	tensors := []string{view.Tensor}
	if view.Scale != "" {
		tensors = append(tensors, view.Scale, strings.TrimSuffix(view.Tensor, ".weight")+".input_scale")
	}
	return l, tensors, nil
}

// vector reads a tensor of n numbers: a norm or a bias.
func (m *Model) vector(ctx context.Context, name string, n int) ([]float32, error) {
	t, ok := m.ck.Manifest.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("tensor %q: %w", name, shard.ErrMissing)
	}
	if len(t.Shape) != 1 || t.Shape[0] != int64(n) || !t.DType.Float() {
		return nil, fmt.Errorf("tensor %q is %s of shape %v, want %d floats: %w", name, t.DType, t.Shape, n, ErrConfig)
	}
	d, err := tensor.ParseDType(string(t.DType))
	if err != nil {
		return nil, err
	}
	raw, v := make([]byte, t.Length), make([]float32, n)
	if err := m.ck.ReadAt(ctx, t.File, raw, t.Offset); err != nil {
		return nil, fmt.Errorf("read tensor %q: %w", name, err)
	}
	tensor.ToFloat32(v, raw, d)
	if i := tensor.Finite(v); i >= 0 {
		return nil, fmt.Errorf("tensor %q: element %d is %v: %w; look for damaged weights", name, i, v[i], ErrNotFinite)
	}
	return v, nil
}
