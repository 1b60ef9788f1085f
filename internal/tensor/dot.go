package tensor

import "fmt"

// lanes32 and lanes64 are the numbers of sums of a [Kernels.Dot]: 256 bytes of
// them, which is four registers of AVX-512.
const (
	lanes32 = 64
	lanes64 = 32
)

// Dot returns the sum of products of two vectors of one length. Lane l of 64 sums
// the elements l, l+64, ... in order, by fused multiply-adds from zero, the vectors
// being extended by zeros to whole rows of lanes; then, as long as there are two
// lanes, each of the lower half adds that of the upper half that is half their number
// away. Every kernel does exactly this.
func (k *Kernels) Dot(x, y []float32) float32 {
	checkVectors("Dot", len(x), len(y))
	return dot32(k, x, y)
}

// Dot64 is [Kernels.Dot] of float64, in 32 lanes.
func (k *Kernels) Dot64(x, y []float64) float64 {
	checkVectors("Dot64", len(x), len(y))
	return dot64(k, x, y)
}

// AXPY replaces every y[i] by the fused alpha*x[i] + y[i].
func (k *Kernels) AXPY(alpha float32, x, y []float32) {
	checkVectors("AXPY", len(x), len(y))
	axpy32(k, alpha, x, y)
}

// AXPY64 is [Kernels.AXPY] of float64.
func (k *Kernels) AXPY64(alpha float64, x, y []float64) {
	checkVectors("AXPY64", len(x), len(y))
	axpy64(k, alpha, x, y)
}

func checkVectors(op string, x, y int) {
	if x != y {
		panic(fmt.Sprintf("tensor: %s: x has %d elements and y has %d", op, x, y))
	}
}

// plainDot computes Dot in len(sums) lanes, which hold zeros.
func plainDot[T float](fma func(x, y, z T) T, sums, x, y []T) T {
	n := len(sums)
	for ; len(x) >= n; x, y = x[n:], y[n:] {
		for l := range sums {
			sums[l] = fma(x[l], y[l], sums[l])
		}
	}
	if len(x) > 0 {
		for l := range sums {
			if l < len(x) {
				sums[l] = fma(x[l], y[l], sums[l])
			} else {
				sums[l] += 0 // which a negative zero notices
			}
		}
	}
	for n /= 2; n > 0; n /= 2 {
		for l := range n {
			sums[l] += sums[n+l]
		}
	}
	return sums[0]
}

func plainAXPY[T float](fma func(x, y, z T) T, alpha T, x, y []T) {
	for i := range y {
		y[i] = fma(alpha, x[i], y[i])
	}
}
