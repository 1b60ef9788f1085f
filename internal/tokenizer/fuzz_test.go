package tokenizer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// Hostile files give an error of ours or a tokenizer that neither panics nor makes ids it cannot decode.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/kinds/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "../../testdata/models/story/tokenizer.json") {
		if strings.HasSuffix(file, ".ids.json") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "two <x> 12 don't<s>\n\u00e9 WORD")
	}
	f.Add([]byte(`{"version":"1.0","model":{"vocab":{"a":0,"aa":1},"merges":["a a"]}}`), "aaa")
	f.Add([]byte(`{"version":"1.0","added_tokens":[{"id":1,"content":" ","single_word":false,"lstrip":true,"rstrip":true,"normalized":false,"special":false}],`+
		`"model":{"vocab":{"a":0},"merges":[]}}`), " a  a ")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if len(text) > 1<<12 {
			text = text[:1<<12]
		}
		ids := tok.Encode(text, false)
		for _, id := range ids {
			if _, ok := tok.Token(id); !ok || id >= tok.Size() {
				t.Fatalf("Encode(%q) gives %d, which has no token", text, id)
			}
		}
		tok.Encode(text, true)
		tok.Decode(ids, true)
		tok.Decode([]int{-1, 1 << 40, 0}, false)
	})
}

// What a byte-level tokenizer without a normalizer encodes, it decodes to the same.
func FuzzRoundTrip(f *testing.F) {
	f.Add("two  boats\r\n\tan' 12345 'LL \u0301\u4e2d\U0001f30d")
	gpt2, llama3 := parseFile(f, "testdata/kinds/gpt2.json"), parseFile(f, "testdata/kinds/llama3.json")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		for _, tok := range []*Tokenizer{gpt2, llama3} {
			if got := tok.Decode(tok.Encode(text, false), false); got != text {
				t.Errorf("%q comes back as %q", text, got)
			}
		}
	})
}

// Texts that would take minutes if anything were quadratic: one long word, white space, half-written tokens.
func TestLinear(t *testing.T) {
	t.Parallel()
	const size = 1 << 17
	for _, kind := range []string{"gpt2", "qwen2", "llama2", "unknown"} {
		tok := parseFile(t, "testdata/kinds/"+kind+".json")
		for _, unit := range []string{"a", "the", " ", "\n", "'", "<|", "<x>", " <x> ", "\u0301", "\u4e2d", "\u2581", "a\u0323\u0301"} {
			if len(tok.Encode(strings.Repeat(unit, size/len(unit)), false)) == 0 {
				t.Errorf("%s: no ids for %q", kind, unit)
			}
		}
	}
}
