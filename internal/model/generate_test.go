package model_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/internal/tensor"
)

const bundled = "../../testdata/models/"

func kept(t *testing.T, name string, o model.Options) *model.Model {
	t.Helper()
	m := open(t, filepath.Join(bundled, name), o)
	if err := m.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestGenerateGreedy holds greedy texts against transformers'.
func TestGenerateGreedy(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"story", "story-moe"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want struct {
				Start  int   `json:"start"`
				Tokens []int `json:"tokens"`
			}
			readJSON(t, filepath.Join("testdata", "bundled", name+".json"), &want)
			m := kept(t, name, model.Options{Threads: 2})
			var each []int
			g := model.Generation{Prompt: want.Tokens[:want.Start], Most: len(want.Tokens) - want.Start, Each: func(token int) error {
				each = append(each, token)
				return nil
			}}
			have, stop, err := m.Generate(t.Context(), g)
			if err != nil || stop != model.StopLength || !slices.Equal(have, want.Tokens[want.Start:]) || !slices.Equal(each, have) {
				t.Fatalf("%v %q, %v; want %v", have, stop, err, want.Tokens[want.Start:])
			}
			// The only token with a chance is the likeliest.
			g.Sampling = model.Sampling{Temperature: 1, TopK: 1, Seed: 3}
			if have, _, err = m.Generate(t.Context(), g); err != nil || !slices.Equal(have, want.Tokens[want.Start:]) {
				t.Errorf("%v, %v", have, err)
			}
			// It stops before a token that ends texts.
			g.Ends = []int{-1, have[7]}
			first := slices.Index(have, have[7])
			if short, stop, err := m.Generate(t.Context(), g); err != nil || stop != model.StopEnd || !slices.Equal(short, have[:first]) {
				t.Errorf("%v %q, %v", short, stop, err)
			}
		})
	}
}

// TestGenerateSame draws the same tokens from a seed whatever the threads and kernels, and others from another.
func TestGenerateSame(t *testing.T) {
	t.Parallel()
	g := model.Generation{Prompt: []int{0}, Most: 8, Sampling: model.Sampling{Temperature: 1.5, TopK: 50, Seed: 1}}
	first := map[uint64][]int{}
	for _, kernels := range []string{"", "scalar"} {
		k, err := tensor.ForName(kernels)
		if err != nil {
			t.Fatal(err)
		}
		for threads := 1; threads <= 2; threads++ {
			if kernels == "scalar" && threads == 1 {
				continue // slow
			}
			m := kept(t, "story", model.Options{Kernels: k, Threads: threads})
			for seed := range uint64(2) {
				g.Sampling.Seed = seed
				have, _, err := m.Generate(t.Context(), g)
				if err != nil {
					t.Fatal(err)
				}
				if first[seed] == nil {
					first[seed] = have
				}
				if !slices.Equal(have, first[seed]) {
					t.Errorf("kernels %q, %d threads, seed %d: %v, want %v", kernels, threads, seed, have, first[seed])
				}
			}
		}
	}
	if slices.Equal(first[0], first[1]) {
		t.Errorf("both seeds draw %v", first[0])
	}
}

func TestGenerateBounds(t *testing.T) {
	t.Parallel()
	m := kept(t, "story", model.Options{Threads: 2})
	n := m.Config.Context
	have, stop, err := m.Generate(t.Context(), model.Generation{Prompt: make([]int, n-2), Most: 100})
	if err != nil || stop != model.StopContext || len(have) != 3 { // after the last that fits, one more can be said
		t.Errorf("%v %q, %v", have, stop, err)
	}
	stopped := errors.New("enough")
	for _, c := range []struct {
		name string
		g    model.Generation
		want error
	}{
		{"nothing", model.Generation{Most: 1}, model.ErrToken},
		{"too long", model.Generation{Prompt: make([]int, n+1), Most: 1}, model.ErrContext},
		{"unknown", model.Generation{Prompt: []int{m.Config.Vocabulary}, Most: 1}, model.ErrToken},
		{"cold", model.Generation{Prompt: []int{0}, Most: 1, Sampling: model.Sampling{Temperature: -1}}, model.ErrSampling},
		{"each", model.Generation{Prompt: []int{0}, Most: 1, Each: func(int) error { return stopped }}, stopped},
	} {
		if _, _, err := m.Generate(t.Context(), c.g); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestSampler holds drawn tokens to their chances.
func TestSampler(t *testing.T) {
	t.Parallel()
	logits := []float32{0, 2, 1, -200, 2, 1.5}
	for _, o := range []model.Sampling{{Temperature: 1}, {Temperature: 0.5}, {Temperature: 2, TopK: 3}, {Temperature: 100, TopK: 9}, {Temperature: 0.01}} {
		rank := slices.Clone(logits)
		slices.Sort(rank)
		least := rank[0]
		if o.TopK > 0 && o.TopK < len(rank) {
			least = rank[len(rank)-o.TopK]
		}
		chances, sum := make([]float64, len(logits)), 0.0
		for i, l := range logits {
			if l >= least {
				chances[i] = math.Exp(float64(l) / o.Temperature)
				sum += chances[i]
			}
		}
		s, err := model.NewSampler(tensor.Detect(), o)
		if err != nil {
			t.Fatal(err)
		}
		const draws = 20000
		counts := make([]int, len(logits))
		for range draws {
			i, err := s.Next(logits)
			if err != nil {
				t.Fatal(err)
			}
			counts[i]++
		}
		for i, n := range counts {
			p := chances[i] / sum
			// Five standard deviations.
			if off := math.Abs(float64(n) - p*draws); off > 5*math.Sqrt(p*(1-p)*draws)+1e-6*draws {
				t.Errorf("%+v: token %d drawn %d times, chance %.4f", o, i, n, p)
			}
		}
	}
}

func TestSamplerRefuses(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, o := range []model.Sampling{{Temperature: nan}, {Temperature: inf}, {Temperature: 1e-9}, {Temperature: -1}, {TopK: -1}} {
		if _, err := model.NewSampler(tensor.Detect(), o); !errors.Is(err, model.ErrSampling) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	s, err := model.NewSampler(tensor.Detect(), model.Sampling{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(nil); !errors.Is(err, model.ErrToken) {
		t.Error(err)
	}
	if _, err := s.Next([]float32{1, float32(nan)}); !errors.Is(err, model.ErrNotFinite) {
		t.Error(err)
	}
	if i, err := s.Next([]float32{1, 3, 3}); i != 1 || err != nil {
		t.Error(i, err)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	m := open(t, filepath.Join(bundled, "story"), model.Options{})
	for _, c := range []struct {
		file string
		want []int
		err  error
	}{
		{`{"eos_token_id": 7}`, []int{7}, nil},
		{`{"eos_token_id": [7, 9]}`, []int{7, 9}, nil},
		{`{"eos_token_id": null}`, nil, nil},
		{`{}`, nil, nil},
		{`{"eos_token_id": "x"}`, nil, model.ErrConfig},
		{`{`, nil, model.ErrConfig},
		{string(make([]byte, 2<<20)), nil, model.ErrConfig},
	} {
		have, err := m.Ends(fstest.MapFS{"generation_config.json": {Data: []byte(c.file)}})
		if !slices.Equal(have, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%.40s: %v, %v", c.file, have, err)
		}
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(bundled, "story")} { // of config.json, of generation_config.json
		if have, err := m.Ends(os.DirFS(dir)); err != nil || !slices.Equal(have, []int{0}) {
			t.Errorf("%v, %v", have, err)
		}
	}
}
