package prune_test

import (
	_ "embed" // golden cases
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/prune"
	"github.com/shardpress/shardpress/internal/tensor"
)

//go:embed testdata/magnitude/cases.json
var goldenText []byte

// TestMagnitudeGolden compares with the reference code. Where it prunes more than it was asked for, ours are among them.
func TestMagnitudeGolden(t *testing.T) {
	t.Parallel()
	var golden struct {
		Cases map[string]struct {
			DType           string
			Rows, Cols      int
			Sparsity        float64
			Keep, Of        int64
			Ties            bool
			Weights, Pruned string
		}
	}
	if err := json.Unmarshal(goldenText, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) != 7 {
		t.Errorf("%d cases", len(golden.Cases))
	}
	dtypes := map[string]tensor.DType{"float32": tensor.F32, "float16": tensor.F16, "bfloat16": tensor.BF16}
	for name, c := range golden.Cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, d := c.Rows*c.Cols, dtypes[c.DType]
			read := func(text string) ([]byte, []float32) {
				b, err := hex.DecodeString(text)
				if err != nil || len(b) != n*d.Size() {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
				x := make([]float32, n)
				tensor.ToFloat32(x, b, d)
				return b, x
			}
			raw, w := read(c.Weights)
			_, theirs := read(c.Pruned)
			p := unstructured("tensor", c.Sparsity)
			want := int(c.Sparsity * float64(n))
			if c.Of > 0 {
				p = prune.MagnitudeParams{Pattern: "n:m", N: c.Keep, M: c.Of}
				want = n / int(c.Of) * int(c.Of-c.Keep)
			}
			l := compress.Linear{Name: name, Rows: int64(c.Rows), Cols: int64(c.Cols), DType: d.String(), Role: compress.RoleLinear}
			weights, err := compress.NewWeights(l, raw)
			if err != nil {
				t.Fatal(err)
			}
			m := newMagnitude(t, p)
			layout, err := m.Layout(l)
			if err != nil {
				t.Fatal(err)
			}
			ours := make([]float32, n)
			pruned := make([]bool, n)
			err = compress.Encode(t.Context(), m, weights, compress.Options{PanelRows: c.Rows}, func(e *compress.Encoded) error {
				for i := range pruned {
					pruned[i] = e.Data[0][i/c.Cols*((c.Cols+7)/8)+i%c.Cols/8]>>(i%c.Cols%8)&1 == 0
				}
				return layout.Scheme.Decode(ours, c.Cols, e)
			})
			if err != nil {
				t.Fatal(err)
			}
			gone, extra, largest := 0, 0, float32(0)
			for i := range w {
				if pruned[i] {
					gone++
					if theirs[i] != 0 {
						t.Errorf("weight %d, %v, is pruned here and not there", i, w[i])
					}
					largest = max(largest, float32(math.Abs(float64(w[i]))))
				} else if ours[i] != w[i] {
					t.Errorf("weight %d is %v, not %v", i, ours[i], w[i])
				} else if theirs[i] == 0 && w[i] != 0 {
					extra++
				}
			}
			if gone != want {
				t.Errorf("%d weights are pruned, want %d", gone, want)
			}
			switch {
			case c.Of > 0:
				if extra != 0 || !slices.Equal(ours, theirs) {
					t.Errorf("%d weights are pruned there and not here", extra)
				}
			case c.Ties:
				if extra < 2 {
					t.Errorf("%d weights are pruned there and not here: the case no longer has ties", extra)
				}
			case extra != 1:
				t.Errorf("%d weights are pruned there and not here, want the one at their threshold", extra)
			}
			if c.Ties { // what they prune beyond is equal to the largest of ours
				for i := range w {
					if theirs[i] == 0 && float32(math.Abs(float64(w[i]))) > largest {
						t.Errorf("weight %d, %v, is pruned there, and ours end at %v", i, w[i], largest)
					}
				}
			}
		})
	}
}
