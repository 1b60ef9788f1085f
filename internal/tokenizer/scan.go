package tokenizer

import "unicode/utf8"

// A scanner gives the length of the first match of a regular expression at the beginning of a text that is not empty. Those of the known
// tokenizers match at every place, so the matches are the whole text. Go's regexp has no lookahead, which they need, and the known ones are few: each
// is recognised by its exact text and written out by hand.
type scanner func(text string) int

const (
	// patternGPT2 is what ByteLevel uses by itself.
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	// patternLlama3 is that of cl100k, and of Llama-3.
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// patternQwen2 takes numbers apart digit by digit. Qwen3 has it as well.
	patternQwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// scannerFor gives the scanner of a regular expression, or nil.
func scannerFor(pattern string) scanner {
	switch pattern {
	case patternGPT2:
		return scanGPT2
	case patternLlama3:
		return func(text string) int { return scanLlama3(text, 3) }
	case patternQwen2:
		return func(text string) int { return scanLlama3(text, 1) }
	}
	return nil
}

// class is what the expressions tell apart.
type class int

const (
	other class = iota
	letter
	number
	space
	newline // \r and \n, which are space too
)

// classify gives the class and the length of the first character.
func classify(text string) (class, int) {
	if text == "" {
		return other, 0
	}
	r, size := utf8.DecodeRuneInString(text)
	switch {
	case r == '\n' || r == '\r':
		return newline, size
	case isLetter(r):
		return letter, size
	case isNumber(r):
		return number, size
	case isSpace(r):
		return space, size
	}
	return other, size
}

// run gives the length of the characters of one class that the text begins with, of at most limit characters.
func run(text string, want class, limit int) int {
	n := 0
	for range limit {
		c, size := classify(text[n:])
		if size == 0 || c != want {
			break
		}
		n += size
	}
	return n
}

const unlimited = int(^uint(0) >> 1)

// scanGPT2 takes the alternatives of patternGPT2 in turn. An optional space before a run is taken when a run follows: else the expression tries
// without it, and no run begins with a space.
func scanGPT2(text string) int {
	if text[0] == '\'' && len(text) > 1 {
		switch text[1] {
		case 's', 't', 'm', 'd':
			return 2
		case 'r', 'v':
			if len(text) > 2 && text[2] == 'e' {
				return 3
			}
		case 'l':
			if len(text) > 2 && text[2] == 'l' {
				return 3
			}
		}
	}
	n := 0
	if text[0] == ' ' {
		n = 1
	}
	if c, size := classify(text[n:]); size > 0 && c != space && c != newline {
		return n + run(text[n:], c, unlimited)
	}
	length, before, _ := white(text)
	return leaveOne(text, length, before)
}

// white measures the white space that the text begins with: its length, its length without the last character, and its length up to and
// with the last \r or \n.
func white(text string) (length, before, lines int) {
	for {
		c, size := classify(text[length:])
		if size == 0 || c != space && c != newline {
			return length, before, lines
		}
		before = length
		length += size
		if c == newline {
			lines = length
		}
	}
}

// leaveOne is \s+(?!\S)|\s+ : white space, but the last of several before something else is left to it.
func leaveOne(text string, length, before int) int {
	if length == len(text) || before == 0 {
		return length
	}
	return before
}

// scanLlama3 takes the alternatives of patternLlama3 in turn, with numbers of at most that many digits.
func scanLlama3(text string, digits int) int {
	if text[0] == '\'' {
		if n := contraction(text[1:]); n > 0 {
			return 1 + n
		}
	}
	c, size := classify(text)
	if c == letter {
		return run(text, letter, unlimited)
	}
	if c == number {
		return run(text, number, digits)
	}
	if c != newline { // one character before a word goes with it
		if n := run(text[size:], letter, unlimited); n > 0 {
			return size + n
		}
	}
	n := 0
	if text[0] == ' ' {
		n = 1
	}
	if marks := run(text[n:], other, unlimited); marks > 0 {
		n += marks
		return n + run(text[n:], newline, unlimited)
	}
	length, before, lines := white(text)
	if lines > 0 { // \s* gives back as little as it can
		return lines
	}
	return leaveOne(text, length, before)
}

// contraction gives the length of what (?i:s|t|re|ve|m|ll|d) takes at the beginning of the text. Without regard to case, U+017F is an s.
func contraction(text string) int {
	if text == "" {
		return 0
	}
	switch text[0] | 0x20 {
	case 's', 't', 'm', 'd':
		return 1
	case 'r', 'v':
		if len(text) > 1 && text[1]|0x20 == 'e' {
			return 2
		}
	case 'l':
		if len(text) > 1 && text[1]|0x20 == 'l' {
			return 2
		}
	}
	if len(text) > 1 && text[:2] == "\u017f" {
		return 2
	}
	return 0
}
