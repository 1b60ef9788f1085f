package tensor

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// packOracle sets bit by bit.
func packOracle(codes []uint8, bits int) []byte {
	out := make([]byte, (len(codes)*bits+31)/32*4)
	for i, c := range codes {
		for b := range bits {
			p := i*bits + b
			out[p/8] |= c >> b & 1 << (p % 8)
		}
	}
	return out
}

func checkPack(t *testing.T, codes []uint8, bits int) {
	t.Helper()
	want := packOracle(codes, bits)
	if got := PackedRowBytes(len(codes), bits); got != len(want) {
		t.Fatalf("%d codes of %d bits: %d bytes, want %d", len(codes), bits, got, len(want))
	}
	got := bytes.Repeat([]byte{0xa5}, len(want)+9)
	PackRow(got, codes, bits)
	if !bytes.Equal(got[:len(want)], want) {
		t.Fatalf("%d codes of %d bits pack to %x, want %x", len(codes), bits, got[:len(want)], want)
	}
	if !bytes.Equal(got[len(want):], bytes.Repeat([]byte{0xa5}, 9)) {
		t.Fatalf("%d codes of %d bits: wrote past the row", len(codes), bits)
	}
	back := bytes.Repeat([]byte{0x5a}, len(codes)+9)
	UnpackRow(back[:len(codes)], want, bits)
	for i, c := range codes {
		if m := uint8(1<<bits - 1); back[i] != c&m {
			t.Fatalf("code %d of %d with %d bits comes back as %d, want %d", i, len(codes), bits, back[i], c&m)
		}
	}
	if !bytes.Equal(back[len(codes):], bytes.Repeat([]byte{0x5a}, 9)) {
		t.Fatalf("%d codes of %d bits: read past the row", len(codes), bits)
	}
}

func TestPackRow(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for bits := 1; bits <= 8; bits++ {
		for n := range 150 {
			codes := make([]uint8, n)
			for i := range codes {
				codes[i] = uint8(rng.Uint32())
			}
			checkPack(t, codes, bits)
		}
	}
}

// The check value of the format: q = -8..-1 gives the word 0x76543210.
func TestPackRowCheckValue(t *testing.T) {
	t.Parallel()
	var dst [4]byte
	var codes []uint8
	for q := -8; q < 0; q++ {
		codes = append(codes, uint8(q+8))
	}
	PackRow(dst[:], codes, 4)
	if got := binary.LittleEndian.Uint32(dst[:]); got != 0x76543210 {
		t.Errorf("the packed word is %#x, want 0x76543210", got)
	}
}

func TestPackRowRefuses(t *testing.T) {
	t.Parallel()
	mustPanic(t, "0 bits", func() { PackRow(make([]byte, 8), make([]byte, 2), 0) })
	mustPanic(t, "9 bits", func() { UnpackRow(make([]byte, 2), make([]byte, 8), 9) })
	mustPanic(t, "short", func() { PackRow(make([]byte, 4), make([]byte, 9), 4) })
}

func FuzzPackRow(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3)
	f.Fuzz(func(t *testing.T, codes []byte, bits int) {
		if bits < 1 || bits > 8 {
			return
		}
		checkPack(t, codes, bits)
	})
}

func BenchmarkPackRow(b *testing.B) {
	codes := make([]uint8, 4096)
	dst := make([]byte, 4096)
	for _, bits := range []int{2, 3, 4, 6} {
		b.Run("pack"+string(rune('0'+bits)), func(b *testing.B) {
			b.SetBytes(int64(len(codes)))
			for b.Loop() {
				PackRow(dst, codes, bits)
			}
		})
		b.Run("unpack"+string(rune('0'+bits)), func(b *testing.B) {
			b.SetBytes(int64(len(codes)))
			for b.Loop() {
				UnpackRow(codes, dst, bits)
			}
		})
	}
}
