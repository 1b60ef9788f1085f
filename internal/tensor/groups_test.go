package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// panel is one call of a group encoder.
type panel struct {
	src                     []byte
	d, scale                DType
	rows, cols, group, bits int
	asymmetric              bool
}

func (p panel) String() string {
	return fmt.Sprintf("%v %d × %d, group %d, %d bits, %v scales, asymmetric %v", p.d, p.rows, p.cols, p.group, p.bits, p.scale, p.asymmetric)
}

// result makes a result of the right size, full of other bytes.
func (p panel) result() *GroupResult {
	fill := func(n int) []byte { return bytes.Repeat([]byte{0xcd}, n) }
	n := p.rows * (p.cols / p.group)
	r := &GroupResult{
		Codes: fill(p.rows * PackedRowBytes(p.cols, p.bits)), Scales: fill(n * p.scale.Size()),
		Error: make([]float64, p.rows), Power: make([]float64, p.rows),
	}
	if p.asymmetric {
		r.Zeros = fill(n)
	}
	return r
}

func (p panel) encode(k *Kernels, r *GroupResult) int {
	if p.asymmetric {
		return k.EncodeGroupsAsymmetric(r, p.src, p.d, p.rows, p.cols, p.group, p.bits, p.scale)
	}
	return k.EncodeGroups(r, p.src, p.d, p.rows, p.cols, p.group, p.bits, p.scale)
}

// oracleScale rounds a float32 scale to the stored type and gives its bits.
func oracleScale(s float32, zeros bool, d DType) (float32, []byte) {
	c := map[DType]struct {
		eps, tiny, top float32
	}{BF16: {0x1p-7, 0x1p-133, 0x1.fep127}, F16: {0x1p-10, 0x1p-24, 65504}, F32: {0x1p-23, 0x1p-149, math.MaxFloat32}}[d]
	b := make([]byte, d.Size())
	FromFloat32(b, []float32{s}, d)
	var v [1]float32
	ToFloat32(v[:], b, d)
	switch {
	case zeros:
		v[0] = c.eps
	case v[0] == 0:
		v[0] = c.tiny
	case v[0] > c.top:
		v[0] = c.top
	}
	FromFloat32(b, v[:], d)
	return v[0], b
}

// oracle does what the comment of EncodeGroups says, one element at a time, in
// wider arithmetic where that is exact.
func (p panel) oracle() *GroupResult {
	r := p.result()
	qmin, qmax := -math.Ldexp(1, p.bits-1), math.Ldexp(1, p.bits-1)-1
	clamp := func(v float32) float64 { return math.RoundToEven(math.Min(math.Max(float64(v), qmin), qmax)) }
	x := make([]float32, p.cols)
	codes := make([]uint8, p.cols)
	groups := p.cols / p.group
	for row := range p.rows {
		ToFloat32(x, p.src[row*p.cols*p.d.Size():], p.d)
		r.Error[row], r.Power[row] = 0, 0
		for g := range groups {
			var low, high float32
			for _, v := range x[g*p.group:][:p.group] {
				low, high = min(low, v), max(high, v)
			}
			s := max(high, -low) / float32((math.Ldexp(1, p.bits)-1)/2)
			if p.asymmetric {
				s = float32(high-low) / float32(math.Ldexp(1, p.bits)-1)
			}
			s, stored := oracleScale(s, low == high, p.scale)
			copy(r.Scales[(row*groups+g)*p.scale.Size():], stored)
			zp := 0.0
			if p.asymmetric {
				zp = clamp(float32(qmin - float64(float32(float64(low)/float64(s)))))
				r.Zeros[row*groups+g] = uint8(zp - qmin)
			}
			var e2, p2 [16]float32
			for i, v := range x[g*p.group:][:p.group] {
				// A quotient or sum of float32 rounded through float64 is
				// correctly rounded.
				y := float32(float64(v) / float64(s))
				if p.asymmetric {
					y = float32(float64(y) + zp)
				}
				q := clamp(y)
				e := fmaOracle(float32(-(q - zp)), s, v)
				e2[i%16] = fmaOracle(e, e, e2[i%16])
				p2[i%16] = fmaOracle(v, v, p2[i%16])
				codes[g*p.group+i] = uint8(q - qmin)
			}
			sum := func(l *[16]float32) float64 {
				for d := 8; d > 0; d /= 2 {
					for i := range d {
						l[i] = float32(float64(l[i]) + float64(l[i+d]))
					}
				}
				return float64(l[0])
			}
			r.Error[row] += sum(&e2)
			r.Power[row] += sum(&p2)
		}
		copy(r.Codes[row*PackedRowBytes(p.cols, p.bits):], packOracle(codes, p.bits))
	}
	return r
}

