package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxID bounds ids: the largest published vocabularies have some 260,000 tokens, and the embedding has a row for each.
const maxID = 1 << 24

// bpe is byte-pair encoding: a word begins as its characters, and of all neighbours that a merge joins, those of the earliest merge are
// joined first, the leftmost before others, until none is left (Sennrich et al. 2016, algorithm 1).
type bpe struct {
	vocab        map[string]int32
	tokens       map[int32]string
	merges       map[uint64]merge // by pair
	limit        int              // largest id + 1
	unknown      int32            // -1: characters without a token are dropped
	fuseUnknown  bool
	byteFallback bool
	ignoreMerges bool
	bytes        [256]int32 // the tokens <0x00> to <0xFF>, -1 where there is none
}

// merge is what two neighbours become, and the place of the merge in the list.
type merge struct {
	rank, id int32
}

func pair(a, b int32) uint64 {
	return uint64(uint32(a))<<32 | uint64(uint32(b))
}

func parseModel(raw json.RawMessage) (*bpe, error) {
	if absent(raw) {
		return nil, invalidf("there is none")
	}
	kind, err := kind(raw, 0)
	if err != nil {
		return nil, err
	}
	if kind != "BPE" && kind != "" { // files of before 2021 do not say the type
		return nil, unsupported("type", kind)
	}
	var c struct {
		Type         string           `json:"type"`
		Dropout      *float64         `json:"dropout"`
		Unknown      *string          `json:"unk_token"`
		Prefix       *string          `json:"continuing_subword_prefix"`
		Suffix       *string          `json:"end_of_word_suffix"`
		FuseUnknown  bool             `json:"fuse_unk"`
		ByteFallback bool             `json:"byte_fallback"`
		IgnoreMerges bool             `json:"ignore_merges"`
		Vocab        map[string]int64 `json:"vocab"`
		Merges       json.RawMessage  `json:"merges"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Dropout != nil && *c.Dropout != 0:
		return nil, unsupported("dropout", *c.Dropout) // ids would be left to chance
	case c.Prefix != nil && *c.Prefix != "":
		return nil, unsupported("continuing_subword_prefix", *c.Prefix)
	case c.Suffix != nil && *c.Suffix != "":
		return nil, unsupported("end_of_word_suffix", *c.Suffix)
	case len(c.Vocab) == 0:
		return nil, invalidf("the vocabulary is empty")
	case absent(c.Merges):
		return nil, invalidf("there are no merges")
	}
	m := &bpe{vocab: make(map[string]int32, len(c.Vocab)), tokens: make(map[int32]string, len(c.Vocab)), unknown: -1,
		fuseUnknown: c.FuseUnknown, byteFallback: c.ByteFallback, ignoreMerges: c.IgnoreMerges}
	for token, id := range c.Vocab {
		if id < 0 || id >= maxID {
			return nil, invalidf("vocab: token %q has id %d, which is not within 0 and %d", token, id, maxID-1)
		}
		if other, twice := m.tokens[int32(id)]; twice {
			return nil, invalidf("vocab: tokens %q and %q both have id %d", min(token, other), max(token, other), id)
		}
		m.vocab[token], m.tokens[int32(id)] = int32(id), token
		m.limit = max(m.limit, int(id)+1)
	}
	if c.Unknown != nil {
		id, ok := m.vocab[*c.Unknown]
		if !ok {
			return nil, invalidf("unk_token %q is not in the vocabulary", *c.Unknown)
		}
		m.unknown = id
	}
	for b := range m.bytes {
		m.bytes[b] = -1
		if id, ok := m.vocab[fmt.Sprintf("<0x%02X>", b)]; ok {
			m.bytes[b] = id
		}
	}
	return m, m.readMerges(c.Merges)
}

// readMerges reads the list of merges, each "a b" or, since tokenizers 0.20, ["a", "b"].
func (m *bpe) readMerges(raw json.RawMessage) error {
	var pairs [][]string
	if first := bytes.TrimLeft(bytes.TrimPrefix(bytes.TrimSpace(raw), []byte("[")), " \t\r\n"); len(first) > 0 && first[0] == '"' {
		var lines []string
		if err := strict(raw, &lines); err != nil {
			return fmt.Errorf("merges: %w", err)
		}
		pairs = make([][]string, 0, len(lines))
		for _, line := range lines {
			if !strings.HasPrefix(line, "#version") { // the first line of a merges.txt
				pairs = append(pairs, strings.Split(line, " "))
			}
		}
	} else if err := strict(raw, &pairs); err != nil {
		return fmt.Errorf("merges: %w", err)
	}
	m.merges = make(map[uint64]merge, len(pairs))
	for rank, p := range pairs {
		if len(p) != 2 {
			return invalidf("merges: entry %d has %d parts, not two", rank, len(p))
		}
		var ids [3]int32
		for i, token := range []string{p[0], p[1], p[0] + p[1]} {
			id, ok := m.vocab[token]
			if !ok {
				return invalidf("merges: entry %d: token %q is not in the vocabulary", rank, token)
			}
			ids[i] = id
		}
		m.merges[pair(ids[0], ids[1])] = merge{int32(rank), ids[2]} // of two entries for one pair the later counts, as in tokenizers
	}
	return nil
}

// symbol is a part of a word: a list, linked by places so that a merge costs nothing but itself.
type symbol struct {
	id         int32
	prev, next int32 // -1: none
	dead       bool  // merged into the one before
}

// words encodes one word after another and remembers what it found: most words of a text come again.
type words struct {
	model   *bpe
	known   map[string][]int32
	symbols []symbol
	queue   queue
}

// Words up to maxKnownWord bytes are remembered, and at most maxKnown of them: a hostile text must not fill the memory.
const (
	maxKnown     = 1 << 16
	maxKnownWord = 64
)

func newWords(m *bpe) *words {
	return &words{model: m, known: map[string][]int32{}}
}

// append appends the ids of one word.
func (w *words) append(ids []int, word string) []int {
	if word == "" {
		return ids
	}
	if w.model.ignoreMerges {
		if id, ok := w.model.vocab[word]; ok {
			return append(ids, int(id))
		}
	}
	if known, ok := w.known[word]; ok {
		for _, id := range known {
			ids = append(ids, int(id))
		}
		return ids
	}
	w.begin(word)
	w.merge()
	start := len(ids)
	for _, s := range w.symbols {
		if !s.dead {
			ids = append(ids, int(s.id))
		}
	}
	if len(word) <= maxKnownWord && len(w.known) < maxKnown {
		found := make([]int32, len(ids)-start)
		for i, id := range ids[start:] {
			found[i] = int32(id)
		}
		w.known[word] = found
	}
	return ids
}

// begin makes the word's characters the symbols. A character that the vocabulary lacks becomes its bytes, if there are tokens for all of
// them, else the unknown token, else nothing. An unknown token waits for the next character that the vocabulary has, so it comes
// after bytes that stand behind it: so does tokenizers.
func (w *words) begin(word string) {
	m := w.model
	w.symbols = w.symbols[:0]
	waiting := false
	for i := 0; i < len(word); {
		_, size := utf8.DecodeRuneInString(word[i:])
		char := word[i : i+size]
		i += size
		if id, ok := m.vocab[char]; ok {
			if waiting {
				w.add(m.unknown)
				waiting = false
			}
			w.add(id)
			continue
		}
		if m.byteFallback && w.addBytes(char) {
			continue
		}
		if m.unknown >= 0 {
			if waiting && !m.fuseUnknown {
				w.add(m.unknown)
			}
			waiting = true
		}
	}
	if waiting {
		w.add(m.unknown)
	}
	if n := len(w.symbols); n > 0 {
		w.symbols[n-1].next = -1
	}
}

func (w *words) add(id int32) {
	n := int32(len(w.symbols))
	w.symbols = append(w.symbols, symbol{id: id, prev: n - 1, next: n + 1})
}

func (w *words) addBytes(char string) bool {
	for _, b := range []byte(char) {
		if w.model.bytes[b] < 0 {
			return false
		}
	}
	for _, b := range []byte(char) {
		w.add(w.model.bytes[b])
	}
	return true
}

// merge joins symbols until no merge applies. The queue holds every pair of neighbours that has a merge, and pairs that are gone:
// those are found out when their turn comes.
func (w *words) merge() {
	s := w.symbols
	w.queue = w.queue[:0]
	for i := range len(s) - 1 {
		w.offer(int32(i))
	}
	for len(w.queue) > 0 {
		top := w.queue.pop()
		left := &s[top.place]
		if left.dead || left.next < 0 {
			continue
		}
		right := &s[left.next]
		if now, ok := w.model.merges[pair(left.id, right.id)]; !ok || now.id != top.id {
			continue
		}
		left.id, left.next, right.dead = top.id, right.next, true
		if left.next >= 0 {
			s[left.next].prev = top.place
		}
		if left.prev >= 0 {
			w.offer(left.prev)
		}
		w.offer(top.place)
	}
}

// offer queues the merge of the symbol at the place with its right neighbour, if there is one.
func (w *words) offer(place int32) {
	left := &w.symbols[place]
	if left.next < 0 {
		return
	}
	if m, ok := w.model.merges[pair(left.id, w.symbols[left.next].id)]; ok {
		w.queue.push(candidate{rank: m.rank, place: place, id: m.id})
	}
}
