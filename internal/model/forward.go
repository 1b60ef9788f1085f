package model

import (
	"context"
	"fmt"
)

// Batch is the activations of some sequences between two blocks.
type Batch struct {
	X         []float32 // tokens of all sequences, one sequence after the other, × hidden, row-major
	Sequences []Sequence
}

// Sequence is a run of tokens of a batch.
type Sequence struct {
	Tokens int
	Cache  *Cache // what came before it, and where its keys and values go; nil for neither
}

// Split cuts a batch between sequences into batches of at most so many tokens, or of one sequence that is longer. They share its
// activations: what is done to them is done to the batch.
func (b *Batch) Split(hidden, most int) []*Batch {
	var parts []*Batch
	at, begin, first, tokens := 0, 0, 0, 0
	cut := func(end int) {
		if end > first {
			parts = append(parts, &Batch{X: b.X[begin*hidden : at*hidden : at*hidden], Sequences: b.Sequences[first:end]})
		}
		begin, first, tokens = at, end, 0
	}
	for i, s := range b.Sequences {
		if tokens > 0 && s.Tokens > most-tokens {
			cut(i)
		}
		at += s.Tokens
		tokens += s.Tokens
	}
	cut(len(b.Sequences))
	return parts
}

// Forward replaces the activations of a batch by what the block makes of them, and adds keys and values to the caches.
func (b *Block) Forward(ctx context.Context, batch *Batch) error {
	s, e := b.Spec, &b.m.engine
	tokens := 0
	for _, q := range batch.Sequences {
		tokens += q.Tokens
	}
	if len(batch.X) != tokens*s.Hidden {
		return fmt.Errorf("block %d: activations of %d elements for %d tokens of %d: %w", s.Index, len(batch.X), tokens, s.Hidden, ErrConfig)
	}
	if tokens == 0 {
		return nil
	}
	normed := make([]float32, len(batch.X))
	e.kernels.RMSNorm(normed, batch.X, b.attentionNorm, b.m.Config.Epsilon)
	y, err := b.attend(ctx, normed, tokens, batch.Sequences)
	if err != nil {
		return fmt.Errorf("block %d: %w", s.Index, err)
	}
	e.kernels.Add(batch.X, y)
	e.kernels.RMSNorm(normed, batch.X, b.mlpNorm, b.m.Config.Epsilon)
	if b.router != nil {
		y, err = b.route(ctx, normed, tokens)
	} else {
		y, err = e.feed(ctx, b.mlp, normed, tokens)
	}
	if err != nil {
		return fmt.Errorf("block %d: %w", s.Index, err)
	}
	e.kernels.Add(batch.X, y)
	return nil
}

// feed runs a gated MLP over n vectors.
func (e *engine) feed(ctx context.Context, g *gated, x []float32, n int) ([]float32, error) {
	gate, err := e.apply(ctx, g.gate, x, n)
	if err != nil {
		return nil, err
	}
	up, err := e.apply(ctx, g.up, x, n)
	if err != nil {
		return nil, err
	}
	e.kernels.SiLU(gate, up)
	return e.apply(ctx, g.down, gate, n)
}
