package tokenizer

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestStream holds what comes id by id to what Decode makes of all: wherever a prompt ends, the text that follows is the whole's.
func TestStream(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/kinds/*.ids.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d kinds, %v", len(files), err)
	}
	texts := []string{"Once upon a time, there was", "tabs\t and\n\n lines", "naïve café", "日本語のテキスト", "👩‍👩‍👧 and 🦙", "a  b   c", "don't 12345"}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".ids.json")
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			tok := parseFile(t, name+".json")
			for _, text := range texts {
				ids := tok.Encode(text, true)
				want := tok.Decode(ids, true)
				for n := range len(ids) + 1 {
					before := tok.Decode(ids[:n], true)
					s, have := tok.Stream(ids[:n]), ""
					for _, id := range ids[n:] {
						have += s.Next(id)
					}
					have += s.Rest()
					if rest := s.Rest(); rest != "" {
						t.Errorf("%q, %d ids before: %q twice", text, n, rest)
					}
					if strings.HasPrefix(want, before) && before+have != want {
						t.Errorf("%q, %d ids before: %q then %q, want %q", text, n, before, have, want)
					}
				}
			}
		})
	}
}

// TestStreamBroken holds back no more than a character can need.
func TestStreamBroken(t *testing.T) {
	t.Parallel()
	tok := parseFile(t, "testdata/kinds/llama2.json")
	id, ok := tok.ID("<0xE4>")
	if !ok {
		t.Fatal("no token of a byte")
	}
	s, have := tok.Stream(nil), 0
	for range 100 {
		have += len(s.Next(id))
		if n := len(s.ids); n > 2*streamContext {
			t.Fatalf("%d ids are kept", n)
		}
	}
	if have += len(s.Rest()); have != 100*len("\ufffd") {
		t.Errorf("%d bytes of text", have)
	}
}
