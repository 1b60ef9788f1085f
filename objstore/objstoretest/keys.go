package objstoretest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

func testKeys(t *testing.T, b objstore.Bucket) {
	long := strings.Repeat("0123456789abcdef", 100)
	for _, key := range []string{
		"a", "a.b", "b/.hidden", "c/..d", "c/e..", "tasks/ab/0123/result.json", "with space", "ünïcödé/文字", "A", "~", "x/~!@#$%^&*()_+='\"<>?,;:|`{}[]",
		"t/" + long[:objstore.MaxToken],
	} {
		if err := objstore.CheckKey(key); err != nil {
			t.Errorf("CheckKey: %v", err)
		}
		put(t, b, key, []byte(key))
		want(t, b, key, []byte(key))
		if got := keys(t, b, key); !slices.Equal(got, []string{key}) {
			t.Errorf("List(%q) gives %q", key, got)
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/.", "a/..", "a/../b", "a/./b", ".tmp", ".tmp/x", ".objstore", ".a/b",
		"a\\b", "a\x00", "a\nb", "a\tb", "\x7f", "a\xff", "a\u200bb", "a\u2028b", "a\u00a0b",
		long[:objstore.MaxToken+1], strings.Repeat("abc/", 300) + "d",
	} {
		if err := objstore.CheckKey(key); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("CheckKey(%q): %v, want ErrKey", key, err)
		}
		_, gerr := read(t.Context(), b, key, 0, -1)
		_, perr := b.Put(t.Context(), key, strings.NewReader("x"), 1, objstore.PutOptions{})
		_, aerr := b.Put(t.Context(), key, strings.NewReader("x"), 1, objstore.PutOptions{IfAbsent: true})
		_, serr := b.Stat(t.Context(), key)
		derr := b.Delete(t.Context(), key)
		for op, err := range map[string]error{"Get": gerr, "Put": perr, "Put if absent": aerr, "Stat": serr, "Delete": derr} {
			if !errors.Is(err, objstore.ErrKey) {
				t.Errorf("%s(%q): %v, want ErrKey", op, key, err)
			}
		}
	}
	for _, prefix := range []string{"/", "../", "a/../b", "a//", ".tmp", ".", "a\x00"} {
		n := 0
		for _, err := range b.List(t.Context(), prefix) {
			if n++; !errors.Is(err, objstore.ErrKey) {
				t.Errorf("List(%q): %v, want ErrKey", prefix, err)
			}
		}
		if n != 1 {
			t.Errorf("List(%q) gave %d pairs, want one error", prefix, n)
		}
	}
	if left := keys(t, b, ""); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

// testKeyConflict: no key above or below another, as gateways to file systems
// have it, and only while the other exists.
func testKeyConflict(t *testing.T, b objstore.Bucket) {
	put(t, b, "a/b", []byte("x"))
	for _, key := range []string{"a", "a/b/c", "a/b/c/d"} {
		for _, o := range []objstore.PutOptions{{}, {IfAbsent: true}} {
			_, err := b.Put(t.Context(), key, strings.NewReader("y"), 1, o)
			if !errors.Is(err, objstore.ErrKey) || errors.Is(err, objstore.ErrExist) {
				t.Errorf("Put(%q, %+v) beside \"a/b\": %v, want ErrKey", key, o, err)
			}
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	want(t, b, "a/b", []byte("x"))
	put(t, b, "a/b2", []byte("x")) // not below a/b
	put(t, b, "a-b", []byte("x"))
	for _, key := range []string{"a/b", "a/b2"} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	put(t, b, "a", []byte("z"))
	want(t, b, "a", []byte("z"))
	if got := keys(t, b, ""); !slices.Equal(got, []string{"a", "a-b"}) {
		t.Errorf("listing has %q", got)
	}
}

func testDelete(t *testing.T, b objstore.Bucket) {
	if err := b.Delete(t.Context(), "never/was"); err != nil {
		t.Errorf("Delete of an absent object: %v", err)
	}
	put(t, b, "a/b/c", []byte("x"))
	put(t, b, "a/d", []byte("y"))
	for range 2 {
		if err := b.Delete(t.Context(), "a/b/c"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		absent(t, b, "a/b/c")
		want(t, b, "a/d", []byte("y"))
	}
	put(t, b, "a/b/c", []byte("back"))
	want(t, b, "a/b/c", []byte("back"))
}

// testCopy: whatever way objstore.Copy takes, the copy is an object of its own.
func testCopy(t *testing.T, b objstore.Bucket) {
	data, other := noise(1, 300_000), noise(2, 200_000)
	put(t, b, "src/a", data)
	put(t, b, "taken", other)
	for _, dst := range []string{"new/folder/a", "taken", "src/a"} {
		info, err := objstore.Copy(t.Context(), b, dst, b, "src/a")
		if err != nil || info.Key != dst || info.Size != int64(len(data)) || info.Version == "" {
			t.Fatalf("Copy to %q: %+v, %v", dst, info, err)
		}
		want(t, b, dst, data)
		if stat, err := b.Stat(t.Context(), dst); err != nil || stat.Version != info.Version {
			t.Errorf("Copy told version %q, Stat %q, %v", info.Version, stat.Version, err)
		}
	}
	put(t, b, "src/a", other)
	want(t, b, "taken", data)
	if err := b.Delete(t.Context(), "src/a"); err != nil {
		t.Fatal(err)
	}
	want(t, b, "new/folder/a", data)
	if _, err := objstore.Copy(t.Context(), b, "x", b, "src/a"); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("Copy of an absent object: %v, want ErrNotExist", err)
	}
	if _, err := objstore.Copy(t.Context(), b, "x", b, "new/folder"); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("Copy of a folder: %v, want ErrNotExist", err)
	}
	for _, bad := range [][2]string{{"../x", "taken"}, {"x", ".tmp/x"}, {"taken/x", "taken"}, {"new", "taken"}} {
		if _, err := objstore.Copy(t.Context(), b, bad[0], b, bad[1]); !errors.Is(err, objstore.ErrKey) {
			t.Errorf("Copy to %q from %q: %v, want ErrKey", bad[0], bad[1], err)
		}
	}
	// From a bucket of another kind.
	m := objstore.NewMem()
	put(t, m, "elsewhere", other)
	if _, err := objstore.Copy(t.Context(), b, "taken", m, "elsewhere"); err != nil {
		t.Errorf("Copy from another store: %v", err)
	}
	want(t, b, "taken", other)
	if got := keys(t, b, ""); !slices.Equal(got, []string{"new/folder/a", "taken"}) {
		t.Errorf("listing has %q", got)
	}
}
