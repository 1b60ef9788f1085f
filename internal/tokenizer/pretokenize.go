package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// piece is a part of a text on its way to the model, which looks at each part alone.
type piece struct {
	text  string
	first bool // it begins the text
}

// preTokenizer splits a piece that is not empty and gives its parts, which are not empty either, in turn.
type preTokenizer interface {
	each(p piece, give func(piece))
}

func parsePreTokenizer(raw json.RawMessage, depth int) (preTokenizer, error) {
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
			Type          string            `json:"type"`
			PreTokenizers []json.RawMessage `json:"pretokenizers"`
		}
		if err := strict(raw, &c); err != nil {
			return nil, err
		}
		var all preTokenizers
		for i, raw := range c.PreTokenizers {
			p, err := parsePreTokenizer(raw, depth+1)
			if err != nil {
				return nil, fmt.Errorf("pretokenizers[%d]: %w", i, err)
			}
			if p != nil {
				all = append(all, p)
			}
		}
		return all, nil
	case "ByteLevel":
		return parseByteLevel(raw)
	case "Split":
		return parseSplit(raw)
	case "Digits":
		var c struct {
			Type       string `json:"type"`
			Individual bool   `json:"individual_digits"`
		}
		if err := strict(raw, &c); err != nil {
			return nil, err
		}
		return digits{c.Individual}, nil
	case "Metaspace":
		return parseMetaspace(raw)
	}
	return nil, unsupported("type", kind)
}

// preTokenizers split one after another, each the parts that the one before made.
type preTokenizers []preTokenizer

func (all preTokenizers) each(p piece, give func(piece)) {
	if len(all) == 0 {
		give(p)
		return
	}
	all[0].each(p, func(p piece) { all[1:].each(p, give) })
}

// split splits by one of the known regular expressions, whose matches are the whole text.
type split struct {
	scan scanner
}

func parseSplit(raw json.RawMessage) (preTokenizer, error) {
	var c struct {
		Type     string  `json:"type"`
		Pattern  pattern `json:"pattern"`
		Behavior string  `json:"behavior"`
		Invert   bool    `json:"invert"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if err := c.Pattern.check(); err != nil {
		return nil, err
	}
	if c.Pattern.String != nil {
		return nil, unsupported("Split by the string", *c.Pattern.String)
	}
	scan := scannerFor(*c.Pattern.Regex)
	if scan == nil {
		return nil, unsupported("Split by the regular expression", *c.Pattern.Regex)
	}
	// Each match by itself; or, which is the same where matches are everything, all but the matches removed.
	if !(c.Behavior == "Isolated" && !c.Invert || c.Behavior == "Removed" && c.Invert) {
		return nil, unsupported("Split with the behavior and invert", fmt.Sprintf("%s, %t", c.Behavior, c.Invert))
	}
	return split{scan}, nil
}

func (s split) each(p piece, give func(piece)) {
	for start := 0; start < len(p.text); {
		n := s.scan(p.text[start:])
		give(piece{p.text[start : start+n], p.first && start == 0})
		start += n
	}
}

// digits separates numbers from the rest, whole or digit by digit.
type digits struct {
	individual bool
}

func (d digits) each(p piece, give func(piece)) {
	for start := 0; start < len(p.text); {
		r, size := utf8.DecodeRuneInString(p.text[start:])
		numeric := isNumeric(r)
		end := start + size
		for end < len(p.text) && !(numeric && d.individual) {
			r, size := utf8.DecodeRuneInString(p.text[end:])
			if isNumeric(r) != numeric {
				break
			}
			end += size
		}
		give(piece{p.text[start:end], p.first && start == 0})
		start = end
	}
}

// metaspace writes spaces as a visible character, of which one belongs before every word.
type metaspace struct {
	replacement string
	scheme      string // where one is put before a piece: always, first, never
	split       bool   // before each of them
}

func parseMetaspace(raw json.RawMessage) (*metaspace, error) {
	var c struct {
		Type        string  `json:"type"`
		Replacement string  `json:"replacement"`
		AddPrefix   *bool   `json:"add_prefix_space"` // the older form of scheme
		Scheme      *string `json:"prepend_scheme"`
		Split       *bool   `json:"split"`
		Rep         *string `json:"str_rep"` // always the replacement
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if utf8.RuneCountInString(c.Replacement) != 1 {
		return nil, invalidf("Metaspace: the replacement %q is not one character", c.Replacement)
	}
	m := &metaspace{replacement: c.Replacement, scheme: "always", split: c.Split == nil || *c.Split}
	if c.Scheme != nil {
		m.scheme = *c.Scheme
	}
	switch m.scheme {
	case "always", "first", "never":
	default:
		return nil, unsupported("Metaspace with the prepend_scheme", m.scheme)
	}
	if c.AddPrefix != nil && !*c.AddPrefix && m.scheme != "never" {
		return nil, invalidf("Metaspace: add_prefix_space is false, but prepend_scheme is %q", m.scheme)
	}
	return m, nil
}

func (m *metaspace) each(p piece, give func(piece)) {
	text := strings.ReplaceAll(p.text, " ", m.replacement)
	if (m.scheme == "always" || m.scheme == "first" && p.first) && !strings.HasPrefix(text, m.replacement) {
		text = m.replacement + text
	}
	if !m.split {
		give(piece{text, p.first})
		return
	}
	for start := 0; start < len(text); {
		end := len(text)
		_, size := utf8.DecodeRuneInString(text[start:])
		if next := strings.Index(text[start+size:], m.replacement); next >= 0 {
			end = start + size + next
		}
		give(piece{text[start:end], p.first && start == 0})
		start = end
	}
}
