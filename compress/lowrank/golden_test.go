package lowrank

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
	"github.com/shardpress/shardpress/internal/tensor"
)

// golden is what tools/interop/golden/lowrank.py made.
type golden struct {
	MadeWith   string `json:"made_with"`
	Rows, Cols int
	Weights    []float64
	SVD        struct {
		Tail []float64
		Rank int64
		Best []float64
	}
	LoRC struct{ Tail []float64 }
	LPLR struct {
		Rank        int
		Left, Right []float64
	}
}

func readGolden(t *testing.T, dtype string) (golden, methodtest.Input) {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g, methodtest.NewInput("golden", dtype, g.Cols, g.Weights)
}

func decode(t *testing.T, m compress.Method, in methodtest.Input) (decoded []float32, lost float64) {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := m.Layout(in.Linear)
	if err != nil {
		t.Fatal(err)
	}
	decoded = make([]float32, in.Linear.Rows*in.Linear.Cols)
	err = compress.Encode(t.Context(), m, w, compress.Options{}, func(e *compress.Encoded) error {
		lost = compress.Sum(lost, e.Error)
		return layout.Scheme.Decode(decoded[e.Row*in.Linear.Cols:], int(in.Linear.Cols), e)
	})
	if err != nil {
		t.Fatal(err)
	}
	return decoded, lost
}

func TestGoldenSVD(t *testing.T) {
	t.Parallel()
	g, in := readGolden(t, "F32")
	for _, rank := range []int64{1, 3, g.SVD.Rank, 12} {
		_, lost := decode(t, &SVD{SVDParams{Rank: Rank{By: ByRank, Rank: rank}}, plain{}}, in)
		if want := g.SVD.Tail[rank]; lost > 1.001*want+1e-9*g.SVD.Tail[0] || lost < 0.999*want {
			t.Errorf("rank %d: loss %g, torch has %g", rank, lost, want)
		}
	}
	got, _ := decode(t, &SVD{SVDParams{Rank: Rank{By: ByRank, Rank: g.SVD.Rank}}, plain{}}, in)
	var away float64
	for i, v := range got {
		d := float64(v) - g.SVD.Best[i]
		away += d * d
	}
	if limit := g.SVD.Tail[0]*1e-12 + g.SVD.Tail[g.SVD.Rank]*1e-2; away > limit {
		t.Errorf("the product is %g away from torch's, more than %g", away, limit)
	}
}

func TestGoldenLoRC(t *testing.T) {
	t.Parallel()
	g, in := readGolden(t, "BF16") // as the reference quantizes it
	rtn, err := quantize.NewRTN(quantize.RTNParams{Bits: 4, Symmetric: true, Strategy: compress.StrategyChannel})
	if err != nil {
		t.Fatal(err)
	}
	for _, rank := range []int64{1, 4, 9} {
		_, lost := decode(t, &LoRC{LoRCParams{rank}, rtn}, in)
		// The factors are rounded to bfloat16.
		if want := g.LoRC.Tail[rank]; lost > 1.003*want || lost < 0.997*want {
			t.Errorf("rank %d: loss %g, torch has %g", rank, lost, want)
		}
	}
}

func TestGoldenLPLR(t *testing.T) {
	t.Parallel()
	g, in := readGolden(t, "F32")
	k, err := tensor.ForName("")
	if err != nil {
		t.Fatal(err)
	}
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	left := make([]float32, len(g.LPLR.Left))
	for i, v := range g.LPLR.Left {
		left[i] = float32(v)
	}
	right, err := leastSquares(t.Context(), k, w, left, g.LPLR.Rank, compress.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range right {
		if math.Abs(float64(v)-g.LPLR.Right[i]) > 1e-5 {
			t.Fatalf("element %d of the answer is %v, torch has %v", i, v, g.LPLR.Right[i])
		}
	}
}
