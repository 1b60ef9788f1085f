package tensor

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// smallFloat computes the value of a small float format from its definition.
func smallFloat(u uint32, expBits, fracBits uint, inf bool) float64 {
	frac := u & (1<<fracBits - 1)
	exp := u >> fracBits & (1<<expBits - 1)
	sign := 1.0
	if u>>(expBits+fracBits)&1 != 0 {
		sign = -1
	}
	bias := 1<<(expBits-1) - 1
	top := uint32(1)<<expBits - 1
	switch {
	case inf && exp == top && frac == 0:
		return math.Inf(int(sign))
	case inf && exp == top, !inf && exp == top && frac == 1<<fracBits-1:
		return math.NaN()
	case exp == 0:
		return math.Copysign(math.Ldexp(float64(frac), 1-bias-int(fracBits)), sign)
	}
	return sign * math.Ldexp(float64(frac|1<<fracBits), int(exp)-bias-int(fracBits))
}

func TestToFloat32SmallFormats(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		d        DType
		exp, man uint
		inf      bool
	}{{F16, 5, 10, true}, {BF16, 8, 7, true}, {F8E4M3, 4, 3, false}, {F8E5M2, 5, 2, true}} {
		n := 1 << (1 + c.exp + c.man)
		src := make([]byte, n*c.d.Size())
		for i := range n {
			if c.d.Size() == 2 {
				binary.LittleEndian.PutUint16(src[2*i:], uint16(i))
			} else {
				src[i] = byte(i)
			}
		}
		dst := make([]float32, n)
		ToFloat32(dst, src, c.d)
		for i, got := range dst {
			want := smallFloat(uint32(i), c.exp, c.man, c.inf)
			if float64(got) != want && !(got != got && math.IsNaN(want)) || math.Signbit(float64(got)) != (i >= n/2) {
				t.Fatalf("%v %#x is %v, want %v", c.d, i, got, want)
			}
		}
	}
	var one [1]float32
	for b := range 256 {
		ToFloat32(one[:], []byte{byte(b)}, F8E8M0)
		if want := math.Ldexp(1, b-127); float64(one[0]) != want && b != 255 || b == 255 && one[0] == one[0] {
			t.Fatalf("F8_E8M0 %#x is %v, want %v", b, one[0], want)
		}
	}
}

func TestToFloat32Wide(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var one [1]float32
	for range 100_000 {
		v := math.Float64frombits(rng.Uint64())
		if rng.IntN(2) == 0 { // in the range of float32, often half way
			v = float64(math.Float32frombits(rng.Uint32())) * (1 + float64(rng.IntN(3)-1)*0x1p-24)
		}
		ToFloat32(one[:], binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)), F64)
		want := float32(math.NaN())
		if v == v {
			if math.IsInf(v, 0) {
				want = float32(v)
			} else {
				want, _ = new(big.Float).SetFloat64(v).Float32()
			}
		}
		if !sameFloat(one[0], want) {
			t.Fatalf("F64 %x is %x, want %x", v, one[0], want)
		}
		u := rng.Uint32()
		ToFloat32(one[:], binary.LittleEndian.AppendUint32(nil, u), F32)
		if math.Float32bits(one[0]) != u {
			t.Fatalf("F32 %#x is %#x", u, math.Float32bits(one[0]))
		}
	}
}

// roundOracle finds the nearest value of a format by search over all of them.
func roundOracle(v float64, top uint32, value func(uint32) float64) uint32 {
	lo, hi := uint32(0), top // top is the infinity of the format
	for hi-lo > 1 {
		if m := (lo + hi) / 2; value(m) <= v {
			lo = m
		} else {
			hi = m
		}
	}
	a, b := value(lo), value(hi)
	if math.IsInf(b, 1) {
		// As if the exponent went on: the step up from the largest value.
		b = 2*a - value(lo-1)
	}
	switch da, db := v-a, b-v; {
	case da < db, da == db && lo&1 == 0:
		return lo
	}
	return hi
}

func TestFromFloat32(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		d        DType
		exp, man uint
		top      uint32
	}{{F16, 5, 10, 0x7c00}, {BF16, 8, 7, 0x7f80}} {
		value := func(u uint32) float64 { return smallFloat(u, c.exp, c.man, true) }
		check := func(u uint32) {
			v := math.Float32frombits(u)
			var b [2]byte
			FromFloat32(b[:], []float32{v}, c.d)
			got := uint32(binary.LittleEndian.Uint16(b[:]))
			if v != v {
				if quiet := uint32(1) << (c.man - 1); got&c.top != c.top || got&quiet == 0 || got>>15 != u>>31 {
					t.Fatalf("%v of NaN %#x is %#x", c.d, u, got)
				}
				return
			}
			want := u >> 31 << 15
			if math.IsInf(float64(v), 0) {
				want |= c.top
			} else {
				want |= roundOracle(math.Abs(float64(v)), c.top, value)
			}
			if got != want {
				t.Fatalf("%v of %x is %#x, want %#x", c.d, v, got, want)
			}
		}
		for i := uint32(0); i < 1<<16; i += 3 { // values of both signs, their neighbours and the ties above them
			v := math.Float32bits(float32(smallFloat(i, c.exp, c.man, true)))
			tie := uint32(1) << (22 - c.man)
			for _, u := range []uint32{v, v - 1, v + 1, v + tie, v + tie - 1, v + tie + 1} {
				check(u)
			}
		}
		for range 50_000 {
			check(rng.Uint32())
		}
	}
	var b [8]byte
	FromFloat32(b[:], []float32{1, float32(math.Inf(-1))}, F32)
	if got := binary.LittleEndian.Uint64(b[:]); got != 0xff8000003f800000 {
		t.Errorf("F32 bytes are %#x", got)
	}
}

func TestConvertRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"to":    func() { ToFloat32(make([]float32, 1), make([]byte, 8), I32) },
		"from":  func() { FromFloat32(make([]byte, 8), make([]float32, 1), F8E4M3) },
		"short": func() { ToFloat32(make([]float32, 2), make([]byte, 3), BF16) },
	} {
		mustPanic(t, name, f)
	}
}

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", name)
		}
	}()
	f()
}

func TestToFloat32BF16Lengths(t *testing.T) {
	t.Parallel()
	src := make([]byte, 2*200)
	for i := range src {
		src[i] = byte(i * 7)
	}
	for n := range 200 {
		dst := make([]float32, n+1)
		dst[n] = 42
		ToFloat32(dst[:n], src, BF16)
		for i, v := range dst[:n] {
			if want := uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16; math.Float32bits(v) != want {
				t.Fatalf("element %d of %d is %#x, want %#x", i, n, math.Float32bits(v), want)
			}
		}
		if dst[n] != 42 {
			t.Fatalf("%d elements: the one after was overwritten", n)
		}
	}
}
