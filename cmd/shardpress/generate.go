package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/internal/machine"
	"github.com/shardpress/shardpress/internal/model"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/internal/tokenizer"
	"github.com/shardpress/shardpress/shard"
)

// generation is what `generate --json` prints.
type generation struct {
	Model         string     `json:"model"`
	Prompt        string     `json:"prompt"`
	PromptTokens  []int      `json:"prompt_tokens"`
	Text          string     `json:"text"` // what follows the prompt
	Tokens        []int      `json:"tokens"`
	Stop          model.Stop `json:"stop"`
	PromptSeconds float64    `json:"prompt_seconds"` // until the first token was chosen
	Seconds       float64    `json:"seconds"`        // for the others
	// Ignored is what an engine would do to activations and caches and this command does not.
	Ignored []string `json:"ignored,omitempty"`
}

type generateFlags struct {
	model, prompt string
	tokens        int
	greedy        bool
	temperature   float64
	topK          int
	seed          uint64
	threads       int
	json          bool
}

func newGenerate() *cobra.Command {
	var f generateFlags
	c := &cobra.Command{
		Use:   "generate",
		Short: "Let a model continue a text",
		Long: `Let a model continue a text, printed as it comes: a look at what compression left of
it. It stops where the model ends its text, after --tokens, or when the model's context
is full. Tokens that are written out in the prompt count as such; --prompt is taken as it is
and put into no chat template.

Tokens are drawn by the model's own chances unless --greedy takes the likeliest always.
A lower --temperature than 1 prefers likely tokens. The same flags give the same text
on any machine and with any number of threads.

Runs what eval runs, also results as they are stored, in float32. A model that does not fit into
half of the memory is read anew for every token.`,
		Example: `  shardpress generate --model ./Llama-3.1-8B-w4a16 --prompt "Once upon a time" --greedy
  shardpress generate --model ./Llama-3.1-8B --prompt "The capital of France" --tokens 32 --temperature 0.7 --top-k 40 --seed 1 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, name := range []string{"temperature", "top-k", "seed"} {
				if f.greedy && c.Flags().Changed(name) {
					return &usageError{fmt.Errorf("--greedy draws no tokens: leave --%s out", name)}
				}
			}
			g, err := continueText(c.Context(), f, c.OutOrStdout())
			if err != nil {
				return invalidEvaluation(err)
			}
			if f.json {
				return json.NewEncoder(c.OutOrStdout()).Encode(g)
			}
			return describeGeneration(c.ErrOrStderr(), g)
		},
	}
	c.Flags().StringVar(&f.model, "model", "", "directory of the checkpoint")
	c.Flags().StringVar(&f.prompt, "prompt", "", "text to continue")
	c.Flags().IntVar(&f.tokens, "tokens", 128, "tokens to generate at most")
	c.Flags().BoolVar(&f.greedy, "greedy", false, "take the likeliest token always")
	c.Flags().Float64Var(&f.temperature, "temperature", 1, "by which logits are divided before a token is drawn, 0.01 to 100")
	c.Flags().IntVar(&f.topK, "top-k", 0, "draw among so many of the likeliest tokens (default: all)")
	c.Flags().Uint64Var(&f.seed, "seed", 0, "of the random numbers")
	c.Flags().IntVar(&f.threads, "threads", runtime.GOMAXPROCS(0), "threads")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON, at the end")
	_ = c.MarkFlagRequired("model")
	_ = c.MarkFlagRequired("prompt")
	return c
}

func continueText(ctx context.Context, f generateFlags, w io.Writer) (*generation, error) {
	if f.tokens < 1 || f.threads < 1 {
		return nil, &usageError{fmt.Errorf("--tokens %d --threads %d: want positive numbers", f.tokens, f.threads)}
	}
	sampling := model.Sampling{}
	if !f.greedy {
		if f.temperature == 0 {
			return nil, &usageError{errors.New("--temperature 0 leaves nothing to draw: use --greedy")}
		}
		sampling = model.Sampling{Temperature: f.temperature, TopK: f.topK, Seed: f.seed}
	}
	if err := sampling.Validate(); err != nil {
		return nil, err
	}
	name, err := kernel()
	if err != nil {
		return nil, err
	}
	k, err := tensor.ForName(string(name))
	if err != nil {
		return nil, err
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
	dir := os.DirFS(ck.Location())
	tok, err := tokenizer.Load(dir)
	if err != nil {
		return nil, err
	}
	if err := m.CheckVocabulary(tok.Size()); err != nil {
		return nil, err
	}
	ends, err := m.Ends(dir)
	if err != nil {
		return nil, err
	}
	if end := tok.Special().EOS; end >= 0 && !slices.Contains(ends, end) {
		ends = append(ends, end)
	}
	g := &generation{Model: f.model, Prompt: f.prompt, PromptTokens: tok.Encode(f.prompt, true), Ignored: m.Config.Ignored}
	size := int64(0)
	for _, t := range ck.Manifest.Tensors {
		size += t.Length
	}
	// A prompt that does not fit is refused before its model is read.
	if len(g.PromptTokens) <= m.Config.Context && size <= machine.Memory()/2 {
		if err := m.Keep(ctx); err != nil {
			return nil, err
		}
	}
	out := io.Discard
	if !f.json {
		out = w
		if _, err := io.WriteString(w, f.prompt); err != nil {
			return nil, err
		}
	}
	text := tok.Stream(g.PromptTokens)
	var said strings.Builder
	say := func(s string) error {
		said.WriteString(s)
		_, err := io.WriteString(out, s)
		return err
	}
	start, first := time.Now(), time.Time{}
	g.Tokens, g.Stop, err = m.Generate(ctx, model.Generation{
		Prompt: g.PromptTokens, Most: f.tokens, Ends: ends, Sampling: sampling,
		Each: func(token int) error {
			if first.IsZero() {
				first = time.Now()
			}
			return say(text.Next(token))
		},
	})
	if last := say(text.Rest()); err == nil {
		err = last
	}
	_, _ = io.WriteString(out, "\n") // also after a failure, whose message then has a line of its own
	if err != nil {
		return nil, err
	}
	if first.IsZero() {
		first = time.Now()
	}
	g.PromptSeconds, g.Seconds = first.Sub(start).Seconds(), time.Since(first).Seconds()
	g.Text = said.String()
	return g, nil
}

// describeGeneration says beside the text how it came about.
func describeGeneration(w io.Writer, g *generation) error {
	why := map[model.Stop]string{model.StopEnd: "the model ended its text", model.StopLength: "as many as wanted", model.StopContext: "the model's context is full"}
	fmt.Fprintf(w, "\n%d tokens after %d of the prompt: %s; first after %.2f s", len(g.Tokens), len(g.PromptTokens), why[g.Stop], g.PromptSeconds)
	if n := len(g.Tokens) - 1; n > 0 && g.Seconds > 0 {
		fmt.Fprintf(w, ", then %.1f tokens per second", float64(n)/g.Seconds)
	}
	if len(g.Ignored) > 0 {
		fmt.Fprintf(w, "; activations are float32: %s of the checkpoint, which engines heed, have no part in the text", strings.Join(g.Ignored, ", "))
	}
	_, err := fmt.Fprintln(w)
	return err
}
