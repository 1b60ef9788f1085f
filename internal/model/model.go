package model

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// Options say how to run a model.
type Options struct {
	Kernels *tensor.Kernels // nil for the fastest
	Threads int             // less than two: one
	Reader  Reader          // of linears that are not plain floats; nil for one of integers in the formats of compressed-tensors
}

// Model is an opened checkpoint of a known family. It holds no weights but those of kept blocks, and may be used by many goroutines.
type Model struct {
	Config Config

	ck     *shard.Checkpoint
	family *family
	reader Reader
	engine engine
	// linears of the checkpoint by module, tensors of a block by number.
	linears map[string]shard.Linear
	tensors [][]string
	prefix  string // of the decoder: "model."
	table   shard.Linear
	kept    []*Block
	head    *Head
}

// Open reads the headers and config.json of a checkpoint and refuses what cannot be run. The checkpoint stays the caller's to close.
func Open(ck *shard.Checkpoint, o Options) (*Model, error) {
	c, f, err := parseConfig(ck.Config)
	if err != nil {
		return nil, err
	}
	m := &Model{Config: c, ck: ck, family: f, reader: o.Reader, linears: map[string]shard.Linear{}, tensors: make([][]string, c.Layers)}
	m.engine = engine{kernels: o.Kernels, threads: max(o.Threads, 1), rotary: &rotations{rotary: c.Rotary, dim: c.HeadDim}}
	if m.engine.kernels == nil {
		m.engine.kernels = tensor.Detect()
	}
	manifest := ck.Manifest
	if m.reader == nil {
		r, err := newIntegers(ck)
		if err != nil {
			return nil, fmt.Errorf("open model: %w", err)
		}
		if r != nil {
			m.reader = r
		}
	}
	if m.reader == nil {
		if err := manifest.CheckSource(); err != nil {
			return nil, fmt.Errorf("open model: %w", err)
		}
	}
	if manifest.Model.Blocks != c.Layers {
		return nil, fmt.Errorf("open model: %s says %d blocks, the tensors make %d: %w", shard.ConfigName, c.Layers, manifest.Model.Blocks, ErrConfig)
	}
	i := strings.LastIndexByte(manifest.Model.BlockPrefix, '.')
	m.prefix = manifest.Model.BlockPrefix[:i+1]
	for _, l := range manifest.Linears {
		m.linears[l.Name] = l
	}
	if err := m.outer(); err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	return m, nil
}

// outer finds what lies outside of the blocks, and refuses what it does not know.
func (m *Model) outer() error {
	manifest, n := m.ck.Manifest, m.family.names
	embedding, norm, head := m.prefix+n.embedding+".weight", m.prefix+n.norm+".weight", n.head+".weight"
	for _, p := range manifest.Places {
		switch {
		case p.Block >= 0 && p.Block < len(m.tensors):
			m.tensors[p.Block] = append(m.tensors[p.Block], p.Tensor)
		case p.Tensor == embedding, p.Tensor == norm, p.Tensor == head, ignorable(p.Tensor):
		case m.reader != nil && strings.HasPrefix(p.Tensor, n.head+"."): // components of an encoded head
		default:
			return fmt.Errorf("tensor %q: nothing in a model of type %s reads it: %w", p.Tensor, m.Config.ModelType, ErrUnsupported)
		}
	}
	name := embedding
	t, ok := manifest.Tensor(name)
	if !ok && manifest.Model.Tied {
		name = head
		t, ok = manifest.Tensor(name)
	}
	if !ok {
		return fmt.Errorf("tensor %q: %w", embedding, shard.ErrMissing)
	}
	want := []int64{int64(m.Config.Vocabulary), int64(m.Config.Hidden)}
	if !slices.Equal(t.Shape, want) {
		return fmt.Errorf("tensor %q has shape %v, vocab_size and hidden_size of %s say %v: %w", name, t.Shape, shard.ConfigName, want, ErrConfig)
	}
	m.table = m.plain(name, t)
	return nil
}

// ignorable tensors are tables that old checkpoints carry along and everybody computes.
func ignorable(tensor string) bool { return strings.HasSuffix(tensor, ".rotary_emb.inv_freq") }

// plain is the view of a whole matrix.
func (m *Model) plain(name string, t shard.Tensor) shard.Linear {
	module := strings.TrimSuffix(name, ".weight")
	if l, ok := m.linears[module]; ok {
		return l // with its scales
	}
	return shard.Linear{Name: module, Tensor: name, Rows: t.Shape[0], Cols: t.Shape[1], RowStep: 1, Expert: -1, Block: -1, Role: shard.RoleOther}
}

// Blocks returns the number of decoder blocks.
func (m *Model) Blocks() int { return m.Config.Layers }

// Kernels returns what the model computes with, and how many threads it may use.
func (m *Model) Kernels() (k *tensor.Kernels, threads int) { return m.engine.kernels, m.engine.threads }

