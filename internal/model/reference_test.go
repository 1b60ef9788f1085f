package model_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/model"
)

// TestReference holds trained models against figures computed in double precision.
func TestReference(t *testing.T) {
	t.Parallel()
	root := os.Getenv("SHARDPRESS_TESTDATA")
	if root == "" {
		t.Skip("SHARDPRESS_TESTDATA names no folder with real configurations and models")
	}
	paths, err := filepath.Glob(filepath.Join(root, "models", "*", "reference.json"))
	if err != nil || len(paths) == 0 {
		t.Skip("SHARDPRESS_TESTDATA has no models/*/reference.json")
	}
	for _, path := range paths {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			t.Parallel()
			var want struct {
				Prompt []int     `json:"prompt_ids"`
				Logits []float32 `json:"logits_after_prompt"`
				Greedy []int     `json:"greedy_ids"`
			}
			readJSON(t, path, &want)
			m := open(t, filepath.Dir(path), model.Options{})
			if err := m.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			cache := m.NewCache()
			logits, err := m.Logits(t.Context(), want.Prompt, cache, 1)
			if err != nil {
				t.Fatal(err)
			}
			agree(t, "logits after the prompt", logits, want.Logits, 1e-5)
			var have []int
			for range want.Greedy {
				next := argmax(logits)
				have = append(have, next)
				if logits, err = m.Logits(t.Context(), []int{next}, cache, 1); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(have, want.Greedy) {
				t.Errorf("greedy tokens %v, want %v", have, want.Greedy)
			}
		})
	}
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// TestBundled holds the bundled models against transformers: the loss of a text, the logits after it, and that it is what they would say.
func TestBundled(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"story", "story-moe"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want struct {
				Start  int       `json:"start"`
				Tokens []int     `json:"tokens"`
				NLL    float64   `json:"nll"`
				Logits []float32 `json:"logits"`
			}
			readJSON(t, filepath.Join("testdata", "bundled", name+".json"), &want)
			m := open(t, filepath.Join("..", "..", "testdata", "models", name), model.Options{})
			n, v := len(want.Tokens), m.Config.Vocabulary
			logits, err := m.Logits(t.Context(), want.Tokens, nil, n)
			if err != nil {
				t.Fatal(err)
			}
			agree(t, "last logits", logits[(n-1)*v:], want.Logits, 1e-4)
			nll := 0.0
			for i, next := range want.Tokens[1:] {
				row, sum := logits[i*v:][:v], 0.0
				for _, l := range row {
					sum += math.Exp(float64(l))
				}
				nll += math.Log(sum) - float64(row[next])
				if i+1 >= want.Start && argmax(row) != next {
					t.Errorf("token %d: would say %d, want %d", i+1, argmax(row), next)
				}
			}
			if math.Abs(nll-want.NLL) > 1e-4*want.NLL {
				t.Errorf("loss %.6f, want %.6f", nll, want.NLL)
			}
		})
	}
}
