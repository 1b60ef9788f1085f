package eval

import (
	"context"
	"fmt"
	"math"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/internal/tensor"
)

// Options say how a text is cut and fed.
type Options struct {
	Window, Stride int   // tokens; see windows
	Prefix         []int // tokens in front of every window, seen and not counted
	// Together is how many tokens go through a block at a time, and Held how many wait between blocks, for which a block is read once.
	// Neither shows in a figure. Zero is for the package to choose.
	Together, Held int
	Progress       func(done, all int) // in windows; or nil
}

// Result is a perplexity and what it is of.
type Result struct {
	Perplexity float64 `json:"perplexity"` // e^nll
	NLL        float64 `json:"nll"`        // nats for each token that counts, on average
	Sum        float64 `json:"nll_sum"`    // nats of all of them
	Tokens     int     `json:"tokens"`     // that count
	TextTokens int     `json:"text_tokens"`
	Windows    int     `json:"windows"`
	Window     int     `json:"window"`
	Stride     int     `json:"stride"`
	Dropped    int     `json:"dropped"` // tokens at the end that fill no window
	Prefix     []int   `json:"prefix,omitempty"`
	Top1       float64 `json:"top1"` // share of counted tokens that the model held most likely
}

// What is chosen where options say nothing.
const (
	defaultTogether = 2048
	heldElements    = 64 << 20 // of activations between blocks: 256 MiB
)

// Perplexity runs a model over a text. Each block is read once for a group of windows, so a model need not fit into memory.
func Perplexity(ctx context.Context, m *model.Model, tokens []int, o Options) (*Result, error) {
	all, err := windows(len(tokens), o)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	if longest := o.Window + len(o.Prefix); longest > m.Config.Context {
		return nil, fmt.Errorf("evaluate: windows of %d tokens for a context of %d: %w; use a smaller window", longest, m.Config.Context, model.ErrContext)
	}
	if o.Together == 0 {
		o.Together = defaultTogether
	}
	if o.Held == 0 {
		o.Held = max(o.Together, heldElements/m.Config.Hidden)
	}
	r := &Result{TextTokens: len(tokens), Windows: len(all), Window: o.Window, Stride: o.Stride, Prefix: o.Prefix, Dropped: len(tokens) - all[len(all)-1].end}
	right := 0
	per := max(o.Held/(o.Window+len(o.Prefix)), 1)
	for i := 0; i < len(all); i += per {
		part := all[i:min(i+per, len(all))]
		losses, hits, err := group(ctx, m, tokens, part, o)
		if err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		for _, l := range losses { // in the order of the text, however it is grouped
			r.Sum += l
		}
		r.Tokens += len(losses)
		right += hits
		if o.Progress != nil {
			o.Progress(i+len(part), len(all))
		}
	}
	r.NLL = r.Sum / float64(r.Tokens)
	r.Perplexity, r.Top1 = math.Exp(r.NLL), float64(right)/float64(r.Tokens)
	return r, nil
}

