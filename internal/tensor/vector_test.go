package tensor

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// vectorKernels returns the kernels to hold against the plain code.
func vectorKernels(t testing.TB) []*Kernels {
	var ks []*Kernels
	for _, name := range Names()[1:] {
		k, err := ForName(name)
		if err != nil {
			t.Fatal(err)
		}
		ks = append(ks, k)
	}
	return ks
}

func checkVector(t *testing.T, p panel) {
	t.Helper()
	want := p.result()
	bad := p.encode(nil, want)
	for _, k := range vectorKernels(t) {
		got := p.result()
		if b := p.encode(k, got); b != bad {
			t.Fatalf("%s: %v: bad row %d, want %d", k.Name(), p, b, bad)
		}
		if bad == -1 {
			compareResults(t, k.Name()+": "+p.String(), got, want)
		}
	}
}

func TestVectorShapes(t *testing.T) {
	t.Parallel()
	types := []DType{BF16, F16, F32}
	for seed, d := range types {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(uint64(seed), 14))
			for i := range 400 {
				p := panel{d: d, scale: types[rng.IntN(3)], rows: 1 + rng.IntN(5), bits: 1 + i%8}
				switch rng.IntN(8) {
				case 0: // a group the vector code does not serve
					p.group = 1 + rng.IntN(100)
				case 1:
					p.group = 32 * (1 + rng.IntN(200))
				case 2:
					p.group = 128
				default:
					p.group = 32 * (1 + rng.IntN(6))
				}
				p.cols = p.group * (1 + rng.IntN(min(40, 1+4000/p.group)))
				p.src = make([]byte, p.rows*p.cols*d.Size())
				fillWeights(rng, p.src, d, rng.IntN(weightKinds))
				checkVector(t, p)
			}
		})
	}
}

// Every finite BF16 and F16 pattern meets scales of every magnitude.
func TestVectorAllPatterns(t *testing.T) {
	t.Parallel()
	for _, d := range []DType{BF16, F16} {
		for _, scale := range []DType{BF16, F16, F32} {
			t.Run(d.String()+"-"+scale.String(), func(t *testing.T) {
				t.Parallel()
				for _, bits := range []int{4, 8} {
					// In the order of the patterns a group holds near values; a stride
					// mixes magnitudes.
					for _, stride := range []int{1, 4097} {
						p := panel{d: d, scale: scale, rows: 32, cols: 2048, group: 64, bits: bits}
						p.src = make([]byte, p.rows*p.cols*2)
						for i := range p.rows * p.cols {
							putBits(p.src, i, d, uint32(i*stride|i*stride>>16)&0xffff)
						}
						checkVector(t, p)
					}
				}
			})
		}
	}
}

// A group is scaled by one element, so that any pattern of scale meets any
// pattern of weight below it, also where the quotient is a tie.
func TestVectorQuotients(t *testing.T) {
	t.Parallel()
	for _, d := range []DType{BF16, F16, F32} {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(15, 16))
			for _, bits := range []int{2, 3, 4, 5, 8} {
				p := panel{d: d, rows: 16, cols: 512, group: 128, bits: bits}
				p.src = make([]byte, p.rows*p.cols*d.Size())
				for _, p.scale = range []DType{BF16, F16, F32} {
					for range 4 {
						for g := range p.rows * p.cols / p.group {
							// Exponents over the whole range, mostly in the middle.
							top := rng.Uint32()&0x007fffff | (64+rng.Uint32N(128))<<23
							if rng.IntN(4) == 0 {
								top = rng.Uint32() & 0x7fffffff
							}
							switch d {
							case F16:
								top = rng.Uint32() & 0x7fff
							case BF16:
								top >>= 16
							}
							for i := range p.group {
								u := top
								if i > 0 { // some bits of the exponent and fraction below
									u -= min(u, rng.Uint32()>>rng.IntN(32))
								}
								u |= rng.Uint32() & 1 << (8*d.Size() - 1)
								putBits(p.src, g*p.group+i, d, u)
							}
						}
						checkVector(t, p)
					}
				}
			}
		})
	}
}

