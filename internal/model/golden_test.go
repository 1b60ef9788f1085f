package model_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// expected is what transformers computes, see testdata/README.md.
type expected struct {
	Tokens    []int       `json:"tokens"`
	Positions []int       `json:"positions"`
	Logits    [][]float32 `json:"logits"`
}

// open opens a model of a directory.
func open(t *testing.T, dir string, o model.Options) *model.Model {
	t.Helper()
	ck, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ck.Close() })
	m, err := model.Open(ck, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		t.Fatal(err)
	}
}

func cases(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*/config.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for i, p := range paths {
		paths[i] = filepath.Dir(p)
	}
	return paths
}

// agree compares with an error relative to the largest of the wanted numbers.
func agree(t *testing.T, what string, have, want []float32, tolerance float64) {
	t.Helper()
	most, worst := 0.0, 0.0
	for i, w := range want {
		most = max(most, math.Abs(float64(w)))
		d := math.Abs(float64(have[i]) - float64(w))
		if d != d {
			t.Fatalf("%s: element %d is %v", what, i, have[i])
		}
		worst = max(worst, d)
	}
	if worst > tolerance*most {
		t.Errorf("%s: off by %.2g of %.3g, relative %.2g", what, worst, most, worst/most)
	}
}

// TestGolden holds logits against transformers' on every family, and all ways of feeding against one another, bit for bit.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, dir := range cases(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			var want expected
			readJSON(t, filepath.Join(dir, "expected.json"), &want)
			m := open(t, dir, model.Options{})
			v, n := m.Config.Vocabulary, len(want.Tokens)
			all, err := m.Logits(t.Context(), want.Tokens, nil, n)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range want.Positions {
				agree(t, "at once", all[p*v:][:v], want.Logits[i], 1e-4)
			}
			if err := m.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, step := range []int{1, 5, n} {
				cache := m.NewCache()
				for i := 0; i < n; i += step {
					k := min(step, n-i)
					have, err := m.Logits(t.Context(), want.Tokens[i:i+k], cache, k)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(have, all[i*v:][:k*v]) {
						t.Fatalf("%d tokens at a time: logits from token %d on are other words", step, i)
					}
				}
			}
		})
	}
}

// TestSameWords runs models with every kernel, with several threads, and as one of several sequences.
func TestSameWords(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"llama31", "qwen2", "qwen3moe"} {
		dir := filepath.Join("testdata", name)
		var want expected
		readJSON(t, filepath.Join(dir, "expected.json"), &want)
		var first []float32
		for _, kernel := range tensor.Names() {
			for _, threads := range []int{1, 3} {
				k, err := tensor.ForName(kernel)
				if err != nil {
					t.Fatal(err)
				}
				m := open(t, dir, model.Options{Kernels: k, Threads: threads})
				b, err := m.Embed(t.Context(), want.Tokens[10:], nil, want.Tokens, want.Tokens[:3])
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Forward(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				head, err := m.Head(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				have, err := head.Logits(t.Context(), b.X)
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					if first, err = m.Logits(t.Context(), want.Tokens, nil, len(want.Tokens)); err != nil {
						t.Fatal(err)
					}
				}
				if skip := (len(want.Tokens) - 10) * m.Config.Vocabulary; !slices.Equal(have[skip:][:len(first)], first) {
					t.Errorf("%s, %s, %d threads: other words", name, kernel, threads)
				}
			}
		}
	}
}

// TestClone lets two continuations of one text go their own ways.
func TestClone(t *testing.T) {
	t.Parallel()
	m := open(t, "testdata/qwen2", model.Options{})
	text := []int{1, 2, 3, 4, 5}
	a := m.NewCache()
	if _, err := m.Logits(t.Context(), text, a, 1); err != nil {
		t.Fatal(err)
	}
	b := a.Clone()
	for i, c := range []*model.Cache{a, b, a, b} {
		have, err := m.Logits(t.Context(), []int{6 + i%2}, c, 1)
		if err != nil {
			t.Fatal(err)
		}
		full := append(slices.Clone(text), slices.Repeat([]int{6 + i%2}, 1+i/2)...)
		want, err := m.Logits(t.Context(), full, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(have, want) {
			t.Errorf("continuation %d: other words", i)
		}
	}
}
