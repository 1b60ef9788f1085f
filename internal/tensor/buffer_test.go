package tensor

import (
	"math"
	"runtime"
	"testing"
)

func TestBuffer(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4096, 3<<20 + 1} {
		b, err := NewBuffer(n)
		if err != nil {
			t.Fatal(err)
		}
		p := b.Bytes()
		if len(p) != n || cap(p) != n {
			t.Fatalf("%d bytes: length %d, capacity %d", n, len(p), cap(p))
		}
		for i := range p {
			if p[i] != 0 {
				t.Fatalf("byte %d of %d is %d", i, n, p[i])
			}
			p[i] = 1
		}
		for range 2 {
			if err := b.Free(); err != nil {
				t.Fatal(err)
			}
		}
		if b.Bytes() != nil {
			t.Error("bytes are left after Free")
		}
	}
	if _, err := NewBuffer(-1); err == nil {
		t.Error("a negative size was accepted")
	}
	if runtime.GOOS == "linux" {
		if _, err := NewBuffer(math.MaxInt); err == nil {
			t.Error("an impossible size was accepted")
		}
	}
}
