package machine

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct{ memory, want int64 }{
		{0, 0}, {512 * mib, 256 * mib}, {1024 * mib, 640 * mib}, {3072 * mib, 2688 * mib}, {64 << 30, 56 << 30},
	} {
		if got := Budget(c.memory); got != c.want {
			t.Errorf("of %d MiB tasks get %d, want %d", c.memory/mib, got/mib, c.want/mib)
		}
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	n := runtime.GOMAXPROCS(0)
	for _, c := range []struct {
		memory, least int64
		want          int
	}{{0, 64, 1}, {64, 64, 1}, {127, 64, 1}, {1 << 40, 64, n}, {1 << 40, 0, n}} {
		if got := Slots(c.memory, c.least); got != c.want {
			t.Errorf("Slots(%d, %d) = %d, want %d", c.memory, c.least, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	token := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	for host, want := range map[string]string{
		"": `^worker-`, "build3.example.org": `^build3-`, "a b/c": `^a-b-c-`, "Grün": `^Gr-n-`, string(make([]byte, 300)): `^-{49}`, Host(): ``,
	} {
		a, b := Name(host), Name(host)
		if !token.MatchString(a) || !regexp.MustCompile(want).MatchString(a) || a == b {
			t.Errorf("host %.20q: names %q and %q", host, a, b)
		}
	}
}

func TestScratch(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "deep", "er")
	path, remove, err := Scratch(base)
	if err != nil || filepath.Dir(path) != base {
		t.Fatalf("%s, %v", path, err)
	}
	if err := os.WriteFile(filepath.Join(path, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("scratch directory is still there: %v", err)
	}
	blocked := filepath.Join(base, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Scratch(filepath.Join(blocked, "x")); err == nil {
		t.Error("a file took the place of a directory")
	}
}
