package recipe

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/shardpress/shardpress/compress"
)

// allLinears is the target that stands for every linear of the decoder blocks; the name is the one engines use.
const allLinears = "Linear"

// pattern is a compiled target or ignore pattern.
type pattern struct {
	text  string
	all   bool
	exact bool
	glob  string
	re    *regexp.Regexp
}

func compilePattern(text string) (pattern, error) {
	p := pattern{text: text}
	switch {
	case text == "":
		return p, errors.New("is empty")
	case text == allLinears:
		p.all = true
	case strings.HasPrefix(text, "re:"):
		// Anchored at the start only, like Python's re.match, which engines use on the same text.
		expr := text[len("re:"):]
		if _, err := regexp.Compile(expr); err != nil {
			return p, fmt.Errorf("%q is not a regular expression: %w", text, err)
		}
		re, err := regexp.Compile(`^(?:` + expr + `)`)
		if err != nil {
			return p, fmt.Errorf("%q is not a regular expression: %w", text, err)
		}
		p.re = re
	case strings.ContainsAny(text, `*?[`):
		p.glob = slashes(text)
		if _, err := path.Match(p.glob, ""); err != nil {
			return p, fmt.Errorf("%q is not a glob: %w", text, err)
		}
	default:
		p.exact = true
	}
	return p, nil
}

// slashes keeps path.Match, for which * stops at a slash, from seeing one.
func slashes(s string) string { return strings.ReplaceAll(s, "/", "\x00") }

// match says whether the pattern covers l, whatever its role.
func (p pattern) match(l compress.Linear) bool {
	switch {
	case p.all:
		return l.Role == compress.RoleLinear && l.Block >= 0
	case p.exact:
		return p.text == l.Name
	case p.re != nil:
		return p.re.MatchString(l.Name)
	}
	ok, err := path.Match(p.glob, slashes(l.Name))
	return err == nil && ok
}

// target says whether the pattern, as a target, takes l: heads, embeddings and routers only by exact name.
func (p pattern) target(l compress.Linear) bool {
	return p.match(l) && (p.exact || l.Role == compress.RoleLinear)
}

func anyTarget(targets []string, l compress.Linear) (bool, error) {
	for _, t := range targets {
		p, err := compilePattern(t)
		if err != nil {
			return false, compress.Invalidf("target %w", err)
		}
		if p.target(l) {
			return true, nil
		}
	}
	return false, nil
}
