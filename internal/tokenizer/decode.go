package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder changes tokens, or joins some of them, until together they are the text.
type decoder interface {
	apply(tokens []string) []string
}

func parseDecoder(raw json.RawMessage, depth int) (decoder, error) {
	if absent(raw) {
		return nil, nil
	}
	kind, err := kind(raw, depth)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		var c struct {
			Type     string            `json:"type"`
			Decoders []json.RawMessage `json:"decoders"`
		}
		if err := strict(raw, &c); err != nil {
			return nil, err
		}
		var all decoders
		for i, raw := range c.Decoders {
			d, err := parseDecoder(raw, depth+1)
			if err != nil {
				return nil, fmt.Errorf("decoders[%d]: %w", i, err)
			}
			if d != nil {
				all = append(all, d)
			}
		}
		return all, nil
	case "ByteLevel":
		var c byteLevelSettings
		return fromBytes{}, strict(raw, &c)
	case "Replace":
		r, err := parseReplace(raw)
		return replaceEach{r}, err
	case "ByteFallback":
		return byteTokens{}, bare(raw)
	case "Fuse":
		return fuse{}, bare(raw)
	case "Strip":
		var c struct {
			Type    string `json:"type"`
			Content string `json:"content"`
			Start   int    `json:"start"`
			Stop    int    `json:"stop"`
		}
		if err := strict(raw, &c); err != nil {
			return nil, err
		}
		if utf8.RuneCountInString(c.Content) != 1 || c.Start < 0 {
			return nil, invalidf("Strip takes one character and a count, not %q and %d", c.Content, c.Start)
		}
		if c.Stop != 0 {
			return nil, unsupported("Strip with stop", c.Stop)
		}
		return strip{c.Content, c.Start}, nil
	case "Metaspace":
		m, err := parseMetaspace(raw)
		return fromMetaspace{m}, err
	}
	return nil, unsupported("type", kind)
}

// decoders are applied one after another.
type decoders []decoder

func (all decoders) apply(tokens []string) []string {
	for _, d := range all {
		tokens = d.apply(tokens)
	}
	return tokens
}

// replaceEach replaces within each token.
type replaceEach struct {
	*replace
}

func (r replaceEach) apply(tokens []string) []string {
	for i, token := range tokens {
		tokens[i] = r.replace.apply(token)
	}
	return tokens
}

// byteTokens joins tokens such as <0x0A> to text. A run of them that is not UTF-8 becomes one U+FFFD for every byte.
type byteTokens struct{}

func (byteTokens) apply(tokens []string) []string {
	out := tokens[:0]
	var run []byte
	flush := func() {
		switch {
		case len(run) == 0:
		case utf8.Valid(run):
			out = append(out, string(run))
		default:
			for range run {
				out = append(out, "\ufffd")
			}
		}
		run = run[:0]
	}
	for _, token := range tokens {
		if b, ok := byteToken(token); ok {
			run = append(run, b)
			continue
		}
		flush() // never more than came in
		out = append(out, token)
	}
	flush()
	return out
}

func byteToken(token string) (byte, bool) {
	if len(token) != 6 || !strings.HasPrefix(token, "<0x") || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}

// fuse joins all tokens to one.
type fuse struct{}

func (fuse) apply(tokens []string) []string {
	return []string{strings.Join(tokens, "")}
}

// strip takes a character away from the beginning of each token, so many times at most.
type strip struct {
	content string
	start   int
}

func (s strip) apply(tokens []string) []string {
	for i, token := range tokens {
		for n := 0; n < s.start && strings.HasPrefix(token, s.content); n++ {
			token = token[len(s.content):]
		}
		tokens[i] = token
	}
	return tokens
}

// fromMetaspace takes the visible character back to spaces, and out of the first token.
type fromMetaspace struct {
	*metaspace
}

func (m fromMetaspace) apply(tokens []string) []string {
	for i, token := range tokens {
		space := " "
		if i == 0 && m.scheme != "never" {
			space = ""
		}
		tokens[i] = strings.ReplaceAll(token, m.replacement, space)
	}
	return tokens
}

// lossy is the text of bytes, with one U+FFFD for every longest run of bytes that begins a character and does not end it (Unicode Standard, section 3.9,
// "U+FFFD Substitution of Maximal Subparts"). Go's conversion would give one for each byte.
func lossy(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	var b strings.Builder
	b.Grow(len(data))
	for len(data) > 0 {
		if r, size := utf8.DecodeRune(data); r != utf8.RuneError || size > 1 {
			b.Write(data[:size])
			data = data[size:]
			continue
		}
		b.WriteRune(utf8.RuneError)
		data = data[subpart(data):]
	}
	return b.String()
}

// subpart gives the length of the bad sequence that the data begins with, by table 3-7 of the Unicode Standard.
func subpart(data []byte) int {
	need, lo, hi := 0, byte(0x80), byte(0xbf)
	switch c := data[0]; {
	case 0xc2 <= c && c <= 0xdf:
		need = 1
	case 0xe0 <= c && c <= 0xef:
		need = 2
		switch c {
		case 0xe0:
			lo = 0xa0
		case 0xed:
			hi = 0x9f
		}
	case 0xf0 <= c && c <= 0xf4:
		need = 3
		switch c {
		case 0xf0:
			lo = 0x90
		case 0xf4:
			hi = 0x8f
		}
	}
	n := 1
	for n <= need && n < len(data) && lo <= data[n] && data[n] <= hi {
		lo, hi = 0x80, 0xbf
		n++
	}
	return n
}