// CheckVocabulary refuses a tokenizer that can give tokens which the model has no embedding for. Size is its largest token and one.
func (m *Model) CheckVocabulary(size int) error {
	if size > m.Config.Vocabulary {
		return fmt.Errorf("the tokenizer has %d tokens, the model %d: %w; take the model's own tokenizer", size, m.Config.Vocabulary, ErrToken)
	}
	return nil
}

// Keep loads all blocks and the head, and keeps them, for a model that fits and is run many times.
func (m *Model) Keep(ctx context.Context) error {
	kept := make([]*Block, m.Blocks())
	for i := range kept {
		b, err := m.load(ctx, i, true)
		if err != nil {
			return err
		}
		kept[i] = b
	}
	head, err := m.Head(ctx)
	if err != nil {
		return err
	}
	if s, ok := head.l.w.(*stored); ok && s.raw == nil {
		if err := s.load(ctx); err != nil {
			return err
		}
	}
	m.kept, m.head = kept, head
	return nil
}

// Embed looks up the tokens of sequences: a batch without caches.
func (m *Model) Embed(ctx context.Context, sequences ...[]int) (*Batch, error) {
	width := m.Config.Hidden
	b := &Batch{}
	type use struct{ token, row int }
	var uses []use
	for i, s := range sequences {
		if len(s) > m.Config.Context {
			return nil, fmt.Errorf("sequence %d has %d tokens, the model's context %d: %w; use a smaller window", i, len(s), m.Config.Context, ErrContext)
		}
		for j, token := range s {
			if token < 0 || token >= m.Config.Vocabulary {
				return nil, fmt.Errorf("token %d of sequence %d is %d, the model has %d: %w; take the model's own tokenizer", j, i, token, m.Config.Vocabulary, ErrToken)
			}
			uses = append(uses, use{token, len(uses)})
		}
		b.Sequences = append(b.Sequences, Sequence{Tokens: len(s)})
	}
	b.X = make([]float32, len(uses)*width)
	slices.SortFunc(uses, func(a, b use) int { return cmp.Or(cmp.Compare(a.token, b.token), cmp.Compare(a.row, b.row)) })
	table, err := newStored(m.ck, m.table)
	if err != nil {
		return nil, err
	}
	for i, u := range uses {
		row := b.X[u.row*width:][:width]
		if i > 0 && uses[i-1].token == u.token {
			copy(row, b.X[uses[i-1].row*width:][:width])
			continue
		}
		if err := table.Rows(ctx, row, u.token, 1); err != nil {
			return nil, err
		}
		if j := tensor.Finite(row); j >= 0 {
			return nil, fmt.Errorf("embedding %s: element %d of token %d is %v: %w; look for damaged weights", m.table.Name, j, u.token, row[j], ErrNotFinite)
		}
	}
	return b, nil
}

// Parameters counts the weights of the model, those of encoded linears as what they decode to.
func (m *Model) Parameters(ctx context.Context) (int64, error) {
	total := int64(0)
	for _, t := range m.ck.Manifest.Tensors {
		module, leaf := t.Name, ""
		if i := strings.LastIndexByte(t.Name, '.'); i >= 0 {
			module, leaf = t.Name[:i], t.Name[i+1:]
		}
		switch leaf {
		case "weight_packed":
			l, _, err := m.linear(ctx, module, false)
			if err != nil {
				return 0, err
			}
			if l != nil {
				total += int64(l.rows) * int64(l.cols)
			}
		case "weight", "bias":
			n := int64(1)
			for _, d := range t.Shape {
				n *= d
			}
			total += n
		}
	}
	return total, nil
}

// Forward runs all blocks over a batch, each loaded when its turn comes and dropped after it unless it is kept.
func (m *Model) Forward(ctx context.Context, b *Batch) error {
	for i := range m.Blocks() {
		block, err := m.Block(ctx, i)
		if err != nil {
			return err
		}
		if err := block.Forward(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// Logits runs the model over a sequence that continues what the cache holds, nil for nothing, and returns the logits of its last keep
// tokens, keep × vocabulary, row-major.
func (m *Model) Logits(ctx context.Context, tokens []int, cache *Cache, keep int) ([]float32, error) {
	if keep < 1 || keep > len(tokens) {
		return nil, fmt.Errorf("want logits of the last %d of %d tokens: %w", keep, len(tokens), ErrToken)
	}
	b, err := m.Embed(ctx, tokens)
	if err != nil {
		return nil, err
	}
	b.Sequences[0].Cache = cache
	if err := m.Forward(ctx, b); err != nil {
		return nil, err
	}
	head, err := m.Head(ctx)
	if err != nil {
		return nil, err
	}
	return head.Logits(ctx, b.X[(len(tokens)-keep)*m.Config.Hidden:])
}
