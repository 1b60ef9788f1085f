package model

import (
	"context"
	"fmt"

	"github.com/shardpress/shardpress/shard"
)

// loadExperts finds the experts that a router chooses among.
func (b *Block) loadExperts(ctx context.Context, keep bool) error {
	n, c := b.m.family.names, b.m.Config
	count := b.router.rows
	if err := b.router.shaped(count, b.Spec.Hidden); err != nil {
		return err
	}
	if count > c.Experts || c.ExpertsPerToken > count {
		return fmt.Errorf("linear %s has %d rows, %s says %d experts with %d for a token: %w",
			b.router.name, count, shard.ConfigName, c.Experts, c.ExpertsPerToken, ErrConfig)
	}
	b.Spec.Experts = count
	for i := range count {
		prefix := fmt.Sprintf("%s.%d.", n.experts, i)
		b.experts = append(b.experts, prefix)
		g, err := b.expert(ctx, i, keep)
		if err != nil {
			return err
		}
		if i == 0 {
			b.Spec.Intermediate = g.gate.rows
		}
		if g.gate.rows > c.ExpertWidth {
			return fmt.Errorf("linear %s has %d rows, %s says moe_intermediate_size %d: %w", g.gate.name, g.gate.rows, shard.ConfigName, c.ExpertWidth, ErrConfig)
		}
		if keep {
			b.resident = append(b.resident, g)
		}
	}
	return nil
}

// expert finds an expert and reads it if load says so.
func (b *Block) expert(ctx context.Context, i int, load bool) (*gated, error) {
	n := b.m.family.names
	return b.gated(ctx, b.experts[i], n.expertGate, n.expertUp, n.expertDown, load)
}

// choice is an expert chosen for a token.
type choice struct {
	row    int
	weight float32
}

// route sends n vectors through the experts that the router chooses, one expert after the other, and adds up what they make of a
// vector in the order of their numbers, by fused steps from zero.
func (b *Block) route(ctx context.Context, x []float32, n int) ([]float32, error) {
	e, s, c := &b.m.engine, b.Spec, b.m.Config
	scores, err := e.apply(ctx, b.router, x, n)
	if err != nil {
		return nil, err
	}
	sent := make([][]choice, s.Experts)
	for i := range n {
		row := scores[i*s.Experts:][:s.Experts]
		e.kernels.Softmax(1, row)
		chosen := largest(row, c.ExpertsPerToken)
		sum := float32(1)
		if c.NormalizeTop {
			sum = 0
			for _, at := range chosen {
				sum += row[at]
			}
		}
		for _, at := range chosen {
			sent[at] = append(sent[at], choice{i, row[at] / sum})
		}
	}
	y := make([]float32, n*s.Hidden)
	for at, to := range sent {
		if len(to) == 0 {
			continue
		}
		var g *gated
		if b.resident != nil {
			g = b.resident[at]
		} else if g, err = b.expert(ctx, at, true); err != nil {
			return nil, err
		}
		in := make([]float32, len(to)*s.Hidden)
		for i, ch := range to {
			copy(in[i*s.Hidden:][:s.Hidden], x[ch.row*s.Hidden:])
		}
		out, err := e.feed(ctx, g, in, len(to))
		if err != nil {
			return nil, err
		}
		for i, ch := range to {
			e.kernels.AXPY(ch.weight, out[i*s.Hidden:][:s.Hidden], y[ch.row*s.Hidden:][:s.Hidden])
		}
	}
	return y, nil
}

// largest returns the places of the k largest numbers, the largest first and of equal ones that which comes first.
func largest(x []float32, k int) []int {
	at := make([]int, 0, k+1)
	for i, v := range x {
		j := len(at)
		for j > 0 && x[at[j-1]] < v {
			j--
		}
		if j == k {
			continue
		}
		at = append(at, 0)
		copy(at[j+1:], at[j:])
		at[j] = i
		at = at[:min(len(at), k)]
	}
	return at
}