func sameSums(a, b []float64) bool {
	for i := range a {
		if math.Float64bits(a[i]) != math.Float64bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func compareResults(t *testing.T, what string, got, want *GroupResult) {
	t.Helper()
	for _, c := range []struct {
		name string
		a, b []byte
	}{{"codes", got.Codes, want.Codes}, {"scales", got.Scales, want.Scales}, {"zeros", got.Zeros, want.Zeros}} {
		for i := range c.b {
			if c.a[i] != c.b[i] {
				t.Fatalf("%s: byte %d of %s is %#x, want %#x", what, i, c.name, c.a[i], c.b[i])
			}
		}
	}
	if !sameSums(got.Error, want.Error) {
		t.Fatalf("%s: errors are %x, want %x", what, got.Error, want.Error)
	}
	if !sameSums(got.Power, want.Power) {
		t.Fatalf("%s: powers are %x, want %x", what, got.Power, want.Power)
	}
}

// fillWeights writes weights of one of several kinds.
func fillWeights(rng *rand.Rand, dst []byte, d DType, kind int) {
	n := len(dst) / d.Size()
	for i := range n {
		v := float32(rng.NormFloat64() * 0.02)
		switch kind {
		case 1: // zeros, with few others
			if rng.IntN(100) != 0 {
				v = 0
			}
		case 2:
			v = -0.0375
		case 3: // outliers
			if rng.IntN(50) == 0 {
				v *= 1e4
			}
		case 4: // subnormal in every type
			putBits(dst, i, d, uint32(rng.IntN(64)))
			continue
		case 5: // exact ties: multiples of half a step
			v = float32(rng.IntN(31)-15) / 2
			if i%32 == 0 {
				v = 7.5
			}
		case 6: // any finite bits
			putBits(dst, i, d, rng.Uint32())
			continue
		case 7: // extremes of the float32 range
			v = math.Float32frombits(0x7e000000 + rng.Uint32N(0x017fffff) + rng.Uint32N(2)<<31)
		}
		FromFloat32(dst[i*d.Size():], []float32{v}, d)
		if b := dst[i*d.Size():]; !finite(b, d) {
			FromFloat32(b, []float32{1}, d)
		}
	}
}

const weightKinds = 8

func finite(b []byte, d DType) bool {
	var v [1]float32
	ToFloat32(v[:], b[:d.Size()], d)
	return !math.IsNaN(float64(v[0])) && !math.IsInf(float64(v[0]), 0)
}

// putBits writes an element by its bits, without the exponent of infinities.
func putBits(dst []byte, i int, d DType, u uint32) {
	switch d {
	case F32:
		binary.LittleEndian.PutUint32(dst[4*i:], u)
	default:
		binary.LittleEndian.PutUint16(dst[2*i:], uint16(u))
	}
	if b := dst[i*d.Size():]; !finite(b, d) {
		FromFloat32(b, []float32{0}, d)
	}
}

func TestEncodeGroupsOracle(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(9, 10))
	types := []DType{BF16, F16, F32}
	for i := range 600 {
		p := panel{
			d: types[rng.IntN(3)], scale: types[rng.IntN(3)], rows: 1 + rng.IntN(3),
			group: 1 + rng.IntN(80), bits: 1 + rng.IntN(8), asymmetric: i%2 == 0,
		}
		p.cols = p.group * (1 + rng.IntN(4))
		p.src = make([]byte, p.rows*p.cols*p.d.Size())
		fillWeights(rng, p.src, p.d, rng.IntN(weightKinds))
		r := p.result()
		if bad := p.encode(nil, r); bad != -1 {
			t.Fatalf("%v: bad row %d", p, bad)
		}
		compareResults(t, p.String(), r, p.oracle())
	}
}

// One group by hand: absmax 7.5 gives scale 1, ties go to even, 7.5 is clamped.
func TestEncodeGroupsByHand(t *testing.T) {
	t.Parallel()
	w := []float32{7.5, -7.5, 0.5, 1.5, 2.5, -0.5, -1.5, 3}
	src := make([]byte, 2*len(w))
	FromFloat32(src, w, BF16)
	p := panel{src: src, d: BF16, scale: BF16, rows: 1, cols: 8, group: 8, bits: 4}
	r := p.result()
	if bad := p.encode(nil, r); bad != -1 {
		t.Fatal(bad)
	}
	// q = 7 -8 0 2 2 0 -2 3
	if got := binary.LittleEndian.Uint32(r.Codes); got != 0xb68aa80f {
		t.Errorf("codes are %#x, want 0xb68aa80f", got)
	}
	if !bytes.Equal(r.Scales, []byte{0x80, 0x3f}) {
		t.Errorf("scale is %x, want 1.0", r.Scales)
	}
	if want := 0.25 * 7; r.Error[0] != want {
		t.Errorf("error is %v, want %v", r.Error[0], want)
	}
	if want := 2*7.5*7.5 + 0.25 + 2.25 + 6.25 + 0.25 + 2.25 + 9; r.Power[0] != want {
		t.Errorf("power is %v, want %v", r.Power[0], want)
	}
}

func TestEncodeGroupsBadRow(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		k, err := ForName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []DType{BF16, F16, F32} {
			for _, asym := range []bool{false, true} {
				for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
					for _, at := range []int{0, 63, 64, 200, 64*40 + 5, 64*41 - 1} {
						p := panel{d: d, scale: BF16, rows: 41, cols: 64, group: 32, bits: 4, asymmetric: asym}
						p.src = make([]byte, p.rows*p.cols*d.Size())
						FromFloat32(p.src[at*d.Size():], []float32{bad}, d)
						if got := p.encode(k, p.result()); got != at/64 {
							t.Errorf("%s: %v: %v at %d: bad row %d, want %d", name, p, bad, at, got, at/64)
						}
					}
				}
			}
		}
	}
}

