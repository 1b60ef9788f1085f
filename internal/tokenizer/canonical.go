package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// canonical is NFC or NFD as tokenizers does it: with the data of Unicode 9, and without the joiners that x/text puts into long runs of marks (the
// stream-safe form of Unicode Annex 15, section 13).
type canonical norm.Form

// unknownMarks are the characters that came after Unicode 9 and have a combining class or take part in a composition. For tokenizers they are
// unassigned: nothing moves across them, and nothing joins with them.
var unknownMarks = []span{
	{0x7fd, 0x7fd}, {0x898, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c}, {0xeba, 0xeba}, {0x1715, 0x1715}, {0x1abf, 0x1ace},
	{0x1df6, 0x1dfa}, {0xa82c, 0xa82c}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
	{0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938},
	{0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42},
	{0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
	{0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
}

func (f canonical) apply(text string) string {
	if norm.Form(f).IsNormalString(text) && !strings.ContainsFunc(text, isUnknownMark) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for text != "" {
		end := strings.IndexFunc(text, isUnknownMark)
		if end < 0 {
			f.part(&b, text)
			break
		}
		f.part(&b, text[:end])
		_, size := utf8.DecodeRuneInString(text[end:])
		b.WriteString(text[end : end+size])
		text = text[end+size:]
	}
	return b.String()
}

func isUnknownMark(r rune) bool {
	return r >= unknownMarks[0][0] && search(unknownMarks, r)
}

func (f canonical) part(b *strings.Builder, text string) {
	form := norm.Form(f)
	switch {
	case form.IsNormalString(text):
		b.WriteString(text)
	case !crowded(text):
		b.WriteString(form.String(text))
	default:
		for _, r := range f.byHand(text) {
			b.WriteRune(r)
		}
	}
}

// crowded says whether so many marks follow each other that x/text might separate them (it does from 31 on; a character has at most four).
func crowded(text string) bool {
	marks := 0
	for _, r := range text {
		if norm.NFD.PropertiesString(string(r)).CCC() == 0 && norm.NFD.PropertiesString(string(r)).TrailCCC() == 0 {
			marks = 0
		} else if marks++; marks > 6 {
			return true
		}
	}
	return false
}

// byHand is the definition of the forms (Unicode Standard, section 3.11): decompose, sort marks by class, then compose.
func (f canonical) byHand(text string) []rune {
	var all []rune
	for _, r := range text {
		all = append(all, []rune(norm.NFD.String(string(r)))...)
	}
	for i := 0; i < len(all); {
		end := i
		for end < len(all) && combining(all[end]) != 0 {
			end++
		}
		slices.SortStableFunc(all[i:end], func(a, b rune) int { return int(combining(a)) - int(combining(b)) })
		i = end + 1
	}
	if norm.Form(f) == norm.NFD {
		return all
	}
	out := all[:0]
	starter, last := -1, uint8(0) // place in out, and the class of what stands last behind it
	for _, r := range all {
		class := combining(r)
		if starter >= 0 && (starter == len(out)-1 || last != 0 && last < class) {
			if joined := []rune(norm.NFC.String(string(out[starter]) + string(r))); len(joined) == 1 {
				out[starter] = joined[0]
				continue
			}
		}
		out = append(out, r)
		if last = class; class == 0 {
			starter = len(out) - 1
		}
	}
	return out
}

func combining(r rune) uint8 {
	return norm.NFD.PropertiesString(string(r)).CCC()
}
