package tokenizer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// edited gives a small tokenizer.json with one member, named by its path, put in the place of what was there.
func edited(t *testing.T, path, value string) []byte {
	t.Helper()
	var doc map[string]any
	decodeFile(t, "testdata/kinds/llama2.json", &doc)
	keys := strings.Split(path, ".")
	at := doc
	for _, key := range keys[:len(keys)-1] {
		at = at[key].(map[string]any)
	}
	var v any
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		t.Fatal(err)
	}
	at[keys[len(keys)-1]] = v
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRefused(t *testing.T) {
	t.Parallel()
	const token = `"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]`
	for _, c := range []struct {
		path, value string
		is          error
		says        string
	}{
		{"version", `"2.0"`, ErrUnsupported, `version "2.0"`},
		{"surprise", `1`, ErrInvalid, `surprise`},
		{"model.type", `"Unigram"`, ErrUnsupported, `type "Unigram"`},
		{"model.dropout", `0.1`, ErrUnsupported, `dropout "0.1"`},
		{"model.continuing_subword_prefix", `"##"`, ErrUnsupported, `continuing_subword_prefix "##"`},
		{"model.end_of_word_suffix", `"</w>"`, ErrUnsupported, `end_of_word_suffix "</w>"`},
		{"model.novelty", `true`, ErrInvalid, `novelty`},
		{"model.vocab", `{}`, ErrInvalid, `the vocabulary is empty`},
		{"model.vocab", `{"<unk>":-1}`, ErrInvalid, `id -1`},
		{"model.vocab", `{"<unk>":4000000000}`, ErrInvalid, `id 4000000000`},
		{"model.vocab", `{"<unk>":0,"a":0}`, ErrInvalid, `tokens "<unk>" and "a" both have id 0`},
		{"model.vocab", `{"<unk>":0.5}`, ErrInvalid, `0.5`},
		{"model.vocab", `{"a":0}`, ErrInvalid, `unk_token "<unk>" is not in the vocabulary`},
		{"model.merges", `["a b c"]`, ErrInvalid, `entry 0 has 3 parts`},
		{"model.merges", `[["a"]]`, ErrInvalid, `entry 0 has 1 parts`},
		{"model.merges", `["zz qq"]`, ErrInvalid, `token "zz" is not in the vocabulary`},
		{"model.merges", `null`, ErrInvalid, `there are no merges`},
		{"model", `null`, ErrInvalid, `model`},
		{"normalizer", `{"type":"Precompiled","precompiled_charsmap":""}`, ErrUnsupported, `type "Precompiled"`},
		{"normalizer", `{"type":"NFKC"}`, ErrUnsupported, `type "NFKC"`},
		{"normalizer", `{"type":"Replace","pattern":{"Regex":" +"},"content":" "}`, ErrUnsupported, `" +"`},
		{"normalizer", `{"type":"Replace","pattern":{"String":""},"content":" "}`, ErrInvalid, `empty`},
		{"normalizer", `{"type":"Replace","pattern":{"String":"a"},"content":"` + strings.Repeat("a", 17) + `"}`, ErrUnsupported, `16 times`},
		{"normalizer", strings.Repeat(`{"type":"Sequence","normalizers":[`, 20) + strings.Repeat(`]}`, 20), ErrInvalid, `nested`},
		{"pre_tokenizer", `{"type":"Whitespace"}`, ErrUnsupported, `type "Whitespace"`},
		{"pre_tokenizer", `{"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Isolated","invert":false}`, ErrUnsupported, `"\\w+"`},
		{"pre_tokenizer", `{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}`, ErrUnsupported, `Split by the string " "`},
		{"pre_tokenizer", `{"type":"Metaspace","replacement":"__"}`, ErrInvalid, `"__"`},
		{"pre_tokenizer", `{"type":"Metaspace","replacement":"_","prepend_scheme":"last"}`, ErrUnsupported, `"last"`},
		{"post_processor", `{"type":"Unheard"}`, ErrUnsupported, `type "Unheard"`},
		{"post_processor", `{"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}}`, ErrInvalid, `sequence A`},
		{"post_processor.special_tokens", `{}`, ErrInvalid, `token "<s>" has no ids`},
		{"decoder", `{"type":"WordPiece","prefix":"##","cleanup":true}`, ErrUnsupported, `type "WordPiece"`},
		{"decoder", `{"type":"Strip","content":" ","start":0,"stop":1}`, ErrUnsupported, `stop "1"`},
		{"added_tokens", `[{"id":7,"content":"<s>",` + token, ErrInvalid, `token "<s>" has id 7; by its place it would get 1`},
		{"added_tokens", `[{"id":1,"content":"<s>","special":true}]`, ErrInvalid, `token "<s>" lacks`},
		{"added_tokens", `[{"id":1,"content":"",` + token, ErrInvalid, `0 bytes`},
	} {
		t.Run(c.path+" "+c.says, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(edited(t, c.path, c.value))
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	for _, data := range []string{"", "{", "[]", "{}", `{"version":"1.0"}`, "{} {}", "\xff"} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("Parse(%q) finds no fault", data)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/kinds/llama2.json")
	if err != nil {
		t.Fatal(err)
	}
	with := func(config string) fs.FS {
		dir := fstest.MapFS{"tokenizer.json": {Data: data}}
		if config != "" {
			dir["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(config)}
		}
		return dir
	}
	plain := parseFile(t, "testdata/kinds/llama2.json").Encode("two boats", false)
	for _, c := range []struct {
		config        string
		special       Special
		before, after []int
	}{
		{"", Special{-1, -1, -1, -1}, []int{1}, nil},
		{`{"bos_token":"<s>","eos_token":{"content":"</s>","lstrip":false},"pad_token":null}`, Special{1, 2, -1, -1}, []int{1}, nil},
		{`{"tokenizer_class":"PreTrainedTokenizerFast","bos_token":"<s>","add_bos_token":false}`, Special{1, -1, -1, -1}, []int{1}, nil},
		{`{"tokenizer_class":"LlamaTokenizer","bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>","add_bos_token":false,"add_eos_token":true}`,
			Special{1, 2, 0, -1}, nil, []int{2}},
		{`{"tokenizer_class":"LlamaTokenizerFast","bos_token":"<s>"}`, Special{1, -1, -1, -1}, []int{1}, nil},
	} {
		tok, err := Load(with(c.config))
		if err != nil {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		if tok.Special() != c.special {
			t.Errorf("%s: %+v, want %+v", c.config, tok.Special(), c.special)
		}
		if got, want := tok.Encode("two boats", true), slices.Concat(c.before, plain, c.after); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", c.config, got, want)
		}
	}
	for config, says := range map[string]string{
		`{"bos_token":"<begin>"}`:                              `bos_token: invalid tokenizer: token "<begin>" is not in tokenizer.json`,
		`{"eos_token":7}`:                                      `eos_token: invalid tokenizer: it is neither`,
		`{"tokenizer_class":"LlamaTokenizer"}`:                 `there is no bos_token`,
		`{"tokenizer_class":"LlamaTokenizer","add_bos_token":`: `tokenizer_config.json`,
	} {
		if _, err := Load(with(config)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", config, err)
		}
	}
	if _, err := Load(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	tok := parseFile(t, "testdata/kinds/mistral.json")
	for id := range tok.Size() {
		token, ok := tok.Token(id)
		if back, known := tok.ID(token); !ok || !known || back != id {
			t.Errorf("id %d is token %q, %v, whose id is %d, %v", id, token, ok, back, known)
		}
	}
	for _, id := range []int{-1, tok.Size(), 1 << 40} {
		if token, ok := tok.Token(id); ok {
			t.Errorf("id %d is token %q", id, token)
		}
	}
	if got, want := tok.Encode("a\xff\xc3b", false), tok.Encode("a\ufffd\ufffdb", false); !slices.Equal(got, want) {
		t.Errorf("bytes that are not UTF-8 are %v, and U+FFFD %v", got, want)
	}
}

// Every id that the bundled model can meet has its text.
func TestStory(t *testing.T) {
	t.Parallel()
	tok, err := Load(os.DirFS("../../testdata/models/story"))
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != 768 || tok.Special() != (Special{0, 0, -1, 0}) {
		t.Errorf("size %d, special %+v", tok.Size(), tok.Special())
	}
	const text = "<|endoftext|>Once there was a boat.\n"
	ids := tok.Encode(text, true)
	if ids[0] != 0 || tok.Decode(ids, false) != text || tok.Decode(ids, true) != strings.TrimPrefix(text, "<|endoftext|>") {
		t.Errorf("%v: %q", ids, tok.Decode(ids, false))
	}
}

// The classes are those of Oniguruma and of Rust's regex: so many characters of each, as tokenizers 0.22.2 finds them.
func TestClasses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		is   func(rune) bool
		want int
	}{
		{"letter", isLetter, 141028}, {"number", isNumber, 1911}, {"space", isSpace, 25}, {"word", isWord, 144667},
	} {
		got := 0
		for r := range rune(0x110000) {
			if (r < 0xd800 || r > 0xdfff) && c.is(r) {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%s: %d characters, want %d", c.name, got, c.want)
		}
	}
}
