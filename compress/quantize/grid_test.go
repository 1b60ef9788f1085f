package quantize

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/shardpress/shardpress/internal/tensor"
)

func TestPower24(t *testing.T) {
	t.Parallel()
	check := func(square float64) {
		t.Helper()
		got, want := power24(square), math.Pow(square, 1.2)
		if math.Abs(got-want) > 2e-8*want {
			t.Errorf("power24(%g) = %g, want %g", square, got, want)
		}
	}
	if power24(0) != 0 {
		t.Error("power24(0) is not 0")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for e := -298; e <= 260; e++ {
		check(math.Ldexp(1, e))
		for range 100 {
			check(math.Ldexp(1+rng.Float64(), e))
		}
	}
	check(float64(math.SmallestNonzeroFloat32) * float64(math.SmallestNonzeroFloat32))
	check(4 * float64(math.MaxFloat32) * float64(math.MaxFloat32))
}

// The smallest of two losses must be found whatever the bits of an error: a larger error has no smaller power.
func TestPower24GrowsWithTheError(t *testing.T) {
	t.Parallel()
	last := 0.0
	for i := range 100000 {
		v := power24(math.Ldexp(1+float64(i)*1e-4, -20))
		if v < last {
			t.Fatalf("power24 falls from %g to %g at step %d", last, v, i)
		}
		last = v
	}
}

// The grids of this package and the group kernels are the same arithmetic.
func TestGridIsThatOfTheKernels(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	var k tensor.Kernels
	for _, d := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
		for n := range 400 {
			group, bits, symmetric := 1+rng.IntN(70), 2+rng.IntN(7), n%2 == 0
			x := make([]float32, group)
			exp := rng.IntN(300) - 160
			if d == tensor.F16 {
				exp = rng.IntN(40) - 25
			}
			for i := range x {
				x[i] = float32(math.Ldexp(2*rng.Float64()-1, exp-rng.IntN(6)))
			}
			if n%50 == 0 {
				clear(x)
			}
			src := make([]byte, group*d.Size())
			tensor.FromFloat32(src, x, d)
			tensor.ToFloat32(x, src, d)
			if !finite(x) {
				continue
			}
			r := tensor.GroupResult{
				Codes: make([]byte, tensor.PackedRowBytes(group, bits)), Scales: make([]byte, d.Size()), Zeros: make([]byte, 1),
				Error: make([]float64, 1), Power: make([]float64, 1),
			}
			encode := k.EncodeGroups
			if !symmetric {
				encode = k.EncodeGroupsAsymmetric
			}
			if bad := encode(&r, src, d, 1, group, group, bits, d); bad >= 0 {
				t.Fatal("refused")
			}
			g := newGrid(bits, symmetric, d)
			pt := g.fit(extent(x))
			codes, scale := make([]uint8, group), make([]byte, d.Size())
			err2, pow2 := g.encode(codes, x, pt)
			g.store(scale, pt)
			packed := make([]byte, len(r.Codes))
			tensor.PackRow(packed, codes, bits)
			if string(packed) != string(r.Codes) || string(scale) != string(r.Scales) ||
				float64(err2) != r.Error[0] || float64(pow2) != r.Power[0] || !symmetric && g.storeZero(pt) != r.Zeros[0] {
				t.Fatalf("%v, %d bits, symmetric %v: %x %x %g %g, the kernel gives %x %x %g %g for %v",
					d, bits, symmetric, packed, scale, err2, pow2, r.Codes, r.Scales, r.Error, r.Power, x)
			}
		}
	}
}
