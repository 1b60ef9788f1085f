package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/shardpress/shardpress/internal/eval"
	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/internal/tokenizer"
	"github.com/shardpress/shardpress/shard"
)

// keepBelow are the bytes of weights below which a model is kept in memory while it is judged.
const keepBelow = 1 << 30

// evaluation is what `eval --json` prints.
type evaluation struct {
	Model string `json:"model"`
	Text  string `json:"text"`
	BOS   bool   `json:"bos"` // whether the text begins with the token that begins texts
	eval.Result
	*eval.PerText
	Parameters    int64   `json:"parameters"`
	Bytes         int64   `json:"weight_bytes"`
	BitsPerWeight float64 `json:"bits_per_weight"`
	Seconds       float64 `json:"seconds"`
	// Ignored is what an engine would do to activations and caches and this evaluation does not.
	Ignored []string `json:"ignored,omitempty"`
}

type evalFlags struct {
	model, text, bos string
	window, stride   int
	threads          int
	json             bool
}

func newEval() *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval",
		Short: "Measure the perplexity of a model on a text",
		Long: `Measure how well a model predicts a text: e to the mean loss of its tokens. The
figure depends on how the text is cut, so that is printed with it. By default the text
is tokenized once, with the token that begins texts if the tokenizer puts one, and cut into
windows side by side; all tokens of a window but its first count, and what does not
fill the last window is dropped: the convention of GPTQ's WikiText-2 figures, of
windows of 2048 tokens. With a smaller --stride windows overlap and every token
counts once, after at least window - stride others.

The model runs block by block, so it need not fit into memory. Arithmetic is
float32 whatever the weights' type, also where the checkpoint tells engines to quantize
activations, which is said then. Runs Llama 2 and 3, Mistral, Qwen2, Qwen3 and
Qwen3-MoE, in 16 or 32 bits, FP8 or integers as compressed-tensors stores them; of
results the formats dense, float-quantized, int-quantized and pack-quantized.`,
		Example: `  shardpress eval --model ./Llama-3.1-8B --text wiki.test.raw
  shardpress eval --model ./Llama-3.1-8B-w4a16 --text held-out.txt --window 512 --stride 256 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := evaluate(c.Context(), f, c.OutOrStdout())
			if err != nil {
				return invalidEvaluation(err)
			}
			if f.json {
				return json.NewEncoder(c.OutOrStdout()).Encode(r)
			}
			return printEvaluation(c.OutOrStdout(), r)
		},
	}
	c.Flags().StringVar(&f.model, "model", "", "directory of the checkpoint")
	c.Flags().StringVar(&f.text, "text", "", "file of text")
	c.Flags().IntVar(&f.window, "window", 0, "tokens that the model sees at once (default 2048, or its context if that is less)")
	c.Flags().IntVar(&f.stride, "stride", 0, "tokens from window to window (default: the window)")
	c.Flags().StringVar(&f.bos, "bos", "auto", "begin the text with the token that begins texts: auto does what the tokenizer does, or always, never")
	c.Flags().IntVar(&f.threads, "threads", runtime.GOMAXPROCS(0), "threads")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	_ = c.MarkFlagRequired("model")
	_ = c.MarkFlagRequired("text")
	return c
}

// invalidEvaluation marks what the user has to change.
func invalidEvaluation(err error) error {
	for _, e := range []error{eval.ErrText, eval.ErrOptions, model.ErrUnsupported, model.ErrConfig, model.ErrContext, model.ErrToken, model.ErrNotFinite,
		model.ErrSampling, tokenizer.ErrInvalid, tokenizer.ErrUnsupported, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return &usageError{err}
		}
	}
	return err
}

func evaluate(ctx context.Context, f evalFlags, w io.Writer) (*evaluation, error) {
	if f.window < 0 || f.stride < 0 || f.threads < 1 {
		return nil, &usageError{fmt.Errorf("--window %d --stride %d --threads %d: want positive numbers", f.window, f.stride, f.threads)}
	}
	name, err := kernel()
	if err != nil {
		return nil, err
	}
	k, err := tensor.ForName(string(name))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(f.text)
	if err != nil {
		return nil, &usageError{fmt.Errorf("read text: %w", err)}
	}
	ck, err := shard.Open(ctx, f.model, shard.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer ck.Close() //nolint:errcheck // opened for reading
	m, err := model.Open(ck, model.Options{Kernels: k, Threads: f.threads})
	if err != nil {
		return nil, err
	}
	tok, err := tokenizer.Load(os.DirFS(ck.Location()))
	if err != nil {
		return nil, err
	}
	if err := m.CheckVocabulary(tok.Size()); err != nil {
		return nil, err
	}
	tokens, err := tokenize(tok, string(text), f.bos)
	if err != nil {
		return nil, err
	}
	e := &evaluation{Model: f.model, Text: f.text, Ignored: m.Config.Ignored, BOS: len(tokens) > 0 && tokens[0] == tok.Special().BOS}
	for _, t := range ck.Manifest.Tensors {
		e.Bytes += t.Length
	}
	if e.Parameters, err = m.Parameters(ctx); err != nil {
		return nil, err
	}
	e.BitsPerWeight = 8 * float64(e.Bytes) / float64(max(e.Parameters, 1))
	if e.Bytes < keepBelow {
		if err := m.Keep(ctx); err != nil {
			return nil, err
		}
	}
	o := eval.Options{Window: f.window, Stride: f.stride}
	if o.Window == 0 {
		o.Window = min(2048, m.Config.Context)
	}
	if o.Stride == 0 {
		o.Stride = o.Window
	}
	if !f.json && isTerminal(w) {
		p := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
		bar := p.AddBar(0, mpb.PrependDecorators(decor.Name("windows "), decor.CountersNoUnit("%d / %d ")), mpb.BarRemoveOnComplete())
		defer func() { bar.Abort(true); p.Wait() }()
		o.Progress = func(done, all int) {
			bar.SetTotal(int64(all), false)
			bar.SetCurrent(int64(done))
		}
	}
	start := time.Now()
	r, err := eval.Perplexity(ctx, m, tokens, o)
	if err != nil {
		return nil, err
	}
	e.Result, e.Seconds = *r, time.Since(start).Seconds()
	if per, ok := eval.Relate(string(text), r, len(tokens) > 0 && e.BOS && f.bos != "never"); ok {
		e.PerText = &per
	}
	return e, nil
}

// tokenize turns a text into tokens, with the one that begins texts or without.
func tokenize(tok *tokenizer.Tokenizer, text, bos string) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	switch bos {
	case "auto":
		return tok.Encode(text, true), nil
	case "never":
		return tok.Encode(text, false), nil
	case "always":
		begin := tok.Special().BOS
		if begin < 0 {
			return nil, &usageError{errors.New("--bos always: the tokenizer has no token that begins texts")}
		}
		return append([]int{begin}, tok.Encode(text, false)...), nil
	}
	return nil, &usageError{fmt.Errorf("--bos %s: want auto, always or never", bos)}
}

func printEvaluation(w io.Writer, e *evaluation) error {
	begins := "without a beginning token"
	if e.BOS {
		begins = "with a beginning token"
	}
	fmt.Fprintf(w, "perplexity %.4f (%.6f nats per token) over %d tokens, %.2f%% of them held most likely\n", e.Perplexity, e.NLL, e.Tokens, 100*e.Top1)
	fmt.Fprintf(w, "text %s: %d tokens %s, %d windows of %d with stride %d, %d tokens dropped at the end\n",
		e.Text, e.TextTokens, begins, e.Windows, e.Window, e.Stride, e.Dropped)
	if p := e.PerText; p != nil {
		fmt.Fprintf(w, "%.4f bits per byte; perplexity %.4f of a byte, %.4f of a word\n", p.BitsPerByte, p.BytePerplexity, p.WordPerplexity)
	}
	if len(e.Ignored) > 0 {
		fmt.Fprintf(w, "activations are float32: %s of the checkpoint, which engines heed, have no part in the figure\n", strings.Join(e.Ignored, ", "))
	}
	_, err := fmt.Fprintf(w, "model %s: %d parameters in %d bytes, %.2f bits each; %.0f tokens per second\n",
		e.Model, e.Parameters, e.Bytes, e.BitsPerWeight, float64(e.Windows*e.Window)/e.Seconds)
	return err
}
