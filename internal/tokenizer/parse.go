package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxNesting bounds sequences within sequences: published files have two levels, and a hostile one must not exhaust the stack.
const maxNesting = 8

// document is a tokenizer.json as a whole. Truncation and padding are settings of a caller that happened to be saved: a text is never cut or
// filled up here, and transformers leaves them aside as well.
type document struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// Parse reads a tokenizer.json. Its error says which component is at fault, and is ErrInvalid or ErrUnsupported.
func Parse(data []byte) (*Tokenizer, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("parse tokenizer: %w", invalidf("it is not UTF-8"))
	}
	var doc document
	if err := strict(data, &doc); err != nil {
		return nil, fmt.Errorf("parse tokenizer: %w", err)
	}
	if doc.Version != "1.0" {
		return nil, fmt.Errorf("parse tokenizer: %w", unsupported("version", doc.Version))
	}
	t := &Tokenizer{special: Special{-1, -1, -1, -1}}
	var err error
	if t.model, err = parseModel(doc.Model); err != nil {
		return nil, fmt.Errorf("parse tokenizer: model: %w", err)
	}
	if t.normalize, err = parseNormalizer(doc.Normalizer, 0); err != nil {
		return nil, fmt.Errorf("parse tokenizer: normalizer: %w", err)
	}
	if t.split, err = parsePreTokenizer(doc.PreTokenizer, 0); err != nil {
		return nil, fmt.Errorf("parse tokenizer: pre_tokenizer: %w", err)
	}
	if t.post, err = parsePostProcessor(doc.PostProcessor, 0); err != nil {
		return nil, fmt.Errorf("parse tokenizer: post_processor: %w", err)
	}
	if t.decode, err = parseDecoder(doc.Decoder, 0); err != nil {
		return nil, fmt.Errorf("parse tokenizer: decoder: %w", err)
	}
	if t.added, err = newAdded(doc.AddedTokens, t.model, t.normalize); err != nil {
		return nil, fmt.Errorf("parse tokenizer: added_tokens: %w", err)
	}
	return t, nil
}

// strict reads one JSON value into v and refuses members that v does not have: they may change what the rest means.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return invalidf("%w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalidf("something follows the JSON value")
	}
	return nil
}

// absent says whether a component is not there at all.
func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

// kind gives the type of a component, or refuses sequences that are nested too deep.
func kind(raw json.RawMessage, depth int) (string, error) {
	if depth > maxNesting {
		return "", invalidf("sequences are nested deeper than %d", maxNesting)
	}
	var c struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return "", invalidf("%w", err)
	}
	return c.Type, nil
}

// bare reads a component that has no settings.
func bare(raw json.RawMessage) error {
	var c struct {
		Type string `json:"type"`
	}
	return strict(raw, &c)
}

// pattern is what Replace and Split look for: a plain string or a regular expression.
type pattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

func (p pattern) check() error {
	if (p.String == nil) == (p.Regex == nil) {
		return invalidf("a pattern is either a String or a Regex")
	}
	return nil
}