// group runs some windows through the blocks together, and returns what each counted token cost and how many were held most likely.
func group(ctx context.Context, m *model.Model, tokens []int, part []window, o Options) (losses []float64, right int, err error) {
	sequences := make([][]int, len(part))
	for i, w := range part {
		sequences[i] = append(append([]int(nil), o.Prefix...), tokens[w.begin:w.end]...)
	}
	batch, err := m.Embed(ctx, sequences...)
	if err != nil {
		return nil, 0, err
	}
	hidden := m.Config.Hidden
	pieces := batch.Split(hidden, o.Together)
	for i := range m.Blocks() {
		b, err := m.Block(ctx, i)
		if err != nil {
			return nil, 0, err
		}
		for _, p := range pieces {
			if err := b.Forward(ctx, p); err != nil {
				return nil, 0, err
			}
		}
	}
	head, err := m.Head(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, p := range pieces {
		// The activations before each token that counts, moved to the front.
		var targets []int
		at := 0
		for range p.Sequences {
			w, s := part[0], sequences[0]
			part, sequences = part[1:], sequences[1:]
			for t := w.from; t < w.end; t++ {
				j := t - w.begin + len(o.Prefix)
				copy(p.X[len(targets)*hidden:][:hidden], p.X[(at+j-1)*hidden:][:hidden])
				targets = append(targets, s[j])
			}
			at += len(s)
		}
		some, hits, err := Losses(ctx, m, head, p.X[:len(targets)*hidden], targets)
		if err != nil {
			return nil, 0, err
		}
		losses = append(losses, some...)
		right += hits
	}
	return losses, right, nil
}

// running is the sum of e^logit over the panels so far, relative to the largest.
type running struct {
	most, sum float64
	target    float64 // logit
	best      int
}

// Losses returns the nats that each target costs after its activations, n × hidden, and how many of them are the most likely token. Exponentials are
// summed panel by panel of the head's, each as [tensor.Kernels.ExpSum] does it, and the panels in float64 in order.
func Losses(ctx context.Context, m *model.Model, head *model.Head, x []float32, targets []int) (losses []float64, right int, err error) {
	k, threads := m.Kernels()
	rows := make([]running, len(targets))
	for i := range rows {
		rows[i].most = math.Inf(-1)
	}
	err = head.Panels(ctx, x, func(first, n int, logits []float32) error {
		each(threads, len(rows), func(i int) {
			r, row := &rows[i], logits[i*n:][:n]
			most, sum := k.ExpSum(row)
			high := float64(most)
			if high > r.most {
				r.sum = float64(r.sum * tensor.Exp64(r.most-high))
				r.most = high
				for j, v := range row {
					if v == most {
						r.best = first + j
						break
					}
				}
			}
			r.sum += float64(float64(sum) * tensor.Exp64(high-r.most))
			if t := targets[i] - first; t >= 0 && t < n {
				r.target = float64(row[t])
			}
		})
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	losses = make([]float64, len(rows))
	for i, r := range rows {
		losses[i] = tensor.Log64(r.sum) + (r.most - r.target)
		if r.best == targets[i] {
			right++
		}
	}
	return losses, right, nil
}

// each calls do for every number below n, from several goroutines.
func each(threads, n int, do func(i int)) {
	threads = max(min(threads, n), 1)
	var wg sync.WaitGroup
	for t := range threads {
		wg.Go(func() {
			for i := n * t / threads; i < n*(t+1)/threads; i++ {
				do(i)
			}
		})
	}
	wg.Wait()
}

// PerText relates the nats of a whole text to its bytes and words, figures that do not depend on a tokenizer.
type PerText struct {
	Bytes          int     `json:"bytes"`
	Words          int     `json:"words"` // what spaces separate
	BitsPerByte    float64 `json:"bits_per_byte"`
	BytePerplexity float64 `json:"byte_perplexity"`
	WordPerplexity float64 `json:"word_perplexity"`
}

// Relate returns the figures of a text of which r judged every token, false if it did not: begun says that the first
// token is no part of the text, but what every text begins with.
func Relate(text string, r *Result, begun bool) (PerText, bool) {
	t := PerText{Bytes: len(text)}
	inside := false
	for i := 0; i < len(text); {
		c, n := utf8.DecodeRuneInString(text[i:])
		space := unicode.IsSpace(c)
		if !space && !inside {
			t.Words++
		}
		inside = !space
		i += n
	}
	missing := r.TextTokens - r.Tokens
	if begun {
		missing--
	}
	if missing != 0 || t.Words == 0 {
		return t, false
	}
	t.BitsPerByte = r.Sum / float64(t.Bytes) / math.Ln2
	t.BytePerplexity = math.Exp(r.Sum / float64(t.Bytes))
	t.WordPerplexity = math.Exp(r.Sum / float64(t.Words))
	return t, true
}