func TestEncodeGroupsRefuses(t *testing.T) {
	t.Parallel()
	good := panel{src: make([]byte, 2*64), d: BF16, scale: BF16, rows: 2, cols: 32, group: 16, bits: 4}
	for name, change := range map[string]func(*panel, *GroupResult){
		"group":      func(p *panel, r *GroupResult) { p.group = 5 },
		"zero group": func(p *panel, r *GroupResult) { p.group = 0 },
		"type":       func(p *panel, r *GroupResult) { p.d = I32 },
		"scale type": func(p *panel, r *GroupResult) { p.scale = F8E4M3 },
		"bits":       func(p *panel, r *GroupResult) { p.bits = 9 },
		"rows":       func(p *panel, r *GroupResult) { p.rows = -1 },
		"huge":       func(p *panel, r *GroupResult) { p.rows = math.MaxInt },
		"source":     func(p *panel, r *GroupResult) { p.src = p.src[1:] },
		"codes":      func(p *panel, r *GroupResult) { r.Codes = r.Codes[1:] },
		"scales":     func(p *panel, r *GroupResult) { r.Scales = r.Scales[1:] },
		"zeros":      func(p *panel, r *GroupResult) { p.asymmetric = true },
		"error":      func(p *panel, r *GroupResult) { r.Error = r.Error[1:] },
		"power":      func(p *panel, r *GroupResult) { r.Power = r.Power[1:] },
	} {
		p, r := good, good.result()
		change(&p, r)
		mustPanic(t, name, func() { p.encode(nil, r) })
	}
}

