package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The cases were written by tools/interop/golden/tokenizer.py, with tokenizers 0.22.2.
func TestGolden(t *testing.T) {
	t.Parallel()
	var texts []string
	decodeFile(t, "testdata/kinds/texts.json", &texts)
	files, err := filepath.Glob("testdata/kinds/*.ids.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d kinds, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".ids.json")
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			var want []struct {
				IDs, Plain  []int
				Text, Whole string
			}
			decodeFile(t, file, &want)
			if len(want) != len(texts) {
				t.Fatalf("%d answers to %d texts", len(want), len(texts))
			}
			tok := parseFile(t, name+".json")
			for i, text := range texts {
				if got := tok.Encode(text, true); !slices.Equal(got, want[i].IDs) {
					t.Errorf("Encode(%q, true) = %v\nwant %v", text, got, want[i].IDs)
				}
				if got := tok.Encode(text, false); !slices.Equal(got, want[i].Plain) {
					t.Errorf("Encode(%q, false) = %v\nwant %v", text, got, want[i].Plain)
				}
				if got := tok.Decode(want[i].IDs, true); got != want[i].Text {
					t.Errorf("Decode(ids of %q, true) = %q\nwant %q", text, got, want[i].Text)
				}
				if got := tok.Decode(want[i].IDs, false); got != want[i].Whole {
					t.Errorf("Decode(ids of %q, false) = %q\nwant %q", text, got, want[i].Whole)
				}
			}
		})
	}
}

// WikiText-2 has a known number of tokens under Llama-2's vocabulary, of which the perplexities in papers depend.
func TestWikiText(t *testing.T) {
	t.Parallel()
	data := os.Getenv("SHARDPRESS_TESTDATA")
	if data == "" {
		t.Skip("SHARDPRESS_TESTDATA is not set")
	}
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	raw, err := os.ReadFile(filepath.Join(data, "text/wikitext2-raw-test.txt"))
	if err != nil {
		t.Fatal(err)
	}
	tok := parseFile(t, filepath.Join(data, "tokenizers/llama-2/tokenizer.json"))
	text := string(raw)
	rows := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, row := range rows { // the data set's rows keep their line ends, and blank ones are empty
		if rows[i] = row + "\n"; strings.TrimSpace(row) == "" {
			rows[i] = ""
		}
	}
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"as it is", text, 335_688},
		{"rows joined by two newlines", strings.Join(rows, "\n\n"), 341_469},
	} {
		if got := len(tok.Encode(c.text, true)); got != c.want {
			t.Errorf("%s: %d tokens, want %d", c.name, got, c.want)
		}
	}
}

func decodeFile(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func parseFile(t testing.TB, name string) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// BenchmarkEncode is of 1.3 MB of prose, which Llama-2's form takes for one word.
func BenchmarkEncode(b *testing.B) {
	data := os.Getenv("SHARDPRESS_TESTDATA")
	if data == "" {
		b.Skip("SHARDPRESS_TESTDATA is not set")
	}
	raw, err := os.ReadFile(filepath.Join(data, "text/wikitext2-raw-test.txt"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"gpt2", "llama-2"} {
		tok := parseFile(b, filepath.Join(data, "tokenizers", name, "tokenizer.json"))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				tok.Encode(string(raw), true)
			}
		})
	}
}
