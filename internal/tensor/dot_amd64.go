//go:build amd64 && !noasm

package tensor

import "math"

// What is less than a block is copied to one that is whole.

func dot32(k *Kernels, x, y []float32) float32 {
	if k.set() == scalar || len(x) == 0 {
		return plainDot(FMA32, make([]float32, lanes32), x, y)
	}
	var room [2][lanes32]float32
	var tail *[2][lanes32]float32
	whole := len(x) &^ (lanes32 - 1)
	if whole < len(x) {
		copy(room[0][:], x[whole:])
		copy(room[1][:], y[whole:])
		tail = &room
	}
	if k.set() == avx512 {
		return dotF32AVX512(&x[0], &y[0], len(x)/lanes32, tail)
	}
	return dotF32AVX2(&x[0], &y[0], len(x)/lanes32, tail)
}

func dot64(k *Kernels, x, y []float64) float64 {
	if k.set() == scalar || len(x) == 0 {
		return plainDot(math.FMA, make([]float64, lanes64), x, y)
	}
	var room [2][lanes64]float64
	var tail *[2][lanes64]float64
	whole := len(x) &^ (lanes64 - 1)
	if whole < len(x) {
		copy(room[0][:], x[whole:])
		copy(room[1][:], y[whole:])
		tail = &room
	}
	if k.set() == avx512 {
		return dotF64AVX512(&x[0], &y[0], len(x)/lanes64, tail)
	}
	return dotF64AVX2(&x[0], &y[0], len(x)/lanes64, tail)
}

func axpy32(k *Kernels, alpha float32, x, y []float32) {
	if k.set() == scalar {
		plainAXPY(FMA32, alpha, x, y)
		return
	}
	kernel := func(x, y *float32, blocks int) {
		if k.set() == avx512 {
			axpyF32AVX512(alpha, x, y, blocks)
		} else {
			axpyF32AVX2(alpha, x, y, blocks)
		}
	}
	whole := len(x) &^ (lanes32 - 1)
	if whole > 0 {
		kernel(&x[0], &y[0], whole/lanes32)
	}
	if whole < len(x) {
		var room [2][lanes32]float32
		copy(room[0][:], x[whole:])
		copy(room[1][:], y[whole:])
		kernel(&room[0][0], &room[1][0], 1)
		copy(y[whole:], room[1][:])
	}
}

func axpy64(k *Kernels, alpha float64, x, y []float64) {
	if k.set() == scalar {
		plainAXPY(math.FMA, alpha, x, y)
		return
	}
	kernel := func(x, y *float64, blocks int) {
		if k.set() == avx512 {
			axpyF64AVX512(alpha, x, y, blocks)
		} else {
			axpyF64AVX2(alpha, x, y, blocks)
		}
	}
	whole := len(x) &^ (lanes64 - 1)
	if whole > 0 {
		kernel(&x[0], &y[0], whole/lanes64)
	}
	if whole < len(x) {
		var room [2][lanes64]float64
		copy(room[0][:], x[whole:])
		copy(room[1][:], y[whole:])
		kernel(&room[0][0], &room[1][0], 1)
		copy(y[whole:], room[1][:])
	}
}
