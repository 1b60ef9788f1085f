package model

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/shardpress/shardpress/internal/tensor"
)

// queryTile is how many queries of a head are scored at a time, so that a long sequence needs no square of scores and a
// causal one computes little more than half of it. It shows in no bit: a key that a token must not see has weight 0, and a chain
// of fused products is not changed by products with 0.
const queryTile = 128

// attend computes the attention of a block. x is tokens × hidden, normed; so is the result, row-major.
func (b *Block) attend(ctx context.Context, x []float32, tokens int, sequences []Sequence) ([]float32, error) {
	e, s := &b.m.engine, b.Spec
	q, err := e.apply(ctx, b.query, x, tokens)
	if err != nil {
		return nil, err
	}
	k, err := e.apply(ctx, b.key, x, tokens)
	if err != nil {
		return nil, err
	}
	v, err := e.apply(ctx, b.value, x, tokens)
	if err != nil {
		return nil, err
	}
	if b.queryNorm != nil {
		e.kernels.RMSNorm(q, q, b.queryNorm, b.m.Config.Epsilon)
		e.kernels.RMSNorm(k, k, b.keyNorm, b.m.Config.Epsilon)
	}
	queries, keys := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	out := make([]float32, len(q))
	var work []span
	at := 0
	for i, seq := range sequences {
		n := seq.Tokens
		sp := span{q: q[at*queries : (at+n)*queries], out: out[at*queries : (at+n)*queries], keys: k[at*keys : (at+n)*keys], values: v[at*keys : (at+n)*keys], tokens: n}
		at += n
		if n == 0 {
			continue
		}
		if seq.Cache != nil {
			sp.past = len(seq.Cache.blocks[s.Index].keys) / keys
		}
		if sp.past+n > b.m.Config.Context {
			return nil, fmt.Errorf("sequence %d comes to %d tokens, the model's context is %d: %w", i, sp.past+n, b.m.Config.Context, ErrContext)
		}
		cos, sin := e.rotary.upTo(sp.past + n)
		turn(e.kernels, sp.q, queries, sp.past, s.HeadDim, cos, sin)
		turn(e.kernels, sp.keys, keys, sp.past, s.HeadDim, cos, sin)
		if seq.Cache != nil {
			p := &seq.Cache.blocks[s.Index]
			p.keys, p.values = append(p.keys, sp.keys...), append(p.values, sp.values...)
			sp.keys, sp.values = p.keys, p.values
		}
		work = append(work, sp)
	}
	b.score(work)
	if i := tensor.Finite(out); i >= 0 {
		return nil, fmt.Errorf("attention: output %d of row %d of the batch is %v: %w; scores are out of range", i%queries, i/queries, out[i], ErrNotFinite)
	}
	return e.apply(ctx, b.out, out, tokens)
}

// turn rotates the heads of rows of vectors, the first of which is at position first.
func turn(k *tensor.Kernels, x []float32, width, first, dim int, cos, sin []float32) {
	half := dim / 2
	for p := first; len(x) > 0; p++ {
		c, s := cos[p*half:][:half], sin[p*half:][:half]
		for h := 0; h < width; h += dim {
			k.Rotate(x[h:h+dim], c, s)
		}
		x = x[width:]
	}
}

// span is the attention of one sequence.
type span struct {
	q, out       []float32 // tokens × (heads × head dim), row-major
	keys, values []float32 // past + tokens × (key-value heads × head dim), row-major
	past, tokens int
}

// score deals out the heads of all sequences to the threads.
func (b *Block) score(work []span) {
	heads := b.Spec.Heads
	jobs := len(work) * heads
	var next struct {
		sync.Mutex
		i int
	}
	run := func() {
		var scores []float32
		for {
			next.Lock()
			i := next.i
			next.i++
			next.Unlock()
			if i >= jobs {
				return
			}
			scores = b.head(&work[i/heads], i%heads, scores)
		}
	}
	var wg sync.WaitGroup
	for range min(b.m.engine.threads, jobs) - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
}

// head computes softmax(q·kᵀ/√dim)·v of one head (Vaswani et al., "Attention Is All You Need", 2017, equation 1) and returns its
// scratch. Every score is a chain over the head's elements, every output one over the positions in order.
func (b *Block) head(w *span, h int, scores []float32) []float32 {
	s, k := b.Spec, b.m.engine.kernels
	d, queries, width := s.HeadDim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	shared := h / (s.Heads / s.KVHeads) * d
	scale := float32(1 / math.Sqrt(float64(d)))
	for t := 0; t < w.tokens; t += queryTile {
		n := min(queryTile, w.tokens-t)
		low, high := s.sees(w.past+t), w.past+t+n // keys that any query of the tile sees
		m := high - low
		if cap(scores) < n*m {
			scores = make([]float32, n*m)
		}
		tile := scores[:n*m] // n × m, row-major
		k.GEMM(1, false, true, n, m, d, w.q[t*queries+h*d:], queries, w.keys[low*width+shared:], width, tile, m, false)
		for i := range n {
			at := w.past + t + i
			from, row := s.sees(at)-low, tile[i*m:][:m]
			clear(row[:from])
			k.Softmax(scale, row[from:at+1-low])
			clear(row[at+1-low:])
		}
		k.GEMM(1, false, false, n, d, m, tile, m, w.values[low*width+shared:], width, w.out[t*queries+h*d:], queries, false)
	}
	return scores
}

// sees returns the first position that the token at a position sees.
func (s Spec) sees(at int) int {
	if s.Window == 0 {
		return 0
	}
	return max(0, at-s.Window+1)
}
