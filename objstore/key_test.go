package objstore

import (
	"errors"
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCheckKey holds the key check against what it is there for: that a valid
// key stays inside the root of a directory, in its own place, and away from the
// store's own files.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{
		"", "a", "a/b", "/a", "a/", "a//b", ".", "..", "a/..", "a/../../b", ".tmp/x", ".objstore", "a/.b", "a\\b", "a\x00b", "a\nb", "\xff",
		"é/文", strings.Repeat("a", MaxToken), strings.Repeat("a", MaxToken+1), strings.Repeat("ab/", MaxKey/3) + "c", "\u202ea", "\ufeff", "a/...",
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		err := CheckKey(key)
		if err != nil {
			if !errors.Is(err, ErrKey) {
				t.Fatalf("%q: %v is no ErrKey", key, err)
			}
			if !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x00\n\r\x1b") || len(err.Error()) > 2000 {
				t.Fatalf("%q: error message carries the key raw: %q", key, err)
			}
			return
		}
		if key == "" || len(key) > MaxKey || !utf8.ValidString(key) || strings.ContainsAny(key, "\\\x00\n\r\t\x7f") {
			t.Fatalf("%q passed", key)
		}
		// Cleaning what climbs, repeats or stands still would change the path.
		if rooted := "/base/" + key; path.Clean(rooted) != rooted {
			t.Fatalf("%q leads to %q", key, path.Clean(rooted))
		}
		if key[0] == '.' {
			t.Fatalf("%q reaches hidden files of the root", key)
		}
		// Every beginning of a key that is valid text can be listed.
		for i := range key {
			if err := CheckPrefix(key[:i]); err != nil && key[:i] != "" {
				t.Fatalf("prefix %q of key %q: %v", key[:i], key, err)
			}
		}
		if err := CheckPrefix(key + "/"); err != nil && len(key) < MaxKey {
			t.Fatalf("prefix %q: %v", key+"/", err)
		}
	})
}
