package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

var e2m1Values = []float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}

// nearestE2M1 looks at every magnitude: the nearest, of two equally near the one with the even code.
func nearestE2M1(a float64) int {
	a = min(a, 8) // beyond, distances are all the same in float64
	best := 0
	for i, v := range e2m1Values {
		switch d, least := math.Abs(a-v), math.Abs(a-e2m1Values[best]); {
		case d < least, d == least && i%2 == 0:
			best = i
		}
	}
	return best
}

func TestToE2M1(t *testing.T) {
	t.Parallel()
	check := func(a float32) {
		code, v := toE2M1(a)
		if want := nearestE2M1(float64(a)); int(code) != want || float64(v) != e2m1Values[want] {
			t.Fatalf("%v: code %d, value %v, want code %d", a, code, v, want)
		}
	}
	for _, tie := range []float32{0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 1e30, math.MaxFloat32, 0x1p-149} {
		check(tie)
		check(math.Nextafter32(tie, 100))
		if tie > 0 {
			check(math.Nextafter32(tie, 0))
		}
	}
	for u := uint32(0); u < 0x7f800000; u += 9973 {
		check(math.Float32frombits(u))
	}
}

// fp4Oracle encodes in float64 where that is exact and in the types' own rounding elsewhere, with no step of the kernel's.
func fp4Oracle(src []byte, d DType, s fp4Scheme) (codes, scales []byte, errSum float64) {
	x := make([]float32, len(src)/d.Size())
	ToFloat32(x, src, d)
	round := func(v float32) float32 {
		b := make([]byte, 4)
		var out [1]float32
		FromFloat32(b, []float32{v}, d)
		ToFloat32(out[:], b, d)
		return out[0]
	}
	var nibbles []byte
	for ; len(x) > 0; x = x[s.group:] {
		g := x[:s.group]
		top := 0.0
		for _, v := range g {
			top = max(top, math.Abs(float64(v)))
		}
		var scale float32
		if s.group == 32 {
			stored := 0
			if top > 0 {
				frac, exp := math.Frexp(top) // in [0.5, 1)
				exp--
				if d == F16 && exp < -14 { // subnormal: the carry comes out of bits that are not normalised
					exp = -1000
					if top >= 0.75*0x1p-14 {
						exp = -14
					}
				} else if largest := map[DType]int{F16: 15, BF16: 127, F32: 127}[d]; frac >= 0.875 && exp < largest {
					exp++
				}
				stored = max(exp-2+127, 0)
			}
			if d == F16 && stored < 127-24 {
				stored = 127
			}
			scales = append(scales, byte(stored))
			scale = float32(math.Ldexp(1, stored-127))
		} else {
			sixth := round(float32(top) / 6)
			b := ToE4M3(float32(s.global * sixth))
			if b == 0 {
				b = ToE4M3(0.125)
			}
			scales = append(scales, b)
			scale = e4m3ToFloat32(b) / s.global
		}
		for _, v := range g {
			q := v / scale
			if s.group == 32 {
				q = round(q)
			}
			n := nearestE2M1(math.Abs(float64(q)))
			w := e2m1Values[n]
			if v < 0 {
				w = -w
			}
			e := float64(v) - w*float64(scale)
			errSum += e * e
			if q < 0 {
				n |= 8
			}
			nibbles = append(nibbles, byte(n))
		}
	}
	for i := 0; i < len(nibbles); i += 2 {
		codes = append(codes, nibbles[i]|nibbles[i+1]<<4)
	}
	return codes, scales, errSum
}

// fp4Schemes are the two schemes, the second with a global scale that fits the source, and with others.
func fp4Schemes(rng *rand.Rand, src []byte, d DType) []fp4Scheme {
	global := float32(1)
	if top := math.Float32frombits(maxMagnitude(src, d)); top > 0 && 2688/top < math.MaxFloat32 {
		global = 2688 / top
	}
	return []fp4Scheme{
		{group: 32},
		{group: 16, global: global},
		{group: 16, global: math.Float32frombits(1 + rng.Uint32N(0x7f7fffff))},
	}
}

