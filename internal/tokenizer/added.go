package tokenizer

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxAddedToken bounds what is compared with the text at every place of it, in bytes.
const maxAddedToken = 1024

// addedToken is a token that is looked for in the text before anything else is done to it. Flags are pointers because tokenizers refuses a file that
// leaves one out.
type addedToken struct {
	ID         *int64 `json:"id"`
	Content    string `json:"content"`
	SingleWord *bool  `json:"single_word"` // not within a word
	LStrip     *bool  `json:"lstrip"`      // takes the white space before it
	RStrip     *bool  `json:"rstrip"`      // and after it
	Normalized *bool  `json:"normalized"`  // looked for in the normalized text, as its normalized self
	Special    *bool  `json:"special"`     // left out by Decode when asked
}

// added are all added tokens.
type added struct {
	ids             map[string]int32
	tokens          map[int32]*addedToken
	special         map[string]bool
	limit           int // largest id + 1
	raw, normalized *matcher
}

// newAdded checks the tokens. tokenizers does not take ids from the file: a token of the vocabulary keeps its id there, and others are numbered
// from the vocabulary's size on. A file that says otherwise would mean two things, and is refused.
func newAdded(list []addedToken, m *bpe, n normalizer) (*added, error) {
	a := &added{ids: map[string]int32{}, tokens: map[int32]*addedToken{}, special: map[string]bool{}, raw: newMatcher(), normalized: newMatcher()}
	next := int64(len(m.vocab))
	for i := range list {
		t := &list[i]
		if t.ID == nil || t.SingleWord == nil || t.LStrip == nil || t.RStrip == nil || t.Normalized == nil || t.Special == nil {
			return nil, invalidf("token %q lacks one of id, single_word, lstrip, rstrip, normalized, special", t.Content)
		}
		if t.Content == "" || len(t.Content) > maxAddedToken {
			return nil, invalidf("token %d has %d bytes, which is not within 1 and %d", *t.ID, len(t.Content), maxAddedToken)
		}
		if _, twice := a.ids[t.Content]; twice {
			return nil, invalidf("token %q is there twice", t.Content)
		}
		id := next
		own, known := m.vocab[t.Content]
		if known {
			id = int64(own)
		}
		if *t.ID != id {
			return nil, invalidf("token %q has id %d; by its place it would get %d", t.Content, *t.ID, id)
		}
		if id >= maxID {
			return nil, invalidf("token %q has id %d, which is above %d", t.Content, id, maxID-1)
		}
		if !known {
			next++
		} else if id >= next {
			next = id + 1
		}
		a.ids[t.Content], a.tokens[int32(id)] = int32(id), t
		a.limit = max(a.limit, int(id)+1)
		if *t.Special {
			a.special[t.Content] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.tokens)) {
		t := a.tokens[id]
		if !*t.Normalized {
			a.raw.add(t.Content, id, t)
			continue
		}
		content := t.Content
		if n != nil {
			content = n.apply(content)
		}
		if content == "" {
			return nil, invalidf("token %q is empty once normalized", t.Content)
		}
		if a.normalized.add(content, id, t); a.normalized.clash {
			return nil, invalidf("token %q is the same as another once normalized", t.Content)
		}
	}
	return a, nil
}

// matcher finds tokens in a text from left to right, at each place the longest. It is a trie over bytes.
type matcher struct {
	edges  map[uint64]int32 // node<<8 | byte: node
	ends   map[int32]int32  // node: id
	tokens map[int32]*addedToken
	starts [256]bool
	nodes  int32
	clash  bool // two tokens are the same
}

func newMatcher() *matcher {
	return &matcher{edges: map[uint64]int32{}, ends: map[int32]int32{}, tokens: map[int32]*addedToken{}}
}

func (m *matcher) add(content string, id int32, t *addedToken) {
	node := int32(0)
	m.starts[content[0]] = true
	for i := range len(content) {
		key := uint64(node)<<8 | uint64(content[i])
		next, ok := m.edges[key]
		if !ok {
			m.nodes++
			next = m.nodes
			m.edges[key] = next
		}
		node = next
	}
	_, m.clash = m.ends[node]
	m.ends[node], m.tokens[id] = id, t
}

// longest gives the longest token that the text begins with, and its length; -1 if there is none.
func (m *matcher) longest(text string) (id int32, length int) {
	id = -1
	node := int32(0)
	for i := range len(text) {
		next, ok := m.edges[uint64(node)<<8|uint64(text[i])]
		if !ok {
			break
		}
		node = next
		if end, ok := m.ends[node]; ok {
			id, length = end, i+1
		}
	}
	return id, length
}

// split calls each for every part of the text in turn, with its offset and the id of a token, or -1 for text between tokens. Empty parts are left out.
func (m *matcher) split(text string, each func(part string, offset int, id int32)) {
	done := 0        // what has been given away
	var from, to int // white space found behind a token, so that tokens within it do not look again
	if m.nodes > 0 {
		for i := 0; i < len(text); {
			if !m.starts[text[i]] {
				i++
				continue
			}
			id, length := m.longest(text[i:])
			if id < 0 {
				i++
				continue
			}
			start, stop := i, i+length
			i = stop
			t := m.tokens[id]
			if *t.SingleWord && (endsWithWord(text[:start]) || startsWithWord(text[stop:])) {
				continue
			}
			if *t.LStrip {
				// Not what the token before has taken.
				start = max(start, done) - len(text[min(done, start):start]) + len(strings.TrimRightFunc(text[min(done, start):start], isSpace))
			}
			if *t.RStrip {
				if stop < from || stop > to {
					from, to = stop, len(text)-len(strings.TrimLeftFunc(text[stop:], isSpace))
				}
				stop = to
			}
			if done < start {
				each(text[done:start], done, -1)
			}
			if start < stop { // else the token before has taken it as its white space
				each(text[start:stop], start, id)
			}
			done = stop
		}
	}
	if done < len(text) {
		each(text[done:], done, -1)
	}
}

func endsWithWord(text string) bool {
	r, size := utf8.DecodeLastRuneInString(text)
	return size > 0 && isWord(r)
}

func startsWithWord(text string) bool {
	r, size := utf8.DecodeRuneInString(text)
	return size > 0 && isWord(r)
}
