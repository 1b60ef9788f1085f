package model

import (
	"fmt"
	"math"
	"sync"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// Rotary says how positions turn queries and keys.
type Rotary struct {
	Kind     string  // default, linear, llama3 or yarn
	Base     float64 // rope_theta
	Factor   float64 // by which the context was stretched; 0 for default
	Original int     // context before stretching
	Low      float64 // llama3: low_freq_factor; yarn: beta_slow
	High     float64 // llama3: high_freq_factor; yarn: beta_fast
	Truncate bool    // yarn: dimensions are rounded outwards
	Scale    float64 // of cosines and sines
}

// parseRotary reads rope_theta and rope_scaling, or rope_parameters of newer files, which holds both.
func parseRotary(f *fields, c *Config) (Rotary, error) {
	r := Rotary{Kind: "default", Base: f.real("rope_theta", 10000, 1, 1e15), Scale: 1}
	key := "rope_scaling"
	if f.has("rope_parameters") {
		key = "rope_parameters"
	}
	if !f.has(key) {
		return r, f.err
	}
	s, err := parseFields(shard.ConfigName+": "+key, f.m[key])
	if err != nil {
		return r, err
	}
	r.Base = s.real("rope_theta", r.Base, 1, 1e15)
	r.Kind = s.str("rope_type", s.str("type", "default"))
	r.Original = s.size("original_max_position_embeddings", c.Context)
	if partial := s.real("partial_rotary_factor", 1, 0, 1); partial != 1 {
		return r, fmt.Errorf("%s: partial_rotary_factor %g: %w", s.where, partial, ErrUnsupported)
	}
	switch r.Kind {
	case "default":
		return r, s.err
	case "linear":
	case "llama3":
		r.Low, r.High = s.real("low_freq_factor", 1, 1e-3, 1e6), s.real("high_freq_factor", 4, 1e-3, 1e6)
		if r.High <= r.Low && s.err == nil {
			return r, fmt.Errorf("%s: high_freq_factor %g is not above low_freq_factor %g: %w", s.where, r.High, r.Low, ErrConfig)
		}
	case "yarn":
		r.Low, r.High = s.real("beta_slow", 1, 1e-3, 1e6), s.real("beta_fast", 32, 1e-3, 1e6)
		r.Truncate = !s.has("truncate") || s.flag("truncate")
	default:
		return r, fmt.Errorf("%s: rotary scaling %q: %w; default, linear, llama3 and yarn are", s.where, r.Kind, ErrUnsupported)
	}
	if !s.has("factor") && s.err == nil {
		return r, fmt.Errorf("%s: \"factor\" is missing: %w", s.where, ErrConfig)
	}
	r.Factor = s.real("factor", 1, 1, 1e6)
	if r.Kind == "yarn" {
		r.Scale = yarnScale(s, r.Factor)
	}
	return r, s.err
}

// yarnScale is √(1/t) of Peng et al., "YaRN", 2023, equation 22, or what the file puts in its place.
func yarnScale(s *fields, factor float64) float64 {
	magnitude := func(m float64) float64 {
		if factor <= 1 {
			return 1
		}
		return 0.1*m*tensor.Log64(factor) + 1
	}
	fallback := magnitude(1)
	if a, b := s.real("mscale", 0, 0, 1e3), s.real("mscale_all_dim", 0, 0, 1e3); a != 0 && b != 0 {
		fallback = magnitude(a) / magnitude(b)
	}
	return s.real("attention_factor", fallback, 1e-3, 1e3)
}

// frequencies returns the angle that one position turns each of dim/2 pairs by.
func (r Rotary) frequencies(dim int) []float32 {
	inverse := make([]float32, dim/2)
	logBase := tensor.Log64(r.Base)
	low, high := r.ramp(dim)
	for i := range inverse {
		// RoFormer, equation 15: base^(-2i/dim).
		w := tensor.Exp64(-logBase * float64(2*i) / float64(dim))
		switch r.Kind {
		case "linear":
			w /= r.Factor
		case "llama3":
			w = r.llama3(w)
		case "yarn":
			// YaRN, equations 11 to 13, between dimensions instead of wavelengths, as in the authors' code.
			t := (float64(i) - low) / (high - low)
			t = math.Max(0, math.Min(t, 1))
			w = float64(w/r.Factor*t) + float64(w*(1-t))
		}
		inverse[i] = float32(w)
	}
	return inverse
}

// llama3 leaves short waves alone, stretches long ones, and mixes between: the piecewise rule of Llama 3.1's configuration,
// "The Llama 3 Herd of Models", 2024, section 3.4.2.
func (r Rotary) llama3(w float64) float64 {
	length := 2 * math.Pi / w
	original := float64(r.Original)
	switch {
	case length < original/r.High:
		return w
	case length > original/r.Low:
		return w / r.Factor
	}
	t := (original/length - r.Low) / (r.High - r.Low)
	return float64((1-t)*w/r.Factor) + float64(t*w)
}

// ramp returns the pairs between which yarn goes over from turning as trained to stretching.
func (r Rotary) ramp(dim int) (low, high float64) {
	if r.Kind != "yarn" {
		return 0, 1
	}
	at := func(turns float64) float64 {
		return float64(dim) * tensor.Log64(float64(r.Original)/(turns*2*math.Pi)) / (2 * tensor.Log64(r.Base))
	}
	low, high = at(r.High), at(r.Low)
	if r.Truncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = math.Max(low, 0), math.Min(high, float64(dim-1))
	if low == high {
		high += 0.001
	}
	return low, high
}

// rotations keeps cosines and sines of the positions that were asked for.
type rotations struct {
	rotary Rotary
	dim    int

	mu       sync.Mutex
	inverse  []float32
	cos, sin []float32 // positions × dim/2, row-major
}

// upTo returns the tables for at least n positions.
func (t *rotations) upTo(n int) (cos, sin []float32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inverse == nil {
		t.inverse = t.rotary.frequencies(t.dim)
	}
	half := len(t.inverse)
	if have := len(t.cos) / half; have < n {
		// Readers of the old tables keep them.
		cos, sin := make([]float32, n*half), make([]float32, n*half)
		copy(cos, t.cos)
		copy(sin, t.sin)
		for p := have; p < n; p++ {
			for i, w := range t.inverse {
				// The angle is rounded to float32, as everybody does who trains and runs these models.
				s, c := tensor.SinCos64(float64(float32(p) * w))
				cos[p*half+i], sin[p*half+i] = float32(c*t.rotary.Scale), float32(s*t.rotary.Scale)
			}
		}
		t.cos, t.sin = cos, sin
	}
	return t.cos, t.sin
}
