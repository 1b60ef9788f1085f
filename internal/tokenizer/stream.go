package tokenizer

import "strings"

// streamContext is how many tokens of the prompt are decoded again before what follows: decoders treat the first token of a text unlike
// the others, and a character may begin before the end of the prompt. Nor are more than that held back: a character has four bytes.
const streamContext = 8

// Stream decodes ids that come one by one. A token may hold part of a character: its text is held back until the character is whole.
// Its time for a token does not grow with the text. Tokens that are marked special are left out.
type Stream struct {
	t    *Tokenizer
	ids  []int
	said int // of ids, those whose text was given
}

// Stream decodes what follows a prompt.
func (t *Tokenizer) Stream(prompt []int) *Stream {
	start := max(0, len(prompt)-streamContext)
	for start > 0 && strings.HasPrefix(t.Decode(prompt[start:], true), "\ufffd") {
		start++ // amid a character, which would spoil those after it
	}
	ids := append([]int(nil), prompt[start:]...)
	return &Stream{t: t, ids: ids, said: len(ids)}
}

// Next gives the text that is complete with one more id; often that of the id, at times none.
func (s *Stream) Next(id int) string {
	s.ids = append(s.ids, id)
	text := s.open()
	if strings.HasSuffix(text, "\ufffd") && len(s.ids)-s.said < streamContext {
		return ""
	}
	if text != "" { // an id without a text, such as a special one, is no ground to judge the next by
		s.ids = append(s.ids[:0], s.ids[s.said:]...)
		s.said = len(s.ids)
	}
	return text
}

// Rest gives what was held back, at the end: U+FFFD stands for what is not a character.
func (s *Stream) Rest() string {
	text := s.open()
	s.said = len(s.ids)
	return text
}

// open is the text of the ids whose text was not given.
func (s *Stream) open() string {
	before := s.t.Decode(s.ids[:s.said], true)
	if text, ok := strings.CutPrefix(s.t.Decode(s.ids, true), before); ok {
		return text
	}
	// What follows has changed the text before it, which was given: bytes that are no character with it and were one without.
	return s.t.Decode(s.ids[s.said:], true)
}