func TestEncodeFP4(t *testing.T) {
	t.Parallel()
	for seed, d := range []DType{BF16, F16, F32} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(uint64(seed), 41))
			for range 150 {
				n := 32 * (1 + rng.IntN(40))
				src := make([]byte, n*d.Size())
				fillWeights(rng, src, d, rng.IntN(weightKinds))
				if maxMagnitude(src, d) >= 0x7f800000 {
					continue
				}
				for _, s := range fp4Schemes(rng, src, d)[:2] {
					r := FP4Result{Codes: make([]byte, n/2), Scales: make([]byte, n/s.group), Error: make([]float64, 1)}
					if bad := (*Kernels)(nil).encodeFP4(&r, src, d, 1, n, s); bad >= 0 {
						t.Fatalf("%+v: bad row %d", s, bad)
					}
					codes, scales, e := fp4Oracle(src, d, s)
					if !bytes.Equal(r.Scales, scales) {
						t.Fatalf("%+v: scales\n%x, the oracle has\n%x", s, r.Scales, scales)
					}
					if !bytes.Equal(r.Codes, codes) {
						t.Fatalf("%+v: codes\n%x, the oracle has\n%x", s, r.Codes, codes)
					}
					if !(math.Abs(r.Error[0]-e) <= 1e-4*e+1e-40) && !math.IsInf(r.Error[0], 1) {
						t.Fatalf("%+v: error %v, the oracle has %v", s, r.Error[0], e)
					}
				}
			}
		})
	}
}

// checkFP4 compares the vector code with the plain code; alloc makes the results' memory.
func checkFP4(t *testing.T, src []byte, d DType, rows, cols int, s fp4Scheme, alloc func(n int) []byte) {
	t.Helper()
	result := func() *FP4Result {
		return &FP4Result{
			Codes: alloc(rows * cols / 2), Scales: alloc(rows * cols / s.group),
			Error: slices.Repeat([]float64{-1}, rows), Power: slices.Repeat([]float64{-1}, rows),
		}
	}
	want := result()
	bad := (*Kernels)(nil).encodeFP4(want, src, d, rows, cols, s)
	for _, k := range vectorKernels(t) {
		got := result()
		name := fmt.Sprintf("%s: %d × %d %v %+v", k.Name(), rows, cols, d, s)
		if b := k.encodeFP4(got, src, d, rows, cols, s); b != bad {
			t.Fatalf("%s: bad row %d, want %d", name, b, bad)
		}
		if bad >= 0 {
			continue
		}
		if !bytes.Equal(got.Scales, want.Scales) {
			t.Fatalf("%s: scales\n%x, want\n%x", name, got.Scales, want.Scales)
		}
		if !bytes.Equal(got.Codes, want.Codes) {
			t.Fatalf("%s: codes\n%x, want\n%x", name, got.Codes, want.Codes)
		}
		for row := range rows {
			if math.Float64bits(got.Error[row]) != math.Float64bits(want.Error[row]) || math.Float64bits(got.Power[row]) != math.Float64bits(want.Power[row]) {
				t.Fatalf("%s: row %d: error %v of %v, want %v of %v", name, row, got.Error[row], got.Power[row], want.Error[row], want.Power[row])
			}
		}
	}
}

func plainBytes(n int) []byte { return make([]byte, n) }

func TestVectorFP4(t *testing.T) {
	t.Parallel()
	for seed, d := range []DType{BF16, F16, F32} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(uint64(seed), 42))
			for i := range 300 {
				rows, cols := 1+rng.IntN(4), 32*(1+rng.IntN(70))
				src := make([]byte, rows*cols*d.Size())
				fillWeights(rng, src, d, rng.IntN(weightKinds))
				for _, s := range fp4Schemes(rng, src, d) {
					if c := cols - 16; i%3 == 0 && c > 0 && s.group == 16 {
						checkFP4(t, src, d, rows, c, s, plainBytes)
					}
					checkFP4(t, src, d, rows, cols, s, plainBytes)
				}
			}
		})
	}
}

// Every pattern of BF16 meets scales of every magnitude.
func TestVectorFP4AllPatterns(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(43, 43))
	for _, stride := range []int{1, 257, 4097} {
		src := make([]byte, 2<<16)
		for i := range 1 << 16 {
			u := i * stride & 0xffff
			if u&0x7f80 == 0x7f80 {
				u &^= 0x4000 // finite
			}
			binary.LittleEndian.PutUint16(src[2*i:], uint16(u))
		}
		for _, s := range fp4Schemes(rng, src, BF16) {
			checkFP4(t, src, BF16, 16, 4096, s, plainBytes)
		}
		for range 8 {
			checkFP4(t, src, BF16, 16, 4096, fp4Scheme{16, math.Float32frombits(1 + rng.Uint32N(0x7f7fffff))}, plainBytes)
		}
	}
}