func TestEncodeGroupsEmpty(t *testing.T) {
	t.Parallel()
	r := &GroupResult{Error: []float64{5, 5}}
	if bad := Detect().EncodeGroups(r, nil, BF16, 2, 0, 32, 4, BF16); bad != -1 || r.Error[0] != 0 {
		t.Errorf("no columns: bad row %d, error %v", bad, r.Error)
	}
	if bad := Detect().EncodeGroups(r, nil, BF16, 0, 64, 32, 4, BF16); bad != -1 {
		t.Errorf("no rows: bad row %d", bad)
	}
}

func TestDecodeGroups(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	types := []DType{BF16, F16, F32}
	for i := range 600 {
		p := panel{
			d: F32, scale: types[rng.IntN(3)], rows: 1 + rng.IntN(3),
			group: 1 + rng.IntN(300), bits: 1 + rng.IntN(8), asymmetric: i%2 == 0,
		}
		p.cols = p.group * (1 + rng.IntN(4))
		p.src = make([]byte, p.rows*p.cols*p.d.Size())
		fillWeights(rng, p.src, p.d, 0)
		r := p.result()
		p.encode(nil, r)
		got := make([]float32, p.rows*p.cols+1)
		DecodeGroups(got, r.Codes, r.Scales, r.Zeros, p.rows, p.cols, p.group, p.bits, p.scale)
		if got[p.rows*p.cols] != 0 {
			t.Fatalf("%v: wrote past the end", p)
		}
		codes := make([]uint8, p.cols)
		x := make([]float32, p.cols)
		for row := range p.rows {
			UnpackRow(codes, r.Codes[row*PackedRowBytes(p.cols, p.bits):], p.bits)
			ToFloat32(x, p.src[row*p.cols*4:], F32)
			e2 := 0.0
			for c, u := range codes {
				g := row*(p.cols/p.group) + c/p.group
				var s [1]float32
				ToFloat32(s[:], r.Scales[g*p.scale.Size():], p.scale)
				zp := 1 << (p.bits - 1)
				if p.asymmetric {
					zp = int(r.Zeros[g])
				}
				want := float32(int(u)-zp) * s[0]
				if got[row*p.cols+c] != want {
					t.Fatalf("%v: row %d column %d is %v, want %v", p, row, c, got[row*p.cols+c], want)
				}
				e2 += (float64(x[c]) - float64(want)) * (float64(x[c]) - float64(want))
			}
			if math.Abs(e2-r.Error[row]) > 1e-5*e2+1e-12 {
				t.Fatalf("%v: row %d: error %v, decoded weights say %v", p, row, r.Error[row], e2)
			}
		}
	}
	mustPanic(t, "short", func() { DecodeGroups(make([]float32, 7), make([]byte, 4), make([]byte, 2), nil, 1, 8, 8, 4, BF16) })
}

func TestKernelNames(t *testing.T) {
	t.Parallel()
	for _, name := range append(Names(), "") {
		k, err := ForName(name)
		if err != nil || name != "" && k.Name() != name {
			t.Errorf("ForName(%q) = %v, %v", name, k, err)
		}
	}
	if _, err := ForName("avx1024"); err == nil {
		t.Error("ForName(avx1024): no error")
	}
	if (*Kernels)(nil).Name() != "scalar" || (&Kernels{}).Name() != "scalar" {
		t.Error("the zero value is not scalar")
	}
	t.Logf("kernels here: %v", Names())
}
