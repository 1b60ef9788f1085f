package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind int

const (
	textToken tokenKind = iota
	beginOutput
	endOutput
	beginTag
	endTag
	name
	literal // a string
	integer
	operator
	eof
)

type token struct {
	kind tokenKind
	text string
	line int
}

// lexer cuts a template into text and the tokens within {{ }} and {% %}. White space around them follows the Jinja documentation ("Whitespace Control")
// with trim_blocks and lstrip_blocks on.
type lexer struct {
	source string
	at     int
	tokens []token
	fresh  bool // a line begins here
}

func lex(source string) ([]token, error) {
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	l := &lexer{source: strings.TrimSuffix(source, "\n"), fresh: true} // one line end at the end is not part of a template
	for l.at < len(l.source) {
		if err := l.next(); err != nil {
			return nil, err
		}
	}
	l.add(eof, "")
	return l.tokens, nil
}

func (l *lexer) add(kind tokenKind, text string) {
	l.tokens = append(l.tokens, token{kind, text, l.line()})
}

func (l *lexer) line() int {
	return 1 + strings.Count(l.source[:min(l.at, len(l.source))], "\n")
}

// next takes the text up to the next opening, and what is opened there.
func (l *lexer) next() error {
	rest := l.source[l.at:]
	open := -1
	for i := 0; i+1 < len(rest); i++ {
		if rest[i] == '{' && strings.IndexByte("{%#", rest[i+1]) >= 0 {
			open = i
			break
		}
	}
	if open < 0 {
		l.add(textToken, rest)
		l.at = len(l.source)
		return nil
	}
	text, kind := rest[:open], rest[open+1]
	l.at += open + 2
	sign := byte(0)
	if l.at < len(l.source) && (l.source[l.at] == '-' || l.source[l.at] == '+') {
		sign = l.source[l.at]
		l.at++
	}
	switch {
	case sign == '-':
		text = strings.TrimRightFunc(text, isSpace)
	case sign == 0 && kind != '{':
		start := strings.LastIndexByte(text, '\n') + 1
		if (start > 0 || l.fresh) && strings.TrimLeftFunc(text[start:], isSpace) == "" {
			text = text[:start]
		}
	}
	if text != "" {
		l.add(textToken, text)
	}
	switch kind {
	case '#':
		end := strings.Index(l.source[l.at:], "#}")
		if end < 0 {
			return invalidf("line %d: a comment without an end", l.line())
		}
		l.at += end
		before := byte(0)
		if end > 0 {
			before = l.source[l.at-1]
		}
		l.at += 2
		l.after(before, true)
		return nil
	case '{':
		l.add(beginOutput, "")
		return l.inside("}}", endOutput)
	}
	l.add(beginTag, "")
	return l.inside("%}", endTag)
}

// after skips the white space that an end takes with it: all of it after a minus, else one line end after a tag or a comment.
func (l *lexer) after(sign byte, tag bool) {
	start := l.at
	switch {
	case sign == '-':
		l.at = len(l.source) - len(strings.TrimLeftFunc(l.source[l.at:], isSpace))
	case sign != '+' && tag && strings.HasPrefix(l.source[l.at:], "\n"):
		l.at++
	}
	l.fresh = l.at > start && l.source[l.at-1] == '\n'
}

// inside takes tokens up to the end. A closing brace ends nothing while a bracket is open.
func (l *lexer) inside(end string, kind tokenKind) error {
	depth := 0
	for {
		l.at = len(l.source) - len(strings.TrimLeftFunc(l.source[l.at:], isSpace))
		rest := l.source[l.at:]
		if rest == "" {
			return invalidf("line %d: %q is missing", l.line(), end)
		}
		if depth == 0 {
			sign := byte(0)
			if rest[0] == '-' || rest[0] == '+' && end == "%}" {
				sign = rest[0]
			}
			if sign != 0 && strings.HasPrefix(rest[1:], end) || strings.HasPrefix(rest, end) {
				l.add(kind, end)
				if !strings.HasPrefix(rest, end) {
					l.at++
				} else {
					sign = 0
				}
				l.at += len(end)
				l.after(sign, end == "%}")
				return nil
			}
		}
		c, _ := utf8.DecodeRuneInString(rest)
		switch {
		case c == '\'' || c == '"':
			if err := l.quoted(rest); err != nil {
				return err
			}
		case c == '_' || c < utf8.RuneSelf && unicode.IsLetter(c):
			n := strings.IndexFunc(rest, func(r rune) bool {
				return r != '_' && !(r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)))
			})
			if n < 0 {
				n = len(rest)
			}
			l.add(name, rest[:n])
			l.at += n
		case '0' <= c && c <= '9':
			n := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
			if n < 0 || n > 9 {
				return invalidf("line %d: a number of %d digits", l.line(), n)
			}
			if len(rest) > n && (rest[n] == '_' || rest[n] == 'e' || rest[n] == '.' && len(rest) > n+1 && '0' <= rest[n+1] && rest[n+1] <= '9') {
				return unsupported("number", rest[:n+1])
			}
			l.add(integer, rest[:n])
			l.at += n
		default:
			op := string(c)
			for _, two := range []string{"==", "!=", "<=", ">=", "//", "**"} {
				if strings.HasPrefix(rest, two) {
					op = two
				}
			}
			if op == "/" || !strings.Contains("== != <= >= // + - * % < > = ( ) [ ] . , : | ~", op) {
				return unsupported("operator", op)
			}
			switch op {
			case "(", "[":
				depth++
			case ")", "]":
				depth--
			}
			l.add(operator, op)
			l.at += len(op)
		}
	}
}

// quoted takes a string literal with the escapes of Python.
func (l *lexer) quoted(rest string) error {
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == rest[0]:
			l.add(literal, b.String())
			l.at += i + 1
			return nil
		case c != '\\':
			b.WriteByte(c)
		default:
			i++
			if i == len(rest) {
				break
			}
			switch rest[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case '\\', '\'', '"':
				b.WriteByte(rest[i])
			default:
				return unsupported("escape", rest[i-1:i+1])
			}
		}
	}
	return invalidf("line %d: a string without an end", l.line())
}

// isSpace is white space as Python's str.strip knows it.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f
}
