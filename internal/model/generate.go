package model

import (
	"context"
	"fmt"
	"slices"
)

// Stop is why a generation ended.
type Stop string

// Reasons to stop.
const (
	StopEnd     Stop = "end"     // the model ended its text
	StopLength  Stop = "length"  // as many tokens as were wanted
	StopContext Stop = "context" // no more tokens fit into the model's context
)

// Generation says what to generate.
type Generation struct {
	Prompt   []int // to continue, one token at least
	Most     int   // tokens to generate at most
	Ends     []int // tokens that end a text
	Sampling Sampling
	Each     func(token int) error // is given every token as it is chosen; may be nil
}

// Generate continues a prompt and returns the tokens that follow it, without the one that ends them. The prompt is fed at once, every
// token after it by itself with the keys and values of those before; so kept blocks (Keep) are what makes it fast.
func (m *Model) Generate(ctx context.Context, g Generation) ([]int, Stop, error) {
	if len(g.Prompt) == 0 {
		return nil, "", fmt.Errorf("generate: the prompt has no tokens: %w", ErrToken)
	}
	if n := len(g.Prompt); n > m.Config.Context {
		return nil, "", fmt.Errorf("generate: the prompt has %d tokens, the model's context is %d: %w; shorten the prompt", n, m.Config.Context, ErrContext)
	}
	s, err := NewSampler(m.engine.kernels, g.Sampling)
	if err != nil {
		return nil, "", fmt.Errorf("generate: %w", err)
	}
	var tokens []int
	cache, feed := m.NewCache(), g.Prompt
	for len(tokens) < g.Most {
		if len(g.Prompt)+len(tokens) > m.Config.Context {
			return tokens, StopContext, nil
		}
		if err := ctx.Err(); err != nil {
			return tokens, "", err
		}
		logits, err := m.Logits(ctx, feed, cache, 1)
		if err != nil {
			return tokens, "", fmt.Errorf("generate token %d: %w", len(tokens), err)
		}
		next, err := s.Next(logits)
		if err != nil {
			return tokens, "", fmt.Errorf("generate token %d: %w", len(tokens), err)
		}
		if slices.Contains(g.Ends, next) {
			return tokens, StopEnd, nil
		}
		tokens, feed = append(tokens, next), []int{next}
		if g.Each != nil {
			if err := g.Each(next); err != nil {
				return tokens, "", err
			}
		}
	}
	return tokens, StopLength, nil
}
