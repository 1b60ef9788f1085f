package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	grammar "github.com/shardpress/shardpress/internal/story"
)

// heldOut writes stories that the bundled models were not trained on.
func heldOut(t *testing.T) string {
	t.Helper()
	stories, err := grammar.New(1000)
	if err != nil {
		t.Fatal(err)
	}
	text := "<|endoftext|>"
	for range 2 {
		s, _, err := stories.Next()
		if err != nil {
			t.Fatal(err)
		}
		text += s + "<|endoftext|>"
	}
	path := filepath.Join(t.TempDir(), "stories.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEval(t *testing.T) {
	t.Parallel()
	const dir = "../../testdata/models/story"
	text := heldOut(t)
	var out, errs bytes.Buffer
	if code := run([]string{"eval", "--model", dir, "--text", text, "--window", "64", "--stride", "32", "--json"}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	var have struct {
		Perplexity, NLL float64
		Tokens          int
		TextTokens      int `json:"text_tokens"`
		Parameters      int64
	}
	if err := json.Unmarshal(out.Bytes(), &have); err != nil {
		t.Fatal(err)
	}
	if have.Tokens != have.TextTokens-1 || have.Parameters != 1967872 || !(have.Perplexity > 1.4 && have.Perplexity < 4) ||
		math.Abs(math.Log(have.Perplexity)-have.NLL) > 1e-9 {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	if code := run([]string{"eval", "--model", dir, "--text", text, "--window", "64"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "windows of 64 with stride 64") {
		t.Errorf("exit code %d: %s%s", code, out.String(), errs.String())
	}
}

func TestEvalRefused(t *testing.T) {
	t.Parallel()
	const dir = "../../testdata/models/story"
	text := heldOut(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--text", text}, "model"},
		{[]string{"--model", dir, "--text", os.DevNull}, "empty"},
		{[]string{"--model", dir, "--text", text, "--window", "513"}, "context"},
		{[]string{"--model", dir, "--text", text, "--window", "64", "--stride", "65"}, "stride"},
		{[]string{"--model", dir, "--text", text, "--window", "-1"}, "positive"},
		{[]string{"--model", dir, "--text", text, "--bos", "maybe"}, "--bos"},
		{[]string{"--model", dir, "--text", filepath.Join(t.TempDir(), "none")}, "none"},
	} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"eval"}, c.args...), &out, &errs); code != exitInvalid || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: exit code %d: %s", c.args, code, errs.String())
		}
	}
}

// TestEvalCompressed judges results as they are stored. The figures are transformers' 4.57.6 with compressed-tensors, in float32 and over the
// same windows.
func TestEvalCompressed(t *testing.T) {
	t.Parallel()
	text := heldOut(t)
	for recipe, want := range map[string]float64{"w4a16-rtn": 1.9982772, "w3a16-rtn": 2.1337879} {
		t.Run(recipe, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			mustCall(t, "compress", "--model", story, "--recipe", recipe, "--out", out)
			var have struct {
				Perplexity, NLL float64
				Parameters      int64
			}
			said := mustCall(t, "eval", "--model", out, "--text", text, "--window", "64", "--stride", "32", "--json")
			if err := json.Unmarshal([]byte(said), &have); err != nil {
				t.Fatal(err)
			}
			if math.Abs(have.Perplexity-want) > 1e-4 || have.Parameters != 1967872 {
				t.Errorf("want perplexity %v: %s", want, said)
			}
			// Codes of another width than config.json says are refused, not misread.
			config := filepath.Join(out, "config.json")
			raw, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			raw = regexp.MustCompile(`("num_bits":\s*)\d`).ReplaceAll(raw, []byte("${1}5"))
			if err := os.WriteFile(config, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			var out2, errs bytes.Buffer
			if code := run([]string{"eval", "--model", out, "--text", text}, &out2, &errs); code != exitInvalid || !strings.Contains(errs.String(), "num_bits") {
				t.Errorf("exit code %d: %s%s", code, out2.String(), errs.String())
			}
		})
	}
}
