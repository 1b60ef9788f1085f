package tokenizer

import (
	"encoding/json"
	"strings"
)

// byteLevel writes every byte as one printable character, so that the model's vocabulary is of bytes (Radford et al. 2019, section 2.2).
type byteLevel struct {
	addPrefixSpace bool
	scan           scanner // nil: the text is split already
}

// byteLevelSettings are those of the component of this name, which is a pre-tokenizer, a post-processor and a decoder.
type byteLevelSettings struct {
	Type           string `json:"type"`
	AddPrefixSpace *bool  `json:"add_prefix_space"`
	TrimOffsets    *bool  `json:"trim_offsets"` // about offsets, which are not made here
	UseRegex       *bool  `json:"use_regex"`
}

func parseByteLevel(raw json.RawMessage) (preTokenizer, error) {
	var c byteLevelSettings
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if c.AddPrefixSpace == nil || c.TrimOffsets == nil {
		return nil, invalidf("ByteLevel lacks add_prefix_space or trim_offsets")
	}
	b := &byteLevel{addPrefixSpace: *c.AddPrefixSpace}
	if c.UseRegex == nil || *c.UseRegex {
		b.scan = scanGPT2
	}
	return b, nil
}

func (b *byteLevel) each(p piece, give func(piece)) {
	if b.addPrefixSpace && p.text[0] != ' ' {
		p.text = " " + p.text
	}
	if b.scan == nil {
		give(piece{toBytes(p.text), p.first})
		return
	}
	split{b.scan}.each(p, func(p piece) { give(piece{toBytes(p.text), p.first}) })
}

// Bytes that are printable and not white space in Latin-1 stand for themselves; the others, in their order, for the characters from U+0100 on.
func byteToRune(b byte) rune {
	switch {
	case '!' <= b && b <= '~', 0xa1 <= b && b <= 0xac, 0xae <= b:
		return rune(b)
	case b <= 0x20:
		return 0x100 + rune(b)
	case b <= 0xa0:
		return 0x121 + rune(b) - 0x7f
	}
	return 0x143 // the soft hyphen, 0xad
}

func runeToByte(r rune) (byte, bool) {
	switch {
	case '!' <= r && r <= '~', 0xa1 <= r && r <= 0xac, 0xae <= r && r <= 0xff:
		return byte(r), true
	case 0x100 <= r && r <= 0x120:
		return byte(r - 0x100), true
	case 0x121 <= r && r <= 0x142:
		return byte(r - 0x121 + 0x7f), true
	case r == 0x143:
		return 0xad, true
	}
	return 0, false
}

func toBytes(text string) string {
	plain := true
	for i := range len(text) {
		if text[i] < '!' || text[i] > '~' {
			plain = false
			break
		}
	}
	if plain {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) * 2)
	for i := range len(text) {
		b.WriteRune(byteToRune(text[i]))
	}
	return b.String()
}

// fromBytes takes tokens back to bytes. A token with a character that stands for no byte is taken as it is.
type fromBytes struct{}

func (fromBytes) apply(tokens []string) []string {
	var all []byte
	for _, token := range tokens {
		start := len(all)
		for _, r := range token {
			b, ok := runeToByte(r)
			if !ok {
				all = append(all[:start], token...)
				break
			}
			all = append(all, b)
		}
	}
	return []string{lossy(all)}
}
