package quantize_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/shardpress/shardpress/compress/methodtest"
)

// hexBytes is a byte array in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// floats reads the array as F32.
func (h hexBytes) floats() []float64 {
	out := make([]float64, len(h)/4)
	for i := range out {
		out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(h[4*i:])))
	}
	return out
}

func readGolden(t *testing.T, path string, to any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

// What the authors' code makes of each group, and of the whole.
func TestHQQGolden(t *testing.T) {
	t.Parallel()
	var golden struct {
		Cases map[string]struct {
			Bits, Rows, Cols              int
			Group                         int64
			Weights, Codes, Scales, Zeros hexBytes
			Default                       map[string]float64
		}
	}
	readGolden(t, "testdata/hqq/cases.json", &golden)
	for name, c := range golden.Cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := methodtest.NewInput("weights", "F32", c.Cols, c.Weights.floats())
			got := decoded(t, newHQQ(t, hqqParams(c.Bits, c.Group)), in)
			scales, zeros := c.Scales.floats(), c.Zeros.floats()
			same := 0
			for g := range scales {
				at := g * int(c.Group)
				theirs, equal := make([]float32, c.Group), true
				for i := range theirs {
					theirs[i] = float32((float64(c.Codes[at+i]) - zeros[g]) * scales[g])
					// Another code is a step away.
					equal = equal && math.Abs(float64(theirs[i]-got[at+i])) < 0.01*scales[g]
				}
				if equal {
					same++
					continue
				}
				w := in.Weights[at:][:c.Group]
				if is, was := lossOf(w, got[at:][:c.Group], 1), lossOf(w, theirs, 1); is > was*(1+1e-4) {
					t.Errorf("group %d: other codes, and Σ|e| is %g, the authors' %g", g, is, was)
				}
			}
			n := float64(len(got))
			l1, l7 := lossOf(in.Weights, got, 1)/n, lossOf(in.Weights, got, 0.7)/n
			t.Logf("%d of %d groups have the same codes; l1 %g, default solver %g; l0.7 %g, %g", same, len(scales), l1, c.Default["l1"], l7, c.Default["l0.7"])
			if 4*same < 3*len(scales) && c.Bits > 2 { // with 2 bits whole zero points often win
				t.Errorf("%d of %d groups have the same codes", same, len(scales))
			}
			if l1 > c.Default["l1"]*(1+1e-4) || l7 > c.Default["l0.7"]*(1+1e-4) {
				t.Errorf("mean errors %g and %g, the authors' %g and %g", l1, l7, c.Default["l1"], c.Default["l0.7"])
			}
		})
	}
}
