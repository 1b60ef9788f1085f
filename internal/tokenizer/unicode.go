package tokenizer

import (
	"strings"
	"unicode"
)

// The classes that regular expressions of tokenizers speak of are those of Unicode 16 (Oniguruma 6.9.10, and Rust's regex for words); Go 1.26 has
// Unicode 15. What Unicode 15.1 and 16 added is listed here. Once Go has it too, the lists change nothing, but what Go then has beyond Unicode 16 must be
// left out: the test of all code points will tell.

// span is a run of code points, both ends within.
type span [2]rune

// within says whether the character is one of those that Go does not know.
func within(spans []span, r rune) bool {
	return r >= 0x897 && search(spans, r) // the first of them
}

func search(spans []span, r rune) bool {
	lo, hi := 0, len(spans)
	for lo < hi {
		if mid := (lo + hi) / 2; spans[mid][1] < r {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(spans) && spans[lo][0] <= r
}

var newLetters = []span{
	{0x1c89, 0x1c8a}, {0xa7cb, 0xa7cd}, {0xa7da, 0xa7dc}, {0x105c0, 0x105f3}, {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4},
	{0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3},
	{0x11bc0, 0x11be0}, {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0},
	{0x2ebf0, 0x2ee5d},
}

var newNumbers = []span{
	{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9}, {0x1e5f1, 0x1e5fa},
}

// newWord are the marks and numbers among the new characters; letters are words anyway.
var newWord = []span{
	{0x897, 0x897}, {0x10d40, 0x10d49}, {0x10d69, 0x10d6d}, {0x10efc, 0x10efc}, {0x113b8, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5},
	{0x113c7, 0x113ca}, {0x113cc, 0x113d0}, {0x113d2, 0x113d2}, {0x113e1, 0x113e2}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x11f5a, 0x11f5a},
	{0x1611e, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9}, {0x1e5ee, 0x1e5ef}, {0x1e5f1, 0x1e5fa},
}

// isLetter is \p{L}.
func isLetter(r rune) bool {
	if r < 0x80 {
		return 'a' <= r|0x20 && r|0x20 <= 'z'
	}
	return unicode.IsLetter(r) || within(newLetters, r)
}

// isNumber is \p{N}.
func isNumber(r rune) bool {
	if r < 0x80 {
		return '0' <= r && r <= '9'
	}
	return unicode.IsNumber(r) || within(newNumbers, r)
}

// isSpace is \s.
func isSpace(r rune) bool {
	return unicode.IsSpace(r)
}

// isWord is \w (Unicode Technical Standard 18, annex C).
func isWord(r rune) bool {
	return isLetter(r) || within(newWord, r) ||
		unicode.In(r, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Join_Control)
}

// lowercase makes small letters by the full mapping of one character at a time, of Unicode 17 as Rust has it.
type lowercase struct{}

func (lowercase) apply(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for _, r := range text {
		switch {
		case r == 0x130: // the only one that becomes two
			b.WriteString("i\u0307")
		case r == 0xa7cb:
			b.WriteRune(0x264)
		case r == 0xa7dc:
			b.WriteRune(0x19b)
		case r == 0x1c89, r == 0xa7cc, r == 0xa7ce, r == 0xa7d2, r == 0xa7d4, r == 0xa7da:
			b.WriteRune(r + 1)
		case 0x10d50 <= r && r <= 0x10d65:
			b.WriteRune(r + 0x20)
		case 0x16ea0 <= r && r <= 0x16eb8:
			b.WriteRune(r + 0x1b)
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// isNumeric is what Rust itself takes for numeric: \p{N} of Unicode 17.
func isNumeric(r rune) bool {
	return isNumber(r) || 0x11de0 <= r && r <= 0x11de9 || 0x16ff4 <= r && r <= 0x16ff6
}
