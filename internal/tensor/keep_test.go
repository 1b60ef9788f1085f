package tensor

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// keepOracle sorts the columns of each run, and adds as SumSquares says.
func keepOracle(src []byte, d DType, rows, cols, n, m int) *KeepResult {
	r := newKeep(d, rows, cols, n, m)
	clear(r.Mask)
	x := make([]float32, rows*cols)
	ToFloat32(x, src, d)
	r.Kept = r.Kept[:0]
	for row := range rows {
		w := x[row*cols:][:cols]
		gone := slices.Clone(w)
		for from := 0; from < cols; from += m {
			order := make([]int, m)
			for i := range order {
				order[i] = from + i
			}
			slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(math.Abs(float64(w[a])), math.Abs(float64(w[b]))) })
			slices.Sort(order[m-n:])
			for _, c := range order[m-n:] {
				r.Mask[row*((cols+7)/8)+c/8] |= 1 << (c % 8)
				gone[c] = 0
				r.Kept = append(r.Kept, src[(row*cols+c)*d.Size():][:d.Size()]...)
			}
		}
		r.Power[row], r.Error[row] = SumSquares(w), SumSquares(gone)
	}
	return r
}

func newKeep(d DType, rows, cols, n, m int) *KeepResult {
	r := &KeepResult{
		Mask: make([]byte, rows*((cols+7)/8)), Kept: make([]byte, rows*cols/m*n*d.Size()),
		Error: make([]float64, rows), Power: make([]float64, rows),
	}
	for _, b := range [][]byte{r.Mask, r.Kept} {
		for i := range b {
			b[i] = 0xa5
		}
	}
	return r
}

func sameKeep(t *testing.T, what string, got, want *KeepResult) {
	t.Helper()
	bits := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
	if !bytes.Equal(got.Mask, want.Mask) || !bytes.Equal(got.Kept, want.Kept) {
		t.Fatalf("%s: mask %x, want %x; kept %x, want %x", what, clip(got.Mask), clip(want.Mask), clip(got.Kept), clip(want.Kept))
	}
	if !slices.EqualFunc(got.Error, want.Error, bits) || !slices.EqualFunc(got.Power, want.Power, bits) {
		t.Fatalf("%s: sums %v %v, want %v %v", what, got.Error, got.Power, want.Error, want.Power)
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }

func TestKeepLargest(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(31, 32))
	kernels := append(vectorKernels(t), nil)
	for i := range 600 {
		d := []DType{BF16, BF16, F16, F32}[i%4]
		m := []int{4, 8, 4, 8, 1 + rng.IntN(maxM)}[rng.IntN(5)]
		n := 1 + rng.IntN(m)
		cols := m * (1 + rng.IntN(40))
		if rng.IntN(3) > 0 {
			cols = m * 32 * (1 + rng.IntN(max(1, 900/m/32)))
		}
		rows := 1 + rng.IntN(4)
		src := make([]byte, rows*cols*d.Size())
		fillWeights(rng, src, d, rng.IntN(weightKinds))
		bad := -1
		for row := range rows {
			for c := range cols {
				if bad < 0 && !finite(src[(row*cols+c)*d.Size():], d) {
					bad = row
				}
			}
		}
		var want *KeepResult
		if bad < 0 {
			want = keepOracle(src, d, rows, cols, n, m)
		}
		for _, k := range kernels {
			got := newKeep(d, rows, cols, n, m)
			if b := k.KeepLargest(got, src, d, rows, cols, n, m); b != bad {
				t.Fatalf("%s: %v %d × %d, %d of %d: bad row %d, want %d", k.Name(), d, rows, cols, n, m, b, bad)
			}
			if bad < 0 {
				sameKeep(t, k.Name()+" "+d.String(), got, want)
			}
		}
	}
}

// Every BF16 pattern stands beside others, near and far, and beside equal ones.
func TestKeepAllPatterns(t *testing.T) {
	t.Parallel()
	for _, stride := range []uint32{1, 4097, 0x8000 + 3, 0x3fff} {
		src := make([]byte, 2<<16)
		for i := range uint32(1 << 16) {
			h := i*stride | i*stride>>16
			if h&0x7f80 == 0x7f80 {
				h &^= 0x0080
			}
			binary.LittleEndian.PutUint16(src[2*i:], uint16(h))
		}
		for _, p := range [][2]int{{2, 4}, {1, 4}, {3, 4}, {4, 4}, {4, 8}, {1, 8}, {5, 8}, {8, 8}} {
			want := keepOracle(src, BF16, 32, 2048, p[0], p[1])
			for _, k := range append(vectorKernels(t), nil) {
				got := newKeep(BF16, 32, 2048, p[0], p[1])
				if bad := k.KeepLargest(got, src, BF16, 32, 2048, p[0], p[1]); bad >= 0 {
					t.Fatalf("%s: row %d is refused", k.Name(), bad)
				}
				sameKeep(t, k.Name(), got, want)
			}
		}
	}
}

// One weight of many is no number, wherever it stands.
func TestKeepNotFinite(t *testing.T) {
	t.Parallel()
	for _, k := range append(vectorKernels(t), nil) {
		for _, cols := range []int{32, 64, 288} {
			for at := range 3 * cols {
				for _, v := range []uint16{0x7f80, 0xff80, 0x7fff, 0xffff} {
					src := make([]byte, 3*cols*2)
					binary.LittleEndian.PutUint16(src[2*at:], v)
					if bad := k.KeepLargest(newKeep(BF16, 3, cols, 2, 4), src, BF16, 3, cols, 2, 4); bad != at/cols {
						t.Fatalf("%s: weight %d of %d columns: row %d is refused", k.Name(), at, cols, bad)
					}
				}
			}
		}
	}
}

func FuzzKeepLargest(f *testing.F) {
	f.Add([]byte("any bytes are weights, and any numbers of columns are kept"), uint8(2), uint8(4), uint8(32))
	f.Add([]byte{0x80, 0x3f, 0x80, 0xbf}, uint8(4), uint8(8), uint8(65))
	f.Fuzz(func(t *testing.T, data []byte, n, m, groups uint8) {
		run := 1 + int(m)%maxM
		keep := 1 + int(n)%run
		cols := run * (1 + int(groups)%80)
		src := make([]byte, 2*cols*2)
		for to := 0; len(data) > 0 && to < len(src); {
			to += copy(src[to:], data)
		}
		want := newKeep(BF16, 2, cols, keep, run)
		bad := (*Kernels)(nil).KeepLargest(want, src, BF16, 2, cols, keep, run)
		if bad < 0 {
			sameKeep(t, "scalar", want, keepOracle(src, BF16, 2, cols, keep, run))
		}
		for _, k := range vectorKernels(t) {
			got := newKeep(BF16, 2, cols, keep, run)
			if b := k.KeepLargest(got, src, BF16, 2, cols, keep, run); b != bad {
				t.Fatalf("%s: bad row %d, want %d", k.Name(), b, bad)
			}
			if bad < 0 {
				sameKeep(t, k.Name(), got, want)
			}
		}
	})
}

func TestSumSquares(t *testing.T) {
	t.Parallel()
	x := make([]float32, 600)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	var want float64
	for _, v := range x {
		want += float64(v) * float64(v)
	}
	if got := SumSquares(x); got != want { // whole numbers: nothing is rounded
		t.Errorf("%v, want %v", got, want)
	}
	if got := SumSquares([]float32{1e30, 1}); !math.IsInf(got, 1) {
		t.Errorf("%v for a square beyond float32", got)
	}
	if got := SumSquares(nil); got != 0 {
		t.Errorf("%v for nothing", got)
	}
}
