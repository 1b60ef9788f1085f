package model

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/shardpress/shardpress/internal/tensor"
)

// The temperatures that Sampling takes. Beyond them float32 has no room for the differences between scaled logits.
const (
	coldest = 0.01
	hottest = 100
)

// Sampling says how the next token is chosen among all.
type Sampling struct {
	Temperature float64 // by which logits are divided; 0 takes the likeliest token always
	TopK        int     // only so many of the likeliest tokens have a chance; 0 for all
	Seed        uint64  // of the random numbers
}

// Validate refuses what no choice can be made by.
func (s Sampling) Validate() error {
	switch {
	case s.Temperature != 0 && !(s.Temperature >= coldest && s.Temperature <= hottest):
		return fmt.Errorf("temperature %v: want %v to %v, or 0 for the likeliest token always: %w", s.Temperature, coldest, hottest, ErrSampling)
	case s.TopK < 0:
		return fmt.Errorf("top-k %d: want a count, or 0 for all tokens: %w", s.TopK, ErrSampling)
	}
	return nil
}

// Sampler chooses tokens. Equal logits in equal order give equal tokens on any machine. It belongs to one goroutine at a time.
type Sampler struct {
	o       Sampling
	kernels *tensor.Kernels
	state   uint64
	order   []int
	chances []float32
}

// NewSampler returns a sampler at the beginning of its random numbers, with the kernels given.
func NewSampler(k *tensor.Kernels, o Sampling) (*Sampler, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Sampler{o: o, kernels: k, state: o.Seed}, nil
}

// Next chooses a token by the logits of a vocabulary. Of tokens equally likely the first counts as the likeliest.
func (s *Sampler) Next(logits []float32) (int, error) {
	if len(logits) == 0 {
		return 0, fmt.Errorf("choose a token of none: %w", ErrToken)
	}
	if i := tensor.Finite(logits); i >= 0 {
		return 0, fmt.Errorf("logit of token %d is %v: %w; look for damaged weights", i, logits[i], ErrNotFinite)
	}
	if s.o.Temperature == 0 {
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		return best, nil
	}
	s.order, s.chances = s.order[:0], s.chances[:0]
	for i := range logits {
		s.order = append(s.order, i)
	}
	if k := s.o.TopK; k > 0 && k < len(s.order) {
		slices.SortFunc(s.order, func(a, b int) int { return cmp.Or(cmp.Compare(logits[b], logits[a]), cmp.Compare(a, b)) })
		s.order = s.order[:k]
	}
	for _, i := range s.order {
		s.chances = append(s.chances, logits[i])
	}
	s.kernels.Softmax(float32(1/s.o.Temperature), s.chances)
	// The chances do not add up to 1 to the last bit: the draw is among what they do add up to.
	total := 0.0
	for _, p := range s.chances {
		total += float64(p)
	}
	at, sum, last := s.uniform()*total, 0.0, 0
	for i, p := range s.chances {
		if p == 0 {
			continue
		}
		last = i
		if sum += float64(p); sum > at {
			break
		}
	}
	return s.order[last], nil
}

// uniform is a number from 0 up to but not 1, of 53 bits.
//
// The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16): a counter
// whose every value is mixed, so that seeds next to each other give streams that have nothing in common.
func (s *Sampler) uniform() float64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) * 0x1p-53
}