// Quotients at and next to the points of decision: scales that are a weight over a point, nearly.
func TestVectorFP4Decisions(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(44, 44))
	points := []float64{0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5}
	for range 2000 {
		// A top that makes the local scale 448, so that the scale is 448/global.
		x := float64(128+rng.IntN(128)) / 128
		scale := x / points[rng.IntN(len(points))]
		global := math.Float32frombits(math.Float32bits(float32(448/scale)) + rng.Uint32N(9) - 4)
		src := make([]byte, 2*64)
		top := float32(448.0 * 6 / float64(global))
		for i := range 64 {
			v := float32(x)
			switch {
			case i%16 == 0:
				v = top
			case rng.IntN(2) == 0:
				v *= float32(int(1) << rng.IntN(3))
			}
			if rng.IntN(2) == 0 {
				v = -v
			}
			FromFloat32(src[2*i:], []float32{v}, BF16)
		}
		checkFP4(t, src, BF16, 1, 64, fp4Scheme{16, global}, plainBytes)
		codes, scales, _ := fp4Oracle(src, BF16, fp4Scheme{16, global})
		r := FP4Result{Codes: make([]byte, 32), Scales: make([]byte, 4)}
		Detect().encodeFP4(&r, src, BF16, 1, 64, fp4Scheme{16, global})
		if !bytes.Equal(r.Codes, codes) || !bytes.Equal(r.Scales, scales) {
			t.Fatalf("global %v: %x %x, the oracle has %x %x", global, r.Codes, r.Scales, codes, scales)
		}
	}
}

// The enumeration that fp4_amd64.go rests on: which x/s, of significands X < 2^8 and S < 2^24, come within 2^-44 of a float32 midpoint
// next to a point where the code changes. With the midpoint M over a power of two that is |M·S − X·2^j| ≤ 2^-44·X·2^j.
func TestNVFP4Midpoints(t *testing.T) {
	t.Parallel()
	// Points where the upper code begins above, then those where it begins at: numerators over 4, midpoints a half unit above or below.
	for i, point := range []uint64{1, 5, 10, 20, 3, 7, 14} {
		m := point << 40
		if unit := uint64(1) << (63 - bits.LeadingZeros64(m) - 24); i < 4 { // half a unit of the last of 24 digits
			m += unit
		} else {
			m -= unit
		}
		m >>= bits.TrailingZeros64(m)
		for x := uint64(128); x < 256; x++ {
			for j := 30; j < 50; j++ {
				target := x << j
				for s := target/m - 1; s <= target/m+1; s++ {
					if s < 1<<23 || s >= 1<<24 {
						continue
					}
					if d := max(m*s, target) - min(m*s, target); d <= target>>44 && !(x == 128 && s == 1<<24-1) {
						t.Errorf("%d/%d is %d of 2^-%d from the midpoint at %d/4", x, s, d, j, point)
					}
				}
			}
		}
	}
}

// A matrix of decisions for one scale: every BF16 significand, under scales that are next to a significand over a point.
func TestVectorFP4Quotients(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(46, 46))
	src := make([]byte, 2*2048)
	for i := range 600 {
		apart := []uint32{1, 40}[i%2] // next to the point, and further
		point := []float64{0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5}[rng.IntN(7)]
		x := float64(128 + rng.IntN(128))
		// 4X/3 and such: the quotient is a unit below the point, or above it, and rounds to it.
		global := math.Float32frombits(math.Float32bits(float32(448*point/x)) + rng.Uint32N(2*apart+1) - apart)
		for i := range 2048 {
			v := float32(128+i%128) / float32(int(1)<<(i/128))
			if i%16 == 0 {
				v = float32(6 * 448 / float64(global)) // so that the local scale is 448
			}
			FromFloat32(src[2*i:], []float32{v}, BF16)
		}
		checkFP4(t, src, BF16, 1, 2048, fp4Scheme{16, global}, plainBytes)
	}
}

// Pairs of runs, which have their own code: weights of every magnitude, down to where their scales end, with zeros of both signs.
func TestVectorFP4Pairs(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(47, 47))
	for base := range 255 {
		rows, cols := 2, 2048+32*rng.IntN(100)
		src := make([]byte, 2*rows*cols)
		for i := range rows * cols {
			u := uint16(max(base-rng.IntN(6), 0)<<7 | rng.IntN(2)<<15 | rng.IntN(128))
			if rng.IntN(20) == 0 || i%cols < 64 {
				u &= 0x8000
			}
			binary.LittleEndian.PutUint16(src[2*i:], u)
		}
		for _, s := range fp4Schemes(rng, src, BF16) {
			checkFP4(t, src, BF16, rows, cols, s, plainBytes)
		}
		// Scales of few bits, whose quotients are often points of decision.
		checkFP4(t, src, BF16, rows, cols, fp4Scheme{16, math.Float32frombits(uint32(min(max(262-base, 1), 254)) << 23)}, plainBytes)
	}
}