// Steps of half a scale put every quotient on a tie.
func TestVectorTies(t *testing.T) {
	t.Parallel()
	for bits := 2; bits <= 8; bits++ {
		for e := -130; e <= 118; e++ {
			p := panel{d: F32, rows: 1, cols: 512, group: 512, bits: bits}
			p.src = make([]byte, 4*p.cols)
			step := float32(1)
			for range max(e, -e) {
				if e < 0 {
					step /= 2
				} else {
					step *= 2
				}
			}
			most := 1<<bits - 1 // in halves
			for i := range p.cols {
				v := float32(i%(2*most+1)-most) / 2 * step
				FromFloat32(p.src[4*i:], []float32{v}, F32)
			}
			for _, p.scale = range []DType{BF16, F16, F32} {
				checkVector(t, p)
			}
		}
	}
}

func TestVectorBadRow(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(17, 18))
	nan := map[DType][]uint32{
		BF16: {0x7f80, 0xff80, 0x7f81, 0xffff}, F16: {0x7c00, 0xfc00, 0x7c01, 0xffff},
		F32: {0x7f800000, 0xff800000, 0x7f800001, 0xffffffff},
	}
	for _, d := range []DType{BF16, F16, F32} {
		for _, u := range nan[d] {
			for range 20 {
				p := panel{d: d, scale: BF16, rows: 7, cols: 32 * (1 + rng.IntN(30)), group: 32, bits: 4}
				p.src = make([]byte, p.rows*p.cols*d.Size())
				fillWeights(rng, p.src, d, 0)
				at := p.src[rng.IntN(p.rows*p.cols)*d.Size():]
				if d == F32 {
					binary.LittleEndian.PutUint32(at, u)
				} else {
					binary.LittleEndian.PutUint16(at, uint16(u))
				}
				checkVector(t, p)
			}
		}
	}
}

// One result serves panels of different shapes, widths and types in turn.
func TestVectorResultReuse(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(19, 20))
	for _, k := range vectorKernels(t) {
		r := &GroupResult{Codes: make([]byte, 1<<16), Scales: make([]byte, 1<<14), Error: make([]float64, 64)}
		for range 100 {
			p := panel{d: BF16, scale: F16, rows: 1 + rng.IntN(8), group: 32 * (1 + rng.IntN(8)), bits: 2 + rng.IntN(7)}
			p.cols = p.group * (1 + rng.IntN(8))
			p.src = make([]byte, p.rows*p.cols*2)
			fillWeights(rng, p.src, p.d, 0)
			p.encode(k, r)
			want := p.result()
			p.encode(nil, want)
			n := p.rows * p.cols / p.group * 2
			compareResults(t, k.Name()+": "+p.String(), &GroupResult{
				Codes: r.Codes[:len(want.Codes)], Scales: r.Scales[:n], Error: r.Error[:p.rows], Power: want.Power,
			}, want)
		}
	}
}

func FuzzVector(f *testing.F) {
	f.Add([]byte("any bytes are weights, of any of three types; they repeat to fill a panel"), uint8(4), uint8(1), uint8(2), uint8(3))
	f.Add([]byte{0x7f, 0x7f, 0xff, 0xff, 0, 0, 1, 0}, uint8(3), uint8(3), uint8(0), uint8(40))
	f.Add([]byte{0xf0, 0x40, 0, 0x3f, 0xc0, 0x3f}, uint8(4), uint8(4), uint8(0), uint8(4))
	f.Fuzz(func(t *testing.T, data []byte, bits, types, blocks, groups uint8) {
		all := []DType{BF16, F16, F32}
		p := panel{
			d: all[types%3], scale: all[types/3%3], rows: 2, bits: 1 + int(bits%8),
			group: 32 * (1 + int(blocks%5)),
		}
		p.cols = p.group * (1 + int(groups%40))
		p.src = make([]byte, p.rows*p.cols*p.d.Size())
		for n := 0; len(data) > 0 && n < len(p.src); {
			n += copy(p.src[n:], data)
		}
		checkVector(t, p)
	})
}
