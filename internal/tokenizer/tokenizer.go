package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Tokenizer turns text into token ids and back. It does not change after it was made: any number of goroutines may use it at once.
type Tokenizer struct {
	model     *bpe
	added     *added
	normalize normalizer   // nil: none
	split     preTokenizer // nil: none
	post      post
	decode    decoder // nil: tokens are joined by spaces

	special Special
	chat    string // the source of the chat template; empty: none
}

// Special names the ids that tokenizer_config.json gives a meaning to; -1 where there is none.
type Special struct {
	BOS, EOS, Unknown, Pad int
}

// Special gives the ids that begin and end a text, and so on. Those of a tokenizer that Parse made are all -1: tokenizer.json does not say them.
func (t *Tokenizer) Special() Special {
	return t.special
}

// Size is the largest id plus one: the least number of rows that the model's embedding must have.
func (t *Tokenizer) Size() int {
	return max(t.model.limit, t.added.limit)
}

// ID gives the id of a token as it is written in the vocabulary.
func (t *Tokenizer) ID(token string) (int, bool) {
	if id, ok := t.added.ids[token]; ok {
		return int(id), true
	}
	id, ok := t.model.vocab[token]
	return int(id), ok
}

// Token gives the token of an id as it is written in the vocabulary.
func (t *Tokenizer) Token(id int) (string, bool) {
	if id < 0 || id >= t.Size() {
		return "", false
	}
	if token, ok := t.added.tokens[int32(id)]; ok {
		return token.Content, true
	}
	token, ok := t.model.tokens[int32(id)]
	return token, ok
}

// Encode gives the ids of a text. With addSpecial it also adds what the post-processor puts around a text, such as the token that begins it. Tokens
// that are written out in the text, such as "</s>", become their ids: text that people typed may hold them. A byte that is not UTF-8
// counts as U+FFFD.
//
// The time is that of sorting the text's characters at most, however long its words are.
func (t *Tokenizer) Encode(text string, addSpecial bool) []int {
	ids := make([]int, 0, len(text)/3+2)
	if addSpecial {
		ids = append(ids, t.post.before...)
	}
	if !utf8.ValidString(text) {
		text = string([]rune(text))
	}
	words := newWords(t.model)
	t.added.raw.split(text, func(raw string, start int, id int32) {
		if id >= 0 {
			ids = append(ids, int(id))
			return
		}
		if t.normalize != nil {
			raw = t.normalize.apply(raw)
		}
		t.added.normalized.split(raw, func(part string, offset int, id int32) {
			switch {
			case id >= 0:
				ids = append(ids, int(id))
			case t.split == nil:
				ids = words.append(ids, part)
			default:
				t.split.each(piece{text: part, first: start == 0 && offset == 0}, func(p piece) { ids = words.append(ids, p.text) })
			}
		})
	})
	if addSpecial {
		ids = append(ids, t.post.after...)
	}
	return ids
}

// Decode gives the text of ids; with skipSpecial, tokens that are marked special are left out. An id that no token has is left out too. Bytes that
// are not UTF-8 show as U+FFFD, so the texts of two halves of a token sequence may differ from the text of the whole.
func (t *Tokenizer) Decode(ids []int, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		token, ok := t.Token(id)
		if !ok || skipSpecial && t.added.special[token] {
			continue
		}
		tokens = append(tokens, token)
	}
	if t.decode == nil {
		return strings.Join(tokens, " ")
	}
	return strings.Join(t.decode.apply(tokens), "")
}
