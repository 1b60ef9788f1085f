package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// nearestFloat8 finds a code by trying all of them; of two equally near ones the even code.
func nearestFloat8(v float64, d DType) byte {
	table := Float8Values(d)
	best, distance := -1, math.Inf(1)
	sign := math.Signbit(v)
	v = min(math.Abs(v), 1e6) // beyond all of them, and not so far that the distances are the same
	for c := range 128 {
		w := float64(table[c])
		if math.IsNaN(w) || math.IsInf(w, 0) {
			continue
		}
		if at := math.Abs(v - w); at < distance || at == distance && c%2 == 0 {
			best, distance = c, at
		}
	}
	if sign {
		best |= 0x80
	}
	return byte(best)
}

func TestToFloat8(t *testing.T) {
	t.Parallel()
	for _, d := range []DType{F8E4M3, F8E5M2} {
		to := ToE4M3
		if d == F8E5M2 {
			to = ToE5M2
		}
		check := func(v float32) {
			if got, want := to(v), nearestFloat8(float64(v), d); got != want {
				t.Fatalf("%v of %g (%08x): %02x, want %02x", d, v, math.Float32bits(v), got, want)
			}
		}
		table := Float8Values(d)
		for c := range 256 {
			v := table[c]
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				continue
			}
			if got := to(v); got != byte(c) {
				t.Fatalf("%v of its own %g: %02x, want %02x", d, v, got, c)
			}
			next := table[min(c&0x7f+1, 0x7b)]
			mid := (v + next) / 2
			for _, w := range []float32{mid, -mid, math.Nextafter32(mid, 0), math.Nextafter32(mid, 1e30)} {
				check(w)
			}
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 20000 {
			v := math.Float32frombits(rng.Uint32())
			if !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) {
				check(v)
			}
		}
		if to(float32(math.Inf(-1))) != to(-table[0x77]*100) || to(float32(math.NaN()))&0x7f != 0x7f {
			t.Errorf("%v: infinity %02x, NaN %02x", d, to(float32(math.Inf(-1))), to(float32(math.NaN())))
		}
	}
}

// float8Weights makes a row of stored elements of every size, specials of finite numbers among them.
func float8Weights(rng *rand.Rand, d DType, n int, scale float32) []byte {
	x := make([]float32, n)
	for i := range x {
		switch rng.IntN(8) {
		case 0:
			x[i] = scale * float32(rng.IntN(60)-30) / 16
		case 1:
			x[i] = scale * Float8Values(F8E4M3)[rng.IntN(0x7f)]
		case 2:
			x[i] = scale * float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(24)-15))
		default:
			x[i] = scale * float32(rng.NormFloat64()*100)
		}
	}
	out := make([]byte, n*d.Size())
	FromFloat32(out, x, d)
	for i := range n { // infinities are not for this function
		switch d {
		case F32:
			if b := binary.LittleEndian.Uint32(out[4*i:]); b&0x7f800000 == 0x7f800000 {
				binary.LittleEndian.PutUint32(out[4*i:], b&^0x00800000)
			}
		default:
			top := uint16(0x7f80)
			if d == F16 {
				top = 0x7c00
			}
			if b := binary.LittleEndian.Uint16(out[2*i:]); b&top == top {
				binary.LittleEndian.PutUint16(out[2*i:], b&^(top&-top))
			}
		}
	}
	return out
}

// TestEncodeFloat8 compares every kernel with the plain one bit by bit, and the plain one with what the comment says.
func TestEncodeFloat8(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		k, err := ForName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []DType{BF16, F16, F32} {
			t.Run(fmt.Sprint(name, " ", d), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(7, uint64(d)))
				for _, shape := range [][2]int{{1, 1}, {1, 31}, {1, 32}, {1, 64}, {1, 96}, {3, 32}, {5, 64}, {2, 16}, {4, 128}, {1, 4096}, {1, 4128}, {7, 33}} {
					for _, scale := range []float32{1, 0x1p-9, 0.013671875, 0x1p-126, 0x1p-133, 0x1p-24, 3, 0x1p100} {
						n := shape[0] * shape[1]
						stored := make([]byte, shape[0]*d.Size())
						scales := make([]float32, shape[0])
						for i := range scales {
							scales[i] = scale * (1 + float32(rng.IntN(128))/128)
						}
						FromFloat32(stored, scales, d) // scales are of the type of the weights
						ToFloat32(scales, stored, d)
						for i, s := range scales {
							if s == 0 || math.IsInf(float64(s), 0) {
								scales[i] = 0x1p-24
							}
						}
						src := float8Weights(rng, d, n, scale)
						for _, e := range []DType{F8E4M3, F8E5M2} {
							checkEncodeFloat8(t, k, src, d, scales, n, e)
						}
					}
				}
			})
		}
	}
}

