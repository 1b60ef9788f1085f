package objstoretest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

func testList(t *testing.T, b objstore.Bucket) {
	if got := keys(t, b, ""); len(got) > 0 {
		t.Fatalf("new bucket lists %q", got)
	}
	// In the order of their bytes, which is not the order of a directory walk:
	// ' ' < '-' < '.' < '/' < '0'.
	all := []string{
		"B", "a b/c", "a-b", "a-b-c/d", "a.b", "a/.x", "a/b", "a/b-c", "a/b.c", "a/b0", "a/c/d/e/f", "a/c0", "a0", "a0.b/c", "ab", "é", "文/字",
	}
	for i, key := range all {
		put(t, b, all[(i*5+3)%len(all)], []byte(key)) // in some other order
	}
	for _, prefix := range append([]string{"", "a", "a/", "a/b", "a/c", "a/c/", "a/c/d", "a/c/d/e/", "a/.", "a-", "a-b/", "a0", "b", "z/y/x", "文", "a/b/"}, all...) {
		var expected []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				expected = append(expected, key)
			}
		}
		if got := keys(t, b, prefix); !slices.Equal(got, expected) {
			t.Errorf("List(%q)\ngives %q\nwants %q", prefix, got, expected)
		}
	}
}

// testListRandom compares with a sorted list, over random keys of few letters.
func testListRandom(t *testing.T, b objstore.Bucket) {
	rng := rand.New(rand.NewPCG(1, 2))
	const letters = "ab-.0/ /"
	var all []string
	for len(all) < 150 {
		p := make([]byte, 1+rng.IntN(7))
		for i := range p {
			p[i] = letters[rng.IntN(len(letters))]
		}
		key := string(p)
		above := func(k string) bool {
			return k == key || strings.HasPrefix(k, key+"/") || strings.HasPrefix(key, k+"/")
		}
		if objstore.CheckKey(key) == nil && !slices.ContainsFunc(all, above) {
			put(t, b, key, nil)
			all = append(all, key)
		}
	}
	slices.Sort(all)
	for i := range 200 {
		prefix := ""
		if i > 0 {
			prefix = all[rng.IntN(len(all))]
			prefix = prefix[:rng.IntN(len(prefix)+1)]
		}
		var expected []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				expected = append(expected, key)
			}
		}
		if got := keys(t, b, prefix); !slices.Equal(got, expected) {
			t.Fatalf("List(%q)\ngives %q\nwants %q", prefix, got, expected)
		}
	}
}

func testListStops(t *testing.T, b objstore.Bucket) {
	const objects = 20
	for i := range objects {
		put(t, b, fmt.Sprintf("d%d/%02d", i%3, i), nil)
	}
	n := 0
	for range b.List(t.Context(), "") {
		if n++; n == 5 {
			break
		}
	}
	// The body may use the bucket, and delete what it is given.
	n = 0
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), info.Key); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if left := keys(t, b, ""); n != objects || len(left) > 0 {
		t.Errorf("listed %d of %d, left over: %q", n, objects, left)
	}
	for i := range objects {
		put(t, b, fmt.Sprintf("d%d/%02d", i%3, i), nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n = 0
	var last error
	for _, err := range b.List(ctx, "") {
		if last != nil {
			t.Fatalf("List went on after %v", last)
		}
		last = err
		cancel()
		n++
	}
	// A backend may have asked for a page in advance, but must not end as if
	// the listing were complete.
	if !errors.Is(last, context.Canceled) && n != objects {
		t.Errorf("List with a cancelled context ended after %d of %d objects with %v", n, objects, last)
	}
}
