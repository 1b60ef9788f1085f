package tensor

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// testTables are one in order, one whose codes are not, one whose bounds are BF16 numbers, so that weights lie on them, one like NF4, and one
// like a float with two zeros.
func testTables() []*Table4 {
	var plain, mixed, even, float [16]float32
	for i, v := range [8]float32{0, 0.0625, 8, 12, 4, 6, 2, 3} {
		float[i], float[8+i] = v/12, -v/12
	}
	signs := [16]uint8{11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3}
	normal := [16]float32{-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1}
	var order, shuffled [16]uint8
	for i := range 16 {
		order[i], shuffled[i] = uint8(i), uint8(i*7%16)
		plain[i] = float32(math.Sin(float64(i-7) / 8 * math.Pi / 2))
		mixed[i*7%16] = float32((i-8)*(i-8)*(i-8)) / 512
		even[i] = float32(i-8) / 8
	}
	return []*Table4{NewTable4(plain, order), NewTable4(mixed, shuffled), NewTable4(even, order), NewTable4(normal, order), NewTable4(float, signs)}
}

// tablePanel is one call of EncodeTable.
type tablePanel struct {
	d                 DType
	rows, cols, block int
	src               []byte
	absmax, scale     []float32
	table             *Table4
}

func (p *tablePanel) fill(t *testing.T, rng *rand.Rand, kind int) {
	t.Helper()
	fillWeights(rng, p.src, p.d, kind)
	n := (p.rows*p.cols + p.block - 1) / p.block
	p.absmax, p.scale = make([]float32, n), make([]float32, n)
	if bad := (*Kernels)(nil).RunsAbsmax(p.absmax, p.src, p.d, p.block); bad >= 0 {
		t.Fatalf("run %d is not finite", bad)
	}
	for i, v := range p.absmax {
		p.scale[i] = v * (0.9 + rng.Float32()/5)
	}
}

func (p *tablePanel) result() *TableResult {
	return &TableResult{Codes: make([]byte, (p.rows*p.cols+1)/2), Error: make([]float64, p.rows), Power: make([]float64, p.rows)}
}

func (p *tablePanel) encode(k *Kernels, r *TableResult) {
	k.EncodeTable(r, p.src, p.d, p.rows, p.cols, p.block, p.absmax, p.scale, p.table)
}

func sameTable(t *testing.T, what string, got, want *TableResult) {
	t.Helper()
	same := func(a, b []float64) bool {
		return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
	}
	if !bytes.Equal(got.Codes, want.Codes) || !same(got.Error, want.Error) || !same(got.Power, want.Power) {
		clip := func(b []byte) []byte { return b[:min(len(b), 64)] }
		t.Fatalf("%s: codes %x sums %v %v, plain Go has %x %v %v", what, clip(got.Codes), got.Error, got.Power, clip(want.Codes), want.Error, want.Power)
	}
}

// All kernels give the bits of plain Go, whatever the shape.
func TestEncodeTable(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(31, 32))
	for i := range 200 {
		p := tablePanel{d: []DType{BF16, BF16, F16, F32}[i%4], rows: 1 + rng.IntN(4), block: 32 << rng.IntN(4), table: testTables()[rng.IntN(5)]}
		p.cols = p.block * (1 + rng.IntN(70))
		if i%5 == 0 {
			p.cols = 1 + rng.IntN(300)
		}
		p.src = make([]byte, p.rows*p.cols*p.d.Size())
		p.fill(t, rng, rng.IntN(weightKinds))
		want := p.result()
		p.encode(nil, want)
		for _, k := range vectorKernels(t) {
			absmax := make([]float32, len(p.absmax))
			if bad := k.RunsAbsmax(absmax, p.src, p.d, p.block); bad >= 0 || !slices.Equal(absmax, p.absmax) {
				t.Fatalf("%s: magnitudes %v (%d), plain Go has %v", k.Name(), absmax, bad, p.absmax)
			}
			got := p.result()
			p.encode(k, got)
			sameTable(t, fmt.Sprintf("%s: %v %d × %d in runs of %d", k.Name(), p.d, p.rows, p.cols, p.block), got, want)
		}
	}
}

// Plain Go looks for the nearest value, one after the other.
func TestTableCode(t *testing.T) {
	t.Parallel()
	for _, table := range testTables() {
		numbers := []float32{-2, -1, 0, float32(math.Copysign(0, -1)), 1, 2}
		for _, b := range table.Bounds {
			numbers = append(numbers, b, math.Nextafter32(b, -9), math.Nextafter32(b, 9))
		}
		for _, y := range numbers {
			want := 0
			for want < 15 && y > table.Bounds[want] {
				want++
			}
			if got := table.Code(y); got != table.Codes[want] {
				t.Errorf("%v has code %d, not %d", y, got, table.Codes[want])
			}
		}
	}
}

func TestRunsAbsmaxFindsWhatIsNotFinite(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(33, 34))
	for _, d := range []DType{BF16, F16, F32} {
		src := make([]byte, 1000*d.Size())
		fillWeights(rng, src, d, 0)
		for _, at := range []int{0, 63, 64, 500, 999} {
			for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				bad := slices.Clone(src)
				FromFloat32(bad[at*d.Size():], []float32{float32(v)}, d)
				for _, k := range append(vectorKernels(t), nil) {
					if got := k.RunsAbsmax(make([]float32, 16), bad, d, 64); got != at/64 {
						t.Errorf("%s: %v: %v at %d is found in run %d", k.Name(), d, v, at, got)
					}
				}
			}
		}
	}
}
