package tensor

import (
	"fmt"
	"math"
)

// RMSNorm writes x[i]/√(mean of squares + eps)·weight[i] to dst, which may be x, for
// every row of x (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019,
// equation 4). The squares are summed as by [Kernels.Dot], the reciprocal of the
// root is computed in float64 and rounded to float32 once, and both products are
// rounded. dst and x are rows × len(weight), row-major.
func (k *Kernels) RMSNorm(dst, x, weight []float32, eps float64) {
	n := len(weight)
	if len(dst) != len(x) || n == 0 || len(x)%n != 0 {
		panic(fmt.Sprintf("tensor: RMSNorm of %d elements to %d by %d weights", len(x), len(dst), n))
	}
	for ; len(x) > 0; x, dst = x[n:], dst[n:] {
		row, out := x[:n], dst[:n]
		mean := float64(k.Dot(row, row)) / float64(n)
		inverse := float32(1 / math.Sqrt(mean+eps))
		for i, v := range row {
			out[i] = float32(v*inverse) * weight[i]
		}
	}
}

// Rotate turns the pairs (x[i], x[i+d/2]) of a head of d elements by angles whose
// cosines and sines are given, d/2 each (Su et al., "RoFormer", 2021, equation 34, in the
// order of elements that Llama's checkpoints have). No step is fused.
func (k *Kernels) Rotate(x, cos, sin []float32) {
	half := len(cos)
	checkVectors("Rotate", len(x), 2*half)
	checkVectors("Rotate", half, len(sin))
	for i, c := range cos {
		a, b, s := x[i], x[half+i], sin[i]
		x[i] = float32(a*c) - float32(b*s)
		x[half+i] = float32(b*c) + float32(a*s)
	}
}

// Add replaces every y[i] by y[i] + x[i].
func (k *Kernels) Add(y, x []float32) {
	checkVectors("Add", len(x), len(y))
	for i, v := range x {
		y[i] += v
	}
}

// Finite returns the index of the first element that is not a number or infinite,
// -1 if there is none.
func Finite(x []float32) int {
	const exponent = 0xff << 23
	for i, v := range x {
		if math.Float32bits(v)&exponent == exponent {
			return i
		}
	}
	return -1
}
