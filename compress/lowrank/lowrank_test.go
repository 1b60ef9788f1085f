package lowrank_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/lowrank"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/quantize"
)

func rtn(t testing.TB, bits int) compress.Method {
	t.Helper()
	m, err := quantize.NewRTN(quantize.RTNParams{Bits: bits, Symmetric: true, Strategy: compress.StrategyChannel})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func svd(t testing.TB, r lowrank.Rank) compress.Chainer {
	t.Helper()
	m, err := lowrank.NewSVD(lowrank.SVDParams{Rank: r})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func byEnergy(t testing.TB, part float64) compress.Chainer {
	t.Helper()
	m, err := lowrank.NewSVD(lowrank.SVDParams{Rank: lowrank.Rank{By: lowrank.ByEnergy}, Energy: part})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func lplr(t testing.TB, r lowrank.Rank) compress.Chainer {
	t.Helper()
	m, err := lowrank.NewLPLR(lowrank.LPLRParams{Rank: r})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func lorc(t testing.TB, rank int64) compress.Chainer {
	t.Helper()
	m, err := lowrank.NewLoRC(lowrank.LoRCParams{Rank: rank})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func then(t testing.TB, m compress.Chainer, next compress.Method) compress.Method {
	t.Helper()
	c, err := m.Then(next)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func byRank(n int64) lowrank.Rank    { return lowrank.Rank{By: lowrank.ByRank, Rank: n} }
func byRatio(r float64) lowrank.Rank { return lowrank.Rank{By: lowrank.ByRatio, Ratio: r} }

func TestMethods(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]compress.Method{
		"svd ratio":      svd(t, byRatio(0.2)),
		"svd rank 1":     svd(t, byRank(1)),
		"svd rank 3":     svd(t, byRank(3)),
		"svd then int8":  then(t, svd(t, byRatio(0.4)), rtn(t, 8)),
		"svd energy":     byEnergy(t, 0.9),
		"lplr ratio":     lplr(t, byRatio(0.2)),
		"lplr then int8": then(t, lplr(t, byRank(1)), rtn(t, 8)),
		"lorc then int4": then(t, lorc(t, 1), rtn(t, 4)),
		"lorc then int2": then(t, lorc(t, 2), rtn(t, 2)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			methodtest.Run(t, methodtest.Case{Method: m})
		})
	}
}

// encode gives the decoded weights and the error of a matrix.
func encode(t *testing.T, m compress.Method, in methodtest.Input) (decoded []float64, lost float64) {
	t.Helper()
	w, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := m.Layout(in.Linear)
	if err != nil {
		t.Fatal(err)
	}
	err = compress.Encode(t.Context(), m, w, compress.Options{}, func(e *compress.Encoded) error {
		x := make([]float32, e.Rows*int(in.Linear.Cols))
		if err := layout.Scheme.Decode(x, int(in.Linear.Cols), e); err != nil {
			return err
		}
		for _, v := range x {
			decoded = append(decoded, float64(v))
		}
		lost = compress.Sum(lost, e.Error)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return decoded, lost
}

// matrix makes an input of a product with a falling spectrum.
func matrix(dtype string, rows, cols int) methodtest.Input {
	rng := uint64(rows*1000 + cols)
	next := func() float64 {
		rng = rng*6364136223846793005 + 1442695040888963407
		return float64(int64(rng)>>20) * 0x1p-43
	}
	n := min(rows, cols)
	a, b := mat.NewDense(rows, n, nil), mat.NewDense(n, cols, nil)
	for i := range rows {
		for j := range n {
			a.Set(i, j, next()/float64(1+j))
		}
	}
	for i := range n {
		for j := range cols {
			b.Set(i, j, next())
		}
	}
	var w mat.Dense
	w.Mul(a, b)
	return methodtest.NewInput(fmt.Sprintf("%d × %d", rows, cols), dtype, cols, w.RawMatrix().Data)
}

// The loss of truncation is the sum of the squared singular values that go (Eckart and Young), to a thousandth, and gonum knows those.
func TestSVDLoss(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{60, 60}, {40, 130}, {130, 40}, {1, 20}, {20, 1}} {
		in := matrix("F32", size[0], size[1])
		var s mat.SVD
		if !s.Factorize(mat.NewDense(size[0], size[1], in.Weights), mat.SVDNone) {
			t.Fatal("no singular values")
		}
		values := s.Values(nil)
		for _, rank := range []int{1, 5, 17, 39} {
			if rank > len(values) {
				continue
			}
			least := 0.0
			for _, v := range values[rank:] {
				least += v * v
			}
			_, lost := encode(t, svd(t, byRank(int64(rank))), in)
			// Factors in float32 are 2^-24 away from what they should be.
			if floor := 1e-11 * values[0] * values[0]; lost > least*1.001+floor || lost < least*0.999-floor {
				t.Errorf("%s, rank %d: loss %g, the least is %g", in.Name, rank, lost, least)
			}
		}
	}
}

// At full rank every weight comes back.
func TestSVDFullRankIsTheIdentity(t *testing.T) {
	t.Parallel()
	for _, dtype := range []string{"BF16", "F16", "F32"} {
		for _, size := range [][2]int{{30, 30}, {20, 50}, {50, 20}} {
			in := matrix(dtype, size[0], size[1])
			got, lost := encode(t, svd(t, byRank(int64(min(size[0], size[1])))), in)
			for i, v := range got {
				if v != in.Weights[i] {
					t.Fatalf("%s %s: weight %d is %v and not %v", dtype, in.Name, i, v, in.Weights[i])
				}
			}
			if lost != 0 {
				t.Errorf("%s %s: loss %g", dtype, in.Name, lost)
			}
		}
	}
}

// By energy the loss is within what may go, and more than a step of the rank less would lose.
func TestSVDEnergy(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{60, 90}, {90, 60}, {130, 130}} {
		in := matrix("F32", size[0], size[1])
		var s mat.SVD
		if !s.Factorize(mat.NewDense(size[0], size[1], in.Weights), mat.SVDNone) {
			t.Fatal("no singular values")
		}
		var total float64
		for _, v := range s.Values(nil) {
			total += v * v
		}
		for _, part := range []float64{0.5, 0.9, 0.99, 1} {
			_, lost := encode(t, byEnergy(t, part), in)
			if lost > (1-part)*total+1e-9*total {
				t.Errorf("%s, %g of the energy: %g of %g is lost", in.Name, part, lost, total)
			}
			least, rank := 0.0, len(s.Values(nil)) // the rank that a truncation of this loss has
			for rank > 0 && least+s.Values(nil)[rank-1]*s.Values(nil)[rank-1] <= lost*1.001+1e-9*total {
				rank--
				least += s.Values(nil)[rank] * s.Values(nil)[rank]
			}
			step := max(min(size[0], size[1])/64, 1)
			less := 0.0
			for _, v := range s.Values(nil)[max(rank-step, 0):] {
				less += v * v
			}
			if rank > step && less*1.002 < (1-part)*total*0.999 {
				t.Errorf("%s, %g of the energy: rank %d is more than it takes", in.Name, part, rank)
			}
		}
	}
	if _, err := byEnergy(t, 0.9).Then(rtn(t, 8)); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "by=ratio") {
		t.Errorf("factors by energy: %v", err)
	}
}

// A correction leaves no more error than there was, and the least that its rank can.
func TestLoRCLoss(t *testing.T) {
	t.Parallel()
	in := matrix("F32", 48, 96)
	for _, bits := range []int{2, 4} {
		plain, before := encode(t, rtn(t, bits), in)
		e := mat.NewDense(48, 96, nil)
		for i, v := range plain {
			e.RawMatrix().Data[i] = in.Weights[i] - v
		}
		var s mat.SVD
		if !s.Factorize(e, mat.SVDNone) {
			t.Fatal("no singular values")
		}
		last := before
		for _, rank := range []int64{1, 4, 16, 48} {
			_, lost := encode(t, then(t, lorc(t, rank), rtn(t, bits)), in)
			least := 0.0
			for _, v := range s.Values(nil)[rank:] {
				least += v * v
			}
			if lost > least*1.002+1e-9*before || lost > last {
				t.Errorf("%d bits, rank %d: loss %g, the least is %g, that of the rank before %g", bits, rank, lost, least, last)
			}
			last = lost
		}
	}
}

// A sketch loses no less than the best of its rank, and more bits for its factors never cost much.
func TestLPLRLoss(t *testing.T) {
	t.Parallel()
	in := matrix("F32", 80, 64)
	_, best := encode(t, svd(t, byRank(16)), in)
	_, lost := encode(t, lplr(t, byRank(16)), in)
	if lost < best*0.999 || lost > 6*best {
		t.Errorf("a sketch loses %g, truncation %g", lost, best)
	}
	_, coarse8 := encode(t, then(t, lplr(t, byRank(16)), rtn(t, 8)), in)
	_, coarse4 := encode(t, then(t, lplr(t, byRank(16)), rtn(t, 4)), in)
	if coarse8 < lost*0.99 || coarse4 < coarse8 || coarse4 > 100*lost {
		t.Errorf("losses: floats %g, 8 bits %g, 4 bits %g", lost, coarse8, coarse4)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	l := compress.Linear{Name: "a.b", Rows: 24, Cols: 32, DType: "BF16"}
	if _, err := svd(t, byRank(25)).Layout(l); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "full rank is 24") || !strings.Contains(err.Error(), "a.b") {
		t.Errorf("rank above full: %v", err)
	}
	if _, err := lorc(t, 4).Layout(l); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "then") {
		t.Errorf("nothing to compensate: %v", err)
	}
	if _, err := svd(t, byRank(2)).Then(svd(t, byRank(1))); !errors.Is(err, compress.ErrInvalid) {
		t.Errorf("factors of factors: %v", err)
	}
	for _, r := range []lowrank.Rank{{}, {By: "rank"}, {By: "ratio", Ratio: 1}, {By: "ratio", Ratio: math.NaN()}, {By: "rank", Rank: 3, Ratio: 0.5}} {
		if _, err := lowrank.NewSVD(lowrank.SVDParams{Rank: r}); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := then(t, lorc(t, 25), rtn(t, 4)).Layout(l); !errors.Is(err, compress.ErrInvalid) || strings.Contains(err.Error(), "by=") {
		t.Errorf("lorc has no parameter by: %v", err)
	}
	for _, dtype := range []string{"BF16", "F32"} {
		huge := make([]float64, 24*32)
		for i := range huge {
			huge[i] = 1e37 * float64(i%7)
		}
		huge[5*32+3] = 3e38
		in := methodtest.NewInput("huge", dtype, 32, huge)
		w, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			t.Fatal(err)
		}
		err = compress.Encode(t.Context(), lplr(t, byRank(8)), w, compress.Options{}, func(*compress.Encoded) error { return nil })
		if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "3e+38") || strings.Contains(err.Error(), "repair") {
			t.Errorf("%s: a sketch beyond float32: %v", dtype, err)
		}
	}
	grouped, err := quantize.NewRTN(quantize.RTNParams{Bits: 4, Symmetric: true, Strategy: compress.StrategyGroup, Group: 32})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := then(t, svd(t, byRank(10)), grouped).Layout(l); !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "left factor") {
		t.Errorf("groups that do not divide the rank: %v", err)
	}
}
