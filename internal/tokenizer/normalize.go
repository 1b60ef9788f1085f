package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes text before it is split.
type normalizer interface {
	apply(text string) string
}

func parseNormalizer(raw json.RawMessage, depth int) (normalizer, error) {
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
			Type        string            `json:"type"`
			Normalizers []json.RawMessage `json:"normalizers"`
		}
		if err := strict(raw, &c); err != nil {
			return nil, err
		}
		var all normalizers
		for i, raw := range c.Normalizers {
			n, err := parseNormalizer(raw, depth+1)
			if err != nil {
				return nil, fmt.Errorf("normalizers[%d]: %w", i, err)
			}
			if n != nil {
				all = append(all, n)
			}
		}
		return all, nil
	case "Prepend":
		var c struct {
			Type    string `json:"type"`
			Prepend string `json:"prepend"`
		}
		if err := strict(raw, &c); err != nil {
			return nil, err
		}
		return prepend(c.Prepend), nil
	case "Replace":
		return parseReplace(raw)
	case "NFC":
		return canonical(norm.NFC), bare(raw)
	case "NFD":
		return canonical(norm.NFD), bare(raw)
	case "Lowercase":
		return lowercase{}, bare(raw)
	}
	return nil, unsupported("type", kind)
}

// normalizers are applied one after another.
type normalizers []normalizer

func (all normalizers) apply(text string) string {
	for _, n := range all {
		text = n.apply(text)
	}
	return text
}

// prepend puts its string before every text that is not empty.
type prepend string

func (p prepend) apply(text string) string {
	if text == "" {
		return ""
	}
	return string(p) + text
}

// replace puts one string in the place of another, everywhere.
type replace struct {
	old, new string
}

func parseReplace(raw json.RawMessage) (*replace, error) {
	var c struct {
		Type    string  `json:"type"`
		Pattern pattern `json:"pattern"`
		Content string  `json:"content"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if err := c.Pattern.check(); err != nil {
		return nil, err
	}
	switch {
	case c.Pattern.Regex != nil:
		return nil, unsupported("Replace by the regular expression", *c.Pattern.Regex)
	case *c.Pattern.String == "":
		return nil, invalidf("Replace looks for an empty string")
	case len(c.Content) > 16*len(*c.Pattern.String):
		// A hundred of these in a row would make a gigabyte of a word.
		return nil, unsupported("Replace by a content more than 16 times as long", c.Content[:16])
	}
	return &replace{*c.Pattern.String, c.Content}, nil
}

func (r *replace) apply(text string) string {
	return strings.ReplaceAll(text, r.old, r.new)
}
