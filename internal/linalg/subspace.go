package linalg

import (
	"context"
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// Subspace is the result of Dominant.
type Subspace struct {
	Basis []float64 // n × rank, row-major, orthonormal columns
	// Energy is tr(BasisᵀG·Basis), the part of Total = tr(G) that the subspace holds.
	Energy, Total float64
	// Excess estimates how far the loss Total − Energy is above that of the best subspace, as a part of it.
	Excess float64
	// Products are the multiplications by G that it took.
	Products int
}

const (
	// enough is the estimated excess at which Dominant stops. The estimate is rough, and what is promised is 1e-3.
	enough = 4e-4
	// maxProducts bounds the work where nothing converges.
	maxProducts = 400
	// maxDegree and maxGrowth bound a filter: what it amplifies by more than that drowns what it amplifies less in rounding.
	maxDegree = 10
	maxGrowth = 1e12
	// nothing is the part of the energy that counts as no loss at all.
	nothing = 1e-12
)

// Dominant finds the rank-dimensional subspace that holds nearly the most of the energy of the symmetric positive semidefinite g, n × n,
// row-major, full: the span of its eigenvectors with the largest eigenvalues, up to a loss that is a small part above the least.
//
// It iterates a block of rank vectors with Chebyshev filters of degree adapted to the spectrum (Zhou, Saad et al. 2006): what lies
// below the smallest Ritz value, all of it unwanted, is damped, and the rest grows the faster the larger it is. The subspace need not come apart into
// eigenvectors for that, so no eigenvalue problem is solved: that value is bisected by trial factorisations. All but a few per cent of the work
// are products of n × n by n × rank. seed decides the start. beat is
// called between products, for whoever watches that something goes on.
func Dominant(ctx context.Context, k *tensor.Kernels, threads, n, rank int, g []float64, seed uint64, beat func()) (*Subspace, error) {
	s := &Subspace{}
	for i := range n {
		s.Total += g[i*n+i]
	}
	q, y := make([]float64, n*rank), make([]float64, n*rank)
	if rank >= n {
		for i := range n {
			q[i*rank+i] = 1
		}
		s.Basis, s.Energy = q, s.Total
		return s, nil
	}
	random := NewNoise(seed)
	for i := range y {
		y[i] = random.Uniform()
	}
	multiply := func(dst, src []float64) error {
		s.Products++
		beat()
		k.GEMM64(threads, false, false, n, rank, n, g, n, src, rank, dst, rank, false)
		return ctx.Err()
	}
	if err := multiply(q, y); err != nil {
		return nil, err
	}
	Orthonormal(k, threads, n, rank, q, y)
	q, y = y, q
	h, trial := make([]float64, rank*rank), make([]float64, rank*rank)
	var losses []float64
	for {
		if err := multiply(y, q); err != nil {
			return nil, err
		}
		k.GEMM64(threads, true, false, rank, rank, n, q, rank, y, rank, h, rank, false)
		s.Energy = 0
		for i := range rank {
			s.Energy += h[i*rank+i]
		}
		loss := s.Total - s.Energy
		losses = append(losses, loss)
		s.Excess = excess(losses)
		if loss <= nothing*s.Total || s.Excess <= enough || s.Products >= maxProducts {
			s.Basis = q
			return s, nil
		}
		beat()
		top := largest(h, rank)
		low := smallest(k, threads, rank, h, trial, top, beat)
		half := low / 2
		// q is T₀, y becomes T₁ = (G − half)/half·q; each step T₂ = 2·(G − half)/half·T₁ − T₀ takes T₀'s place.
		for i, v := range q {
			y[i] = (y[i] - float64(half*v)) / half
		}
		for range degree(top, low) - 1 {
			for i, v := range q {
				q[i] = (-v - float64(2*y[i])) * (half / 2)
			}
			k.GEMM64(threads, false, false, n, rank, n, g, n, y, rank, q, rank, true)
			s.Products++
			beat()
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			for i := range q {
				q[i] *= 2 / half
			}
			q, y = y, q
		}
		beat()
		Orthonormal(k, threads, n, rank, y, q)
	}
}

// degree is that of the filter: the largest whose growth of the top keeps digits for the rest.
func degree(top, low float64) int {
	x := 2*top/low - 1
	before, now := 1.0, x
	d := 1
	for d < maxDegree {
		next := 2*x*now - before
		if !(next < maxGrowth) {
			break
		}
		before, now = now, next
		d++
	}
	return d
}

// excess guesses from the losses so far how far the last is above the limit: their differences shrink by a factor a round, from which Aitken's
// rule sums up those to come. The first rounds gain the most, so the factor is taken to be nearer to one than the last two say: its root.
func excess(losses []float64) float64 {
	n := len(losses)
	if n < 4 {
		return math.Inf(1)
	}
	first, second, third := losses[n-3], losses[n-2], losses[n-1]
	gain, before := second-third, first-second
	if gain <= 0 || before <= 0 {
		return 0 // only rounding is left
	}
	if gain >= before {
		return math.Inf(1)
	}
	shrink := math.Sqrt(gain / before)
	return gain * shrink / (1 - shrink) / third
}

// largest estimates the largest eigenvalue of h, n × n, by a few steps of the power method.
func largest(h []float64, n int) float64 {
	x, y := make([]float64, n), make([]float64, n)
	for i := range x {
		x[i] = math.Sqrt(max(h[i*n+i], 0))
	}
	value := 0.0
	for range 12 {
		length := math.Sqrt(dot(x, x))
		if length == 0 {
			break
		}
		for i := range x {
			x[i] /= length
		}
		for i := range y {
			y[i] = dot(h[i*n:(i+1)*n], x)
		}
		value = dot(x, y)
		x, y = y, x
	}
	return value
}

// smallest finds the smallest eigenvalue of h, n × n, from below and to a tenth of itself: h less a multiple of the identity has a Cholesky
// factor as long as that is smaller. It is at least a tiny part of top, so that filters have a range to damp.
func smallest(k *tensor.Kernels, threads, n int, h, trial []float64, top float64, beat func()) float64 {
	least := h[0]
	for i := range n {
		least = min(least, h[i*n+i]) // no eigenvalue is larger than every entry of the diagonal
	}
	floor := top * 1e-11
	definite := func(shift float64) bool {
		beat()
		copy(trial, h)
		for i := range n {
			trial[i*n+i] -= shift
		}
		return k.Cholesky64(threads, n, trial, n) < 0
	}
	if least <= floor || !definite(floor) {
		return floor
	}
	low, high := floor, least
	// Most often it is not far from the least of the diagonal.
	for factor := 2.0; high/factor > low; factor *= factor {
		guess := high / factor
		if definite(guess) {
			low = guess
			break
		}
		high = guess
	}
	for high > 1.1*low {
		if mid := math.Sqrt(low) * math.Sqrt(high); definite(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}
