package lowrank_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
)

// BenchmarkSVD factors a projection of an 8B model, 4096 × 4096, to rank 1024. LAPACK's gesdd on the same machine is what to hold it against, see
// docs/methods/svd.md. loss is Σ(w−ŵ)² over Σw².
func BenchmarkSVD(b *testing.B) {
	const n, rank = 4096, 1024
	rng := rand.New(rand.NewPCG(1, 2))
	w := make([]float64, n*n)
	for i := range w {
		w[i] = rng.NormFloat64() / 64
	}
	// A few strong directions over noise, as trained weights have.
	for d := range 32 {
		u, v := make([]float64, n), make([]float64, n)
		for i := range n {
			u[i], v[i] = rng.NormFloat64(), rng.NormFloat64()
		}
		s := 0.02 / math.Sqrt(float64(1+d)) / 8
		for i := range n {
			for j := range n {
				w[i*n+j] += s * u[i] * v[j]
			}
		}
	}
	in := methodtest.NewInput("bench", "F32", n, w)
	weights, err := compress.NewWeights(in.Linear, in.Data)
	if err != nil {
		b.Fatal(err)
	}
	m := svd(b, byRank(rank))
	b.SetBytes(int64(len(in.Data)))
	for b.Loop() {
		var lost, power float64
		err := compress.Encode(b.Context(), m, weights, compress.Options{}, func(e *compress.Encoded) error {
			lost, power = compress.Sum(lost, e.Error), compress.Sum(power, e.Power)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(lost/power, "loss")
	}
}
