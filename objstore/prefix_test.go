package objstore

import (
	"errors"
	"testing"
)

func TestPrefixNames(t *testing.T) {
	t.Parallel()
	m := NewMem()
	if Prefix(m, "") != Bucket(m) || Prefix(m, "/") != Bucket(m) {
		t.Error("an empty prefix is not the bucket itself")
	}
	for _, bad := range []string{"../x", ".tmp", "/a", "a//b"} {
		if _, err := Prefix(m, bad).Stat(t.Context(), "k"); !errors.Is(err, ErrKey) {
			t.Errorf("Stat behind prefix %q: %v, want ErrKey", bad, err)
		}
		for _, err := range Prefix(m, bad).List(t.Context(), "") {
			if !errors.Is(err, ErrKey) {
				t.Errorf("List behind prefix %q: %v, want ErrKey", bad, err)
			}
		}
	}
	// What is no key of the bucket is no key behind a prefix either.
	if _, err := Prefix(m, "a").Stat(t.Context(), ".tmp/x"); !errors.Is(err, ErrKey) {
		t.Errorf("Stat .tmp/x: %v, want ErrKey", err)
	}
	b, key, err := Unwrap(Prefix(Prefix(m, "a/b"), "c/"), "d")
	if b != Bucket(m) || key != "a/b/c/d" || err != nil {
		t.Errorf("unwrap: %v %q %v", b, key, err)
	}
	b, key, err = Unwrap(Prefix(onlooker{Prefix(m, "a")}, "b"), "d")
	if b != Bucket(m) || key != "a/b/d" || err != nil {
		t.Errorf("unwrap behind a wrapper: %v %q %v", b, key, err)
	}
}

type onlooker struct{ Bucket }

func (o onlooker) Unwrap() Bucket { return o.Bucket }
