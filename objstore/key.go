package objstore

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxKey is the greatest length of a key in bytes (S3's limit).
	MaxKey = 1024
	// MaxToken is the greatest length in bytes of what stands between two
	// slashes (NAME_MAX of the common file systems).
	MaxToken = 255
)

// CheckKey reports, as an ErrKey, why key cannot name an object: it must be
// valid UTF-8 of 1 to MaxKey bytes, only printable characters and no backslash,
// made of tokens separated by single slashes, each of 1 to MaxToken bytes and
// neither "." nor "..", the first not beginning with a dot.
func CheckKey(key string) error {
	if err := checkRunes(key); err != nil {
		return err
	}
	for i, token := range strings.Split(key, "/") {
		if token == "" {
			return fmt.Errorf("%w %q: empty token (leading, trailing or double slash)", ErrKey, clip(key))
		}
		if err := checkToken(key, i, token); err != nil {
			return err
		}
	}
	return nil
}

// CheckPrefix reports, as an ErrKey, why no key can begin with prefix, which List is
// given.
func CheckPrefix(prefix string) error {
	if err := checkRunes(prefix); err != nil {
		return err
	}
	tokens := strings.Split(prefix, "/")
	last := len(tokens) - 1
	for i, token := range tokens[:last] {
		if token == "" {
			return fmt.Errorf("%w: prefix %q has an empty token", ErrKey, clip(prefix))
		}
		if err := checkToken(prefix, i, token); err != nil {
			return err
		}
	}
	// The last token may be the beginning of one: "a/." begins "a/.x".
	if t := tokens[last]; t == "" || last > 0 && (t == "." || t == "..") {
		return nil
	}
	return checkToken(prefix, last, tokens[last])
}

// checkRunes checks what does not depend on the tokens.
func checkRunes(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("%w %q: %d bytes, at most %d allowed", ErrKey, clip(key), len(key), MaxKey)
	}
	if !utf8.ValidString(key) {
		return fmt.Errorf("%w %q: not valid UTF-8", ErrKey, clip(key))
	}
	for _, r := range key {
		if r == '\\' || !unicode.IsPrint(r) {
			return fmt.Errorf("%w %q: character %q not allowed", ErrKey, clip(key), r)
		}
	}
	return nil
}

// checkToken checks the i-th token of key, which is not empty.
func checkToken(key string, i int, token string) error {
	switch {
	case token == "." || token == "..":
		return fmt.Errorf("%w %q: token %q not allowed", ErrKey, clip(key), token)
	case i == 0 && token[0] == '.':
		return fmt.Errorf("%w %q: must not begin with a dot", ErrKey, clip(key))
	case len(token) > MaxToken:
		return fmt.Errorf("%w %q: token of %d bytes, at most %d allowed", ErrKey, clip(key), len(token), MaxToken)
	}
	return nil
}

// clip keeps hostile keys from filling error messages.
func clip(key string) string {
	if len(key) > 120 {
		return key[:120] + "..."
	}
	return key
}

// errAbove says that an object stands where key needs a folder.
func errAbove(key, object string) error {
	return fmt.Errorf("%w %q: the object %q is in the way: no key may lie below another object's key", ErrKey, key, object)
}

// errBelow says that objects stand below key.
func errBelow(key string) error {
	return fmt.Errorf("%w %q: there are objects below it: no key may lie above another object's key", ErrKey, key)
}
