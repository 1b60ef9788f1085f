// Package story writes endless simple stories whose exact information content
// is known, so that the best possible perplexity on them is known too.
//
// The stories come from a probabilistic grammar (text.go, notation in
// syntax.go) in which a text has exactly one derivation: the bits of the
// choices that led to a text are minus the log2 of the probability of the text,
// and no model can expect to spend less on it. Names, colours, counts and
// places that a story introduces come back later in it, so a model must
// remember, keep agreement and add small numbers to come near that floor.
//
// It serves the bundled models (testdata/models/story): their training text,
// calibration text and held-out text are seeds of this package.
package story

import (
	"errors"
	"fmt"
	"math"
)

// ErrNotStory says that a text has probability zero under the grammar.
var ErrNotStory = errors.New("text is not a story of the grammar")

// Stories is an endless sequence of stories. Equal seeds give equal bytes, for
// ever. It is not safe for concurrent use.
type Stories struct {
	g   *grammar
	rng random
}

// New returns the sequence of a seed.
func New(seed uint64) (*Stories, error) {
	g, err := parseGrammar(grammarText)
	if err != nil {
		return nil, err
	}
	return &Stories{g, random{seed}}, nil
}

// Next returns the next story and its exact information content, minus the
// log2 of its probability.
func (s *Stories) Next() (text string, bits float64, err error) {
	text, bits, err = s.g.draw(&s.rng)
	if err != nil {
		return "", 0, fmt.Errorf("write story: %w", err)
	}
	return text, bits, nil
}

// Bits returns the exact information content of any story of the grammar,
// found from its text alone, or ErrNotStory.
func (s *Stories) Bits(text string) (float64, error) { return s.g.bits(text) }

// Entropy returns the exact mean of the bits of a story.
func (s *Stories) Entropy() float64 { return s.g.entropy(s.g.rules[start]) }

// entropy sums over all derivations: since no distribution depends on earlier
// choices, that of a sequence is the sum of those of its parts. Rules do not
// call themselves.
func (g *grammar) entropy(nodes []node) float64 {
	var sum float64
	for i := range nodes {
		n := &nodes[i]
		switch n.kind {
		case nodeRule:
			sum += g.entropy(g.rules[n.text])
		case nodePick:
			count := len(n.numbers)
			if n.numbers == nil {
				count = g.lists[n.source].span - len(n.without)
			}
			sum += math.Log2(float64(count))
		case nodeChoice:
			var total uint64
			for _, w := range n.weights {
				total += w
			}
			for k, w := range n.weights {
				p := float64(w) / float64(total)
				sum += p * (g.entropy(n.bodies[k]) - math.Log2(p))
			}
		}
	}
	return sum
}
