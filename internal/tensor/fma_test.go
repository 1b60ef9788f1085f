package tensor

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// fmaOracle computes in unbounded precision and rounds once.
func fmaOracle(x, y, z float32) float32 {
	fx, fy, fz := float64(x), float64(y), float64(z)
	if math.IsNaN(fx+fy+fz) || math.IsInf(fx, 0) || math.IsInf(fy, 0) || math.IsInf(fz, 0) || x == 0 || y == 0 {
		return float32(fx*fy + fz) // exact but for the one rounding of a zero product
	}
	p := new(big.Float).SetPrec(2000).Mul(big.NewFloat(fx), big.NewFloat(fy))
	sum := new(big.Float).SetPrec(2000).Add(p, big.NewFloat(fz))
	if sum.Sign() == 0 {
		return float32(fx*fy + fz) // the sign of an exact zero
	}
	f, _ := sum.Float32()
	return f
}

// nasty lists values at the edges of the format.
func nasty() []float32 {
	var v []float32
	for _, u := range []uint32{
		0, 1, 2, 3, 0x007fffff, 0x00800000, 0x00800001, 0x00ffffff, 0x01000000, 0x34000000, 0x33ffffff, 0x34000001,
		0x3f7fffff, 0x3f800000, 0x3f800001, 0x3f800020, 0x40f00000, 0x4b400000, 0x5f000000, 0x7effffff, 0x7f000000,
		0x7f7fffff, 0x7f800000, 0x7fc00000, 0x7f800001,
	} {
		v = append(v, math.Float32frombits(u), math.Float32frombits(u|1<<31))
	}
	return v
}

func sameFloat(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func checkFMA(t *testing.T, x, y, z float32) {
	t.Helper()
	want := fmaOracle(x, y, z)
	if got := FMA32(x, y, z); !sameFloat(got, want) {
		t.Fatalf("FMA32(%x, %x, %x) = %x (%#x), want %x (%#x)", x, y, z, got, math.Float32bits(got), want, math.Float32bits(want))
	}
	if got := fma32Odd(x, y, z); !sameFloat(got, want) {
		t.Fatalf("fma32Odd(%x, %x, %x) = %x, want %x", x, y, z, got, want)
	}
}

// Two roundings, through float64, give the neighbour here.
func TestFMA32DoubleRounding(t *testing.T) {
	t.Parallel()
	a, b, c := float32(1+0x1p-18), float32((1-0x1p-18)*0x1p-24), float32(1+0x1p-23)
	if got := math.Float32bits(FMA32(a, b, c)); got != 1065353217 {
		t.Errorf("FMA32 gives bits %d, want 1065353217", got)
	}
	if got := math.Float32bits(float32(math.FMA(float64(a), float64(b), float64(c)))); got != 1065353218 {
		t.Errorf("the twice rounded sum gives bits %d: not the counterexample", got)
	}
}

func TestFMA32Nasty(t *testing.T) {
	t.Parallel()
	v := nasty()
	for _, x := range v {
		for _, y := range v {
			for _, z := range v {
				checkFMA(t, x, y, z)
			}
		}
	}
}

func TestFMA32Random(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	v := nasty()
	pick := func() float32 {
		switch rng.IntN(4) {
		case 0:
			return v[rng.IntN(len(v))]
		case 1: // short significands make ties
			return math.Float32frombits(rng.Uint32() &^ (1<<rng.IntN(24) - 1))
		}
		return math.Float32frombits(rng.Uint32())
	}
	for range 100_000 {
		x, y := pick(), pick()
		z := pick()
		switch rng.IntN(3) {
		case 0: // cancellation
			z = -float32(x * y)
		case 1: // near a tie of the result
			z = math.Float32frombits(math.Float32bits(float32(x*y)) + uint32(rng.IntN(64)-32)<<rng.IntN(24))
		}
		checkFMA(t, x, y, z)
	}
}

func FuzzFMA32(f *testing.F) {
	f.Add(uint32(0x3f800020), uint32(0x337fffc0), uint32(0x3f800001))
	f.Fuzz(func(t *testing.T, x, y, z uint32) {
		checkFMA(t, math.Float32frombits(x), math.Float32frombits(y), math.Float32frombits(z))
	})
}

func BenchmarkFMA32(b *testing.B) {
	acc := float32(0)
	for b.Loop() {
		acc = FMA32(acc, 0.75, 1.5)
	}
	_ = acc
}