// The code for pairs serves what weights are like, or none of these tests reaches it.
func TestFP4PairServes(t *testing.T) {
	t.Parallel()
	src := make([]byte, 4*fp4Run)
	fillWeights(rand.New(rand.NewPCG(48, 48)), src, BF16, 0)
	for _, k := range vectorKernels(t) {
		for _, s := range []fp4Scheme{{group: 32}, {16, 30000}} {
			var b fp4Batch
			_, ok := k.fp4Pair(&b, make([]byte, fp4Run), make([]byte, 2*fp4Run/s.group), src, BF16, s)
			if want := k.Name() == "avx512"; ok != want {
				t.Errorf("%s: %+v: %v, want %v", k.Name(), s, ok, want)
			}
		}
	}
}

// A power of two over a significand of ones: the one quotient that a step of correction gets wrong.
func TestVectorFP4Ones(t *testing.T) {
	t.Parallel()
	src := make([]byte, 2*64)
	for i := range 64 {
		v := float32(0.25)
		if i%16 == 0 {
			v = 6
		}
		FromFloat32(src[2*i:], []float32{v}, BF16)
	}
	found := false
	for u := math.Float32bits(448) - 8; u < math.Float32bits(448)+8; u++ {
		s := fp4Scheme{16, math.Float32frombits(u)}
		if _, scale := s.scale(math.Float32bits(6), BF16); math.Float32bits(scale)&0x7fffff == 0x7fffff {
			found = true
		}
		checkFP4(t, src, BF16, 1, 64, s, plainBytes)
	}
	if !found {
		t.Error("no scale has a significand of ones: the test no longer reaches what it is for")
	}
}

func TestVectorFP4BadRow(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(45, 45))
	for _, u := range []uint16{0x7f80, 0xff80, 0x7f81, 0xffff} {
		for range 20 {
			rows, cols := 5, 32*(1+rng.IntN(60))
			src := make([]byte, rows*cols*2)
			fillWeights(rng, src, BF16, 0)
			binary.LittleEndian.PutUint16(src[2*rng.IntN(rows*cols):], u)
			for _, s := range []fp4Scheme{{32, 0}, {16, 100}} {
				checkFP4(t, src, BF16, rows, cols, s, plainBytes)
			}
		}
	}
}

func TestDecodeFP4(t *testing.T) {
	t.Parallel()
	codes := make([]byte, 128)
	for i := range codes {
		codes[i] = byte(i*37 + 11)
	}
	dst := make([]float32, 256)
	DecodeFP4(dst, codes, 0.3)
	for i, v := range dst {
		c := codes[i/2] >> (i % 2 * 4) & 15
		want := float32(e2m1Values[c&7]) * 0.3
		if c > 7 {
			want = -want
		}
		if math.Float32bits(v) != math.Float32bits(want) {
			t.Fatalf("weight %d, code %d: %v, want %v", i, c, v, want)
		}
	}
}

func FuzzVectorFP4(f *testing.F) {
	f.Add([]byte("any bytes are weights, of any of three types; they repeat to fill a panel"), uint8(1), uint8(2), uint32(0x44000000))
	f.Add([]byte{0x7f, 0x7f, 0xff, 0xff, 0, 0, 1, 0}, uint8(0), uint8(3), uint32(1))
	f.Add([]byte{0xf0, 0x40, 0, 0x3f, 0xc0, 0x3f}, uint8(2), uint8(40), uint32(0x7f7fffff))
	f.Fuzz(func(t *testing.T, data []byte, types, blocks uint8, global uint32) {
		d := []DType{BF16, F16, F32}[types%3]
		cols := 32 * (1 + int(blocks))
		src := make([]byte, 2*cols*d.Size())
		for n := 0; len(data) > 0 && n < len(src); {
			n += copy(src[n:], data)
		}
		checkFP4(t, src, d, 2, cols, fp4Scheme{group: 32}, plainBytes)
		checkFP4(t, src, d, 2, cols, fp4Scheme{16, math.Float32frombits(1 + global%0x7f7fffff)}, plainBytes)
	})
}