func checkEncodeFloat8(t *testing.T, k *Kernels, src []byte, d DType, scales []float32, n int, e DType) {
	t.Helper()
	want, got := make([]byte, n), make([]byte, n)
	we, wp := encodeFloat8(want, src, d, scales, e)
	ge, gp := k.EncodeFloat8(got, src, d, scales, e)
	if !slices.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		x := make([]float32, n)
		ToFloat32(x, src, d)
		t.Fatalf("%v %v of %d, %d scales: code %d of %g / %g is %02x, plain makes %02x", d, e, n, len(scales), at, x[at], scales[at*len(scales)/n], got[at], want[at])
	}
	if math.Float64bits(ge) != math.Float64bits(we) || math.Float64bits(gp) != math.Float64bits(wp) {
		t.Fatalf("%v %v of %d, %d scales: sums %g %g, plain makes %g %g", d, e, n, len(scales), ge, gp, we, wp)
	}
	// The codes are the nearest ones to the quotient in the type of the weights.
	x, y := make([]float32, n), make([]byte, d.Size())
	ToFloat32(x, src, d)
	for i, v := range x {
		q := []float32{v / scales[i*len(scales)/n]}
		FromFloat32(y, q, d)
		ToFloat32(q, y, d)
		if c := nearestFloat8(float64(q[0]), e); c != got[i] {
			t.Fatalf("%v %v: %g / %g gives %02x, nearest is %02x", d, e, v, scales[i*len(scales)/n], got[i], c)
		}
	}
}

func TestMaxMagnitudes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 3))
	for _, name := range Names() {
		k, err := ForName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []DType{BF16, F16, F32} {
			for _, shape := range [][2]int{{1, 1}, {3, 31}, {2, 32}, {5, 64}, {1, 160}, {4, 128}, {2, 1000}} {
				for _, special := range []float32{0, float32(math.Inf(-1)), float32(math.NaN())} {
					groups, group := shape[0], shape[1]
					src := float8Weights(rng, d, groups*group, 0.01)
					if special != 0 {
						FromFloat32(src[rng.IntN(groups*group)*d.Size():], []float32{special}, d)
					}
					x := make([]float32, groups*group)
					ToFloat32(x, src, d)
					want, got := make([]uint32, groups), make([]uint32, groups)
					want[0] = math.Float32bits(0.125)
					copy(got, want)
					for i, v := range x {
						want[i/group] = max(want[i/group], math.Float32bits(v)&0x7fffffff)
					}
					k.MaxMagnitudes(got, src, d, group)
					if !slices.Equal(got, want) {
						t.Fatalf("%s %v %v: %08x, want %08x", name, d, shape, got, want)
					}
				}
			}
		}
	}
}

func TestDecodeFloat8(t *testing.T) {
	t.Parallel()
	dst := make([]float32, 4)
	if bad := DecodeFloat8(dst, []byte{0x38, 0xb8, 0x7e, 0x01}, Float8Values(F8E4M3), 3); bad != -1 || !slices.Equal(dst, []float32{3, -3, 1344, 3 * 0x1p-9}) {
		t.Errorf("%v, %d", dst, bad)
	}
	if bad := DecodeFloat8(dst, []byte{0, 0xff, 0x7f}, Float8Values(F8E4M3), 1); bad != 1 {
		t.Errorf("NaN at %d", bad)
	}
	if bad := DecodeFloat8(dst, []byte{0, 0x7b, 0x7c}, Float8Values(F8E5M2), 1); bad != 2 {
		t.Errorf("infinity at %d", bad)
	}
}

// All pairs of significands of BF16, and of F16, over the exponents that matter: the vector code does not divide them.
func TestEncodeFloat8Significands(t *testing.T) {
	t.Parallel()
	for _, k := range vectorKernels(t) {
		for _, c := range []struct {
			d         DType
			bits      int
			exponents []int
		}{{BF16, 7, []int{-20, -12, -11, -10, -9, -8, -6, -1, 0, 7, 8, 9, 60}}, {F16, 10, []int{-9, 0, 6}}} {
			n := 1 << c.bits
			x, src, scale := make([]float32, n), make([]byte, n*c.d.Size()), []float32{0}
			want, got := make([]byte, n), make([]byte, n)
			for _, e := range c.exponents {
				for i := range x {
					x[i] = float32(math.Ldexp(1+float64(i)/float64(n), e)) * float32(1-i%2*2)
				}
				FromFloat32(src, x, c.d)
				for s := range n {
					scale[0] = 1 + float32(s)/float32(n)
					we, wp := encodeFloat8(want, src, c.d, scale, F8E4M3)
					ge, gp := k.EncodeFloat8(got, src, c.d, scale, F8E4M3)
					if !slices.Equal(got, want) || we != ge || wp != gp {
						t.Fatalf("%s %v over %v at exponent %d: sums %g %g, plain makes %g %g", k.Name(), c.d, scale[0], e, ge, gp, we, wp)
					}
				}
			}
		}
	}
}
