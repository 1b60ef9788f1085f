package eval_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/internal/eval"
	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/internal/story"
	"github.com/shardpress/shardpress/internal/tokenizer"
	"github.com/shardpress/shardpress/shard"
)

func open(t *testing.T, dir string, threads int) *model.Model {
	t.Helper()
	ck, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ck.Close() })
	m, err := model.Open(ck, model.Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tiny is a model of the golden cases of package model.
const tiny = "../model/testdata/qwen3moe"

func text(n int) []int {
	tokens := make([]int, n)
	for i := range tokens {
		tokens[i] = (i*i*5 + i*3) % 36
	}
	return tokens
}

// oracle is the loss of each counted token from whole logits, one window at a time.
func oracle(t *testing.T, m *model.Model, sequence []int, from int) float64 {
	t.Helper()
	logits, err := m.Logits(t.Context(), sequence, nil, len(sequence))
	if err != nil {
		t.Fatal(err)
	}
	v, nll := m.Config.Vocabulary, 0.0
	for i := from; i < len(sequence); i++ {
		row, sum := logits[(i-1)*v:][:v], 0.0
		for _, l := range row {
			sum += math.Exp(float64(l))
		}
		nll += math.Log(sum) - float64(row[sequence[i]])
	}
	return nll
}

func TestPerplexity(t *testing.T) {
	t.Parallel()
	m := open(t, tiny, 2)
	tokens := text(50)
	for _, c := range []struct {
		name            string
		o               eval.Options
		windows, tokens int
		dropped         int
		want            func() float64
	}{
		{"side by side", eval.Options{Window: 16, Stride: 16}, 3, 45, 2, func() float64 {
			return oracle(t, m, tokens[:16], 1) + oracle(t, m, tokens[16:32], 1) + oracle(t, m, tokens[32:48], 1)
		}},
		{"overlapping", eval.Options{Window: 20, Stride: 12, Together: 7}, 4, 49, 0, func() float64 {
			return oracle(t, m, tokens[:20], 1) + oracle(t, m, tokens[12:32], 8) + oracle(t, m, tokens[24:44], 8) + oracle(t, m, tokens[36:], 8)
		}},
		{"prefix", eval.Options{Window: 24, Stride: 24, Prefix: []int{3}, Held: 1}, 2, 48, 2, func() float64 {
			return oracle(t, m, append([]int{3}, tokens[:24]...), 1) + oracle(t, m, append([]int{3}, tokens[24:48]...), 1)
		}},
		{"one", eval.Options{Window: 50, Stride: 50}, 1, 49, 0, func() float64 { return oracle(t, m, tokens, 1) }},
	} {
		r, err := eval.Perplexity(t.Context(), m, tokens, c.o)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if r.Windows != c.windows || r.Tokens != c.tokens || r.Dropped != c.dropped || r.TextTokens != 50 {
			t.Errorf("%s: %+v", c.name, r)
		}
		if want := c.want(); math.Abs(r.Sum-want) > 1e-6*want || math.Abs(r.Perplexity-math.Exp(want/float64(c.tokens))) > 1e-6*r.Perplexity {
			t.Errorf("%s: %v nats and perplexity %v, want %v nats", c.name, r.Sum, r.Perplexity, want)
		}
		again := c.o
		again.Together, again.Held = 40, 90
		if other, err := eval.Perplexity(t.Context(), open(t, tiny, 1), tokens, again); err != nil || other.Sum != r.Sum {
			t.Errorf("%s: other batches and threads give %v, want %v (%v)", c.name, other, r.Sum, err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	m := open(t, tiny, 1)
	for _, c := range []struct {
		name   string
		tokens []int
		o      eval.Options
		want   error
	}{
		{"empty", nil, eval.Options{Window: 8, Stride: 8}, eval.ErrText},
		{"short", text(7), eval.Options{Window: 8, Stride: 8}, eval.ErrText},
		{"window", text(9), eval.Options{Window: 1, Stride: 1}, eval.ErrOptions},
		{"stride", text(9), eval.Options{Window: 8, Stride: 0}, eval.ErrOptions},
		{"gaps", text(9), eval.Options{Window: 4, Stride: 5}, eval.ErrOptions},
		{"context", text(100), eval.Options{Window: 65, Stride: 65}, model.ErrContext},
		{"context with a prefix", text(100), eval.Options{Window: 64, Stride: 64, Prefix: []int{1}}, model.ErrContext},
		{"token", []int{1, 2, 36}, eval.Options{Window: 3, Stride: 3}, model.ErrToken},
	} {
		if _, err := eval.Perplexity(t.Context(), m, c.tokens, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRelate(t *testing.T) {
	t.Parallel()
	r := &eval.Result{Sum: 12 * math.Ln2, Tokens: 4, TextTokens: 5}
	have, ok := eval.Relate("ab  cde\n", r, true)
	if !ok || have.Bytes != 8 || have.Words != 2 || math.Abs(have.BitsPerByte-1.5) > 1e-12 || math.Abs(have.WordPerplexity-64) > 1e-9 {
		t.Errorf("%+v, %v", have, ok)
	}
	if _, ok := eval.Relate("ab  cde\n", r, false); ok {
		t.Error("a token that was not judged is passed over")
	}
}

// TestStory holds the bundled models against what tools/train/evaluate.py computes with transformers 4.57.6 in float32: the first 5 stories of
// seed 1000 as one stream, in overlapping windows and side by side.
func TestStory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	for name, want := range map[string][2]float64{"story": {1.58285758, 1.71906541}, "story-moe": {1.58836741, 1.73406203}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join("..", "..", "testdata", "models", name)
			m := open(t, dir, 2)
			tok, err := tokenizer.Load(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.CheckVocabulary(tok.Size()); err != nil {
				t.Fatal(err)
			}
			stories, err := story.New(1000)
			if err != nil {
				t.Fatal(err)
			}
			text := "<|endoftext|>"
			for range 5 {
				s, _, err := stories.Next()
				if err != nil {
					t.Fatal(err)
				}
				text += s + "<|endoftext|>"
			}
			tokens := tok.Encode(text, false)
			for i, o := range []eval.Options{{Window: 256, Stride: 128}, {Window: 256, Stride: 256}} {
				r, err := eval.Perplexity(t.Context(), m, tokens, o)
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(r.Perplexity-want[i]) > 1e-5 {
					t.Errorf("stride %d: perplexity %.6f over %d of %d tokens, want %.6f", o.Stride, r.Perplexity, r.Tokens, r.TextTokens, want[i])
				}
			}
		})
	}
}

// TestReference holds trained models against losses computed in double precision.
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
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			var want struct {
				NLL struct {
					Text   string  `json:"text"`
					Tokens int     `json:"tokens"`
					First  []int   `json:"first_ids"`
					Window int     `json:"window"`
					Sum    float64 `json:"sum"`
				} `json:"nll"`
			}
			raw, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(raw, &want)
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(root, "text", want.NLL.Text))
			if err != nil {
				t.Fatal(err)
			}
			tok, err := tokenizer.Load(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			tokens := tok.Encode(string(text[:min(len(text), 20000)]), false)[:want.NLL.Tokens]
			if !slices.Equal(tokens[:len(want.NLL.First)], want.NLL.First) {
				t.Fatalf("tokens begin with %v, want %v", tokens[:len(want.NLL.First)], want.NLL.First)
			}
			r, err := eval.Perplexity(t.Context(), open(t, dir, 2), tokens, eval.Options{Window: want.NLL.Window, Stride: want.NLL.Window, Prefix: []int{1}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Tokens != want.NLL.Tokens || math.Abs(r.Sum-want.NLL.Sum) > 1e-4 {
				t.Errorf("%d tokens cost %.6f nats, want %.6f", r.Tokens, r.Sum, want.NLL.Sum)
			}
		})
	}
}
