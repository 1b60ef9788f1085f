package model

import (
	"context"
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// Head is the final norm and the matrix that makes logits, of which it keeps only the norm.
type Head struct {
	m    *Model
	norm []float32
	l    *linear
}

// Head opens the head, which is the embedding where both are tied.
func (m *Model) Head(ctx context.Context) (*Head, error) {
	if m.head != nil {
		return m.head, nil
	}
	h := &Head{m: m}
	var err error
	if h.norm, err = m.vector(ctx, m.prefix+m.family.names.norm+".weight", m.Config.Hidden); err != nil {
		return nil, fmt.Errorf("open head: %w", err)
	}
	name := m.family.names.head
	if m.ck.Manifest.Model.Tied {
		s, err := newStored(m.ck, m.table)
		if err != nil {
			return nil, fmt.Errorf("open head: %w", err)
		}
		h.l = &linear{name: m.table.Name, rows: m.Config.Vocabulary, cols: m.Config.Hidden, w: s}
		return h, nil
	}
	var l *linear
	if l, _, err = m.linear(ctx, name, false); err != nil {
		return nil, fmt.Errorf("open head: %w", err)
	}
	if l == nil {
		return nil, fmt.Errorf("open head: tensor %q: %w; if the model ties it to its embedding, %s must say tie_word_embeddings", name+".weight", shard.ErrMissing, shard.ConfigName)
	}
	if l.rows != m.Config.Vocabulary || l.cols != m.Config.Hidden {
		return nil, fmt.Errorf("open head: %s is %d × %d, vocab_size and hidden_size of %s say %d × %d: %w",
			name, l.rows, l.cols, shard.ConfigName, m.Config.Vocabulary, m.Config.Hidden, ErrConfig)
	}
	h.l = l
	return h, nil
}

// headPanel is how many tokens of the vocabulary are scored at a time. Losses are summed panel by panel, so it is part of their definition.
const headPanel = 4096

// Panels computes logits of activations, n × hidden, for a panel of the vocabulary at a time, and gives them to do: n × tokens,
// row-major, from token first on, in order. They are do's only until it returns. A model whose vocabulary is large so never needs
// memory for all logits of a window.
func (h *Head) Panels(ctx context.Context, x []float32, do func(first, tokens int, logits []float32) error) error {
	e, l := &h.m.engine, h.l
	n := len(x) / l.cols
	normed := make([]float32, len(x))
	e.kernels.RMSNorm(normed, x, h.norm, h.m.Config.Epsilon)
	w, back := e.lend(min(headPanel, l.rows) * l.cols)
	defer back()
	logits := make([]float32, n*min(headPanel, l.rows))
	for row := 0; row < l.rows; row += headPanel {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := min(headPanel, l.rows-row)
		if err := l.w.Rows(ctx, w[:rows*l.cols], row, rows); err != nil {
			return fmt.Errorf("read linear %s: %w", l.name, err)
		}
		out := logits[:n*rows]
		e.kernels.GEMM(e.threads, false, true, n, rows, l.cols, normed, l.cols, w, l.cols, out, rows, false)
		if i := tensor.Finite(out); i >= 0 {
			return fmt.Errorf("head, linear %s: logit of token %d in row %d of the batch is %v: %w; look for damaged weights",
				l.name, row+i%rows, i/rows, out[i], ErrNotFinite)
		}
		if err := do(row, rows, out); err != nil {
			return err
		}
	}
	return nil
}

// Logits returns all logits of activations, n × hidden: n × vocabulary, row-major.
func (h *Head) Logits(ctx context.Context, x []float32) ([]float32, error) {
	v := h.l.rows
	n := len(x) / h.l.cols
	all := make([]float32, n*v)
	err := h.Panels(ctx, x, func(first, tokens int, logits []float32) error {
		for i := range n {
			copy(all[i*v+first:][:tokens], logits[i*tokens:])
		}
		return nil
	})
	return all, err
}
