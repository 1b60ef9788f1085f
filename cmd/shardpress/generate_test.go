package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/testdata/models"
)

// continued calls generate and reads what it says of it.
func continued(t *testing.T, args ...string) (g generation) {
	t.Helper()
	if err := json.Unmarshal([]byte(mustCall(t, append([]string{"generate", "--json"}, args...)...)), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

const beginning = "<|endoftext|>Once upon a time"

// TestGenerate holds a greedy text, to its end, against transformers'.
func TestGenerate(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../internal/model/testdata/bundled/story.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Start  int
		Tokens []int
		Told   string
	}
	if err := json.Unmarshal(b, &want); err != nil || len(want.Told) < 500 {
		t.Fatalf("%q, %v", want.Told, err)
	}
	g := continued(t, "--model", story, "--prompt", beginning, "--greedy", "--tokens", "400")
	n := len(want.Tokens) - want.Start
	if g.Text != want.Told || g.Stop != "end" || !slices.Equal(g.PromptTokens, want.Tokens[:want.Start]) || !slices.Equal(g.Tokens[:n], want.Tokens[want.Start:]) {
		t.Errorf("%+v\nwant %q", g, want.Told)
	}
	code, out, said := call("generate", "--model", story, "--prompt", beginning, "--greedy", "--tokens", "20")
	if body := strings.TrimSuffix(strings.TrimPrefix(out, beginning), "\n"); code != 0 || body == "" || !strings.HasPrefix(want.Told, body) || !strings.Contains(said, "20 tokens after 5 of the prompt: as many as wanted") {
		t.Errorf("exit code %d: %q %q", code, out, said)
	}
}

// TestGenerateSeed draws the same text from the same seed with any number of threads, and another from another.
func TestGenerateSeed(t *testing.T) {
	t.Parallel()
	args := []string{"--model", story, "--prompt", beginning, "--temperature", "1.5", "--top-k", "60", "--tokens", "24"}
	one := continued(t, append(args, "--seed", "1", "--threads", "1")...)
	two := continued(t, append(args, "--seed", "1", "--threads", "2")...)
	if one.Text != two.Text || !slices.Equal(one.Tokens, two.Tokens) || one.Text == "" {
		t.Errorf("%q and %q", one.Text, two.Text)
	}
	if other := continued(t, append(args, "--seed", "2")...); other.Text == one.Text {
		t.Errorf("both seeds say %q", one.Text)
	}
}

// TestGenerateCompressed runs integers as they are stored, and begins as the weights do that they decode to.
func TestGenerateCompressed(t *testing.T) {
	t.Parallel()
	var said []generation
	for _, format := range []string{"pack-quantized", "dense"} {
		out := filepath.Join(t.TempDir(), "out")
		mustCall(t, "compress", "--model", story, "--recipe", "w4a16-rtn", "--set", "output.format="+format, "--out", out)
		said = append(said, continued(t, "--model", out, "--prompt", beginning, "--greedy", "--tokens", "24"))
	}
	if len(said[0].Tokens) != 24 || !slices.Equal(said[0].Tokens[:5], said[1].Tokens[:5]) { // dense rounds to the type of the source, which decides where two tokens are close
		t.Errorf("%q and %q", said[0].Text, said[1].Text)
	}
}

func TestGenerateRefused(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "story")
	if err := unpack(bare, models.Story, "story"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bare, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	grown := filepath.Join(t.TempDir(), "grown") // with the vocabulary of another model
	if err := unpack(grown, models.Story, "story"); err != nil {
		t.Fatal(err)
	}
	addToken(t, filepath.Join(grown, "tokenizer.json"), 768)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--model", story}, "prompt"},
		{[]string{"--model", story, "--prompt", ""}, "empty"},
		{[]string{"--model", story, "--prompt", strings.Repeat("long ago ", 600)}, "context is 512"},
		{[]string{"--model", story, "--prompt", "a", "--tokens", "0"}, "--tokens"},
		{[]string{"--model", story, "--prompt", "a", "--threads", "0"}, "--threads"},
		{[]string{"--model", story, "--prompt", "a", "--temperature", "0"}, "--greedy"},
		{[]string{"--model", story, "--prompt", "a", "--temperature", "-1"}, "temperature"},
		{[]string{"--model", story, "--prompt", "a", "--top-k", "-1"}, "top-k"},
		{[]string{"--model", story, "--prompt", "a", "--greedy", "--seed", "1"}, "--seed"},
		{[]string{"--model", bare, "--prompt", "a"}, "tokenizer.json"},
		{[]string{"--model", grown, "--prompt", "a"}, "take the model's own tokenizer"},
		{[]string{"--model", filepath.Join(t.TempDir(), "none"), "--prompt", "a"}, "none"},
	} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"generate"}, c.args...), &out, &errs); code != exitInvalid || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%.80v: exit code %d: %s", c.args, code, errs.String())
		}
	}
}

// addToken adds a token to a tokenizer.
func addToken(t *testing.T, path string, id int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	added, _ := file["added_tokens"].([]any)
	file["added_tokens"] = append(added, map[string]any{"id": id, "content": "<|new|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
	if b, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, fs.FileMode(0o600)); err != nil {
		t.Fatal(err)
	}
}
