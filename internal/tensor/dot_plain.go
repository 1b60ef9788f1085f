//go:build !amd64 || noasm

package tensor

import "math"

func dot32(_ *Kernels, x, y []float32) float32 {
	return plainDot(FMA32, make([]float32, lanes32), x, y)
}

func dot64(_ *Kernels, x, y []float64) float64 {
	return plainDot(math.FMA, make([]float64, lanes64), x, y)
}

func axpy32(_ *Kernels, alpha float32, x, y []float32) { plainAXPY(FMA32, alpha, x, y) }

func axpy64(_ *Kernels, alpha float64, x, y []float64) { plainAXPY(math.FMA, alpha, x, y) }
