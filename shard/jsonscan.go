package shard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"
)

// maxDepth bounds nesting, so that hostile input cannot exhaust the stack.
const maxDepth = 64

// scanner walks over JSON text from front to back. encoding/json is not enough here: it keeps the last of two equal keys, where the
// reader of another program may keep the first, and it does not tell where a value stands, which the editor of config.json needs.
type scanner struct {
	file   string // named by errors
	text   []byte
	pos    int
	depth  int
	python bool // accept NaN and Infinity, as Python writes them into some config.json files
}

func (s *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("parse %s: byte %d: %s: %w; download the file again", s.file, s.pos, fmt.Sprintf(format, args...), ErrMalformed)
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

func (s *scanner) take(c byte) error {
	if s.peek() != c || s.pos == len(s.text) {
		return s.errorf("want %q", c)
	}
	s.pos++
	return nil
}

// end refuses anything but white space after the document.
func (s *scanner) end() error {
	if s.space(); s.pos != len(s.text) {
		return s.errorf("text after the end of the document")
	}
	return nil
}

// object calls member for each key, with the scanner before the value, which member must consume. Equal keys are refused.
func (s *scanner) object(member func(key string) error) error {
	if err := s.take('{'); err != nil {
		return err
	}
	if s.depth++; s.depth > maxDepth {
		return s.errorf("more than %d levels", maxDepth)
	}
	defer func() { s.depth-- }()
	var keys keySet
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		key, err := s.str()
		if err != nil {
			return err
		}
		if !keys.add(key) {
			return fmt.Errorf("parse %s: byte %d: %w key %q: readers disagree on which one counts; write the file again",
				s.file, s.pos, ErrDuplicate, key)
		}
		if err := s.take(':'); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.pos++
			continue
		}
		return s.take('}')
	}
}

// array calls item with the scanner before each element, which item must consume.
func (s *scanner) array(item func() error) error {
	if err := s.take('['); err != nil {
		return err
	}
	if s.depth++; s.depth > maxDepth {
		return s.errorf("more than %d levels", maxDepth)
	}
	defer func() { s.depth-- }()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.pos++
			continue
		}
		return s.take(']')
	}
}

// str reads a string.
func (s *scanner) str() (string, error) {
	if err := s.take('"'); err != nil {
		return "", err
	}
	start, plain := s.pos, true
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == '"':
			raw := s.text[start:s.pos]
			if !utf8.Valid(raw) {
				return "", s.errorf("string is not UTF-8")
			}
			s.pos++
			if plain {
				return string(raw), nil
			}
			var out string
			if err := json.Unmarshal(s.text[start-1:s.pos], &out); err != nil {
				return "", s.errorf("bad escape in a string")
			}
			return out, nil
		case c == '\\':
			plain = false
			s.pos++ // whatever follows is not the closing quote
		case c < 0x20:
			return "", s.errorf("control character in a string")
		}
	}
	s.pos = len(s.text)
	return "", s.errorf("string does not end")
}

// integer reads a whole number from 0 to 2^63-1, in its one canonical spelling.
func (s *scanner) integer() (int64, error) {
	if c := s.peek(); c < '0' || c > '9' {
		return 0, s.errorf("want a whole number, not negative")
	}
	start, n := s.pos, int64(0)
	for ; s.pos < len(s.text) && s.text[s.pos] >= '0' && s.text[s.pos] <= '9'; s.pos++ {
		digit := int64(s.text[s.pos] - '0')
		if n > (math.MaxInt64-digit)/10 {
			return 0, s.errorf("number does not fit in 63 bits")
		}
		n = 10*n + digit
	}
	if s.text[start] == '0' && s.pos > start+1 {
		return 0, s.errorf("number begins with a zero")
	}
	if s.pos < len(s.text) && bytes.IndexByte([]byte(".eE"), s.text[s.pos]) >= 0 {
		return 0, s.errorf("want a whole number")
	}
	return n, nil
}

// skip passes over a value of any kind and returns its text.
func (s *scanner) skip() (json.RawMessage, error) {
	c := s.peek()
	start := s.pos
	var err error
	switch c {
	case '{':
		err = s.object(func(string) error { _, err := s.skip(); return err })
	case '[':
		err = s.array(func() error { _, err := s.skip(); return err })
	case '"':
		_, err = s.str()
	default:
		err = s.literal()
	}
	return s.text[start:s.pos], err
}

// literal passes over a number, true, false or null.
func (s *scanner) literal() error {
	start := s.pos
	for s.pos < len(s.text) && !bytes.ContainsRune([]byte(" \t\r\n,:[]{}\""), rune(s.text[s.pos])) {
		s.pos++
	}
	word := s.text[start:s.pos]
	if s.python {
		switch string(word) {
		case "NaN", "Infinity", "-Infinity":
			return nil
		}
	}
	if !json.Valid(word) {
		s.pos = start
		return s.errorf("want a value")
	}
	return nil
}

// keySet finds equal keys: by comparison while there are few, as in the three members of each of a hundred thousand tensors.
type keySet struct {
	few  [4]string
	n    int
	many map[string]struct{}
}

func (k *keySet) add(key string) bool {
	if k.many != nil {
		if _, ok := k.many[key]; ok {
			return false
		}
		k.many[key] = struct{}{}
		return true
	}
	for _, have := range k.few[:k.n] {
		if have == key {
			return false
		}
	}
	if k.n < len(k.few) {
		k.few[k.n] = key
		k.n++
		return true
	}
	k.many = map[string]struct{}{key: {}}
	for _, have := range k.few {
		k.many[have] = struct{}{}
	}
	return true
}
