package tensor

import (
	"math"
	"unsafe"
)

// Tiles of the plain code: what the vector code is held against, and what runs
// where there is none.
const (
	plainRows = 4
	plainCols = 4
)

func plainTiles32() *tiles[float32] {
	return &tiles[float32]{rows: plainRows, cols: plainCols, mc: 64, kc: 256, nc: 512, kernel: plainTile32, subtract: plainSub32, solve: plainSolve32, fma: FMA32}
}

func plainTiles64() *tiles[float64] {
	return &tiles[float64]{rows: plainRows, cols: plainCols, mc: 64, kc: 256, nc: 512, kernel: plainTile64, subtract: plainSub64, solve: plainSolve64, fma: math.FMA}
}

func plainTile32(k int, a *float32, aRow, aCol int, b, c *float32, ldc int, load bool) {
	plain32(1, k, a, aRow, aCol, b, c, ldc, load)
}

func plainSub32(k int, a *float32, aRow, aCol int, b, c *float32, ldc int, load bool) {
	plain32(-1, k, a, aRow, aCol, b, c, ldc, load)
}

func plainTile64(k int, a *float64, aRow, aCol int, b, c *float64, ldc int, load bool) {
	plain64(1, k, a, aRow, aCol, b, c, ldc, load)
}

func plainSub64(k int, a *float64, aRow, aCol int, b, c *float64, ldc int, load bool) {
	plain64(-1, k, a, aRow, aCol, b, c, ldc, load)
}

// plain32 computes a tile of C + sign·A·B, sign being 1 or -1.
func plain32(sign float32, k int, a *float32, aRow, aCol int, b, c *float32, ldc int, load bool) {
	as := unsafe.Slice(a, (plainRows-1)*aRow+(k-1)*aCol+1)
	bs := unsafe.Slice(b, k*plainCols)
	for i := range plainRows {
		to := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(c), i*ldc*4)), plainCols)
		var s [plainCols]float32
		if load {
			s = [plainCols]float32(to)
		}
		row := as[i*aRow:]
		for p := range k {
			x, y := sign*row[p*aCol], (*[plainCols]float32)(bs[p*plainCols:])
			for j := range plainCols {
				// FMA32, by hand because it is too large to be inlined.
				sum := float64(x)*float64(y[j]) + float64(s[j])
				if fmaUnsafe(sum) {
					s[j] = fma32Odd(x, y[j], s[j])
				} else {
					s[j] = float32(sum)
				}
			}
		}
		copy(to, s[:])
	}
}

// plain64 computes a tile of C + sign·A·B, sign being 1 or -1.
func plain64(sign float64, k int, a *float64, aRow, aCol int, b, c *float64, ldc int, load bool) {
	as := unsafe.Slice(a, (plainRows-1)*aRow+(k-1)*aCol+1)
	bs := unsafe.Slice(b, k*plainCols)
	for i := range plainRows {
		to := unsafe.Slice((*float64)(unsafe.Add(unsafe.Pointer(c), i*ldc*8)), plainCols)
		var s [plainCols]float64
		if load {
			s = [plainCols]float64(to)
		}
		row := as[i*aRow:]
		for p := range k {
			x, y := sign*row[p*aCol], (*[plainCols]float64)(bs[p*plainCols:])
			for j := range plainCols {
				s[j] = math.FMA(x, y[j], s[j])
			}
		}
		copy(to, s[:])
	}
}

func plainSolve32(l *float32, lRow int, x *float32) { plainSolve(FMA32, l, lRow, x) }

func plainSolve64(l *float64, lRow int, x *float64) { plainSolve(math.FMA, l, lRow, x) }

func plainSolve[T float](fma func(x, y, z T) T, l *T, lRow int, x *T) {
	ls := unsafe.Slice(l, (plainRows-1)*lRow+plainRows)
	xs := unsafe.Slice(x, plainRows*plainCols)
	for i := range plainRows {
		for j := range plainCols {
			s := xs[i*plainCols+j]
			for q := range i {
				s = fma(-ls[i*lRow+q], xs[q*plainCols+j], s)
			}
			xs[i*plainCols+j] = s / ls[i*lRow+i]
		}
	}
}

// plainLoop is FMALoop where there is no vector code: of float64, because a
// fused float32 step is not one operation there.
func plainLoop(turns int) int {
	var x [4]float64
	for range turns {
		for i := range x {
			x[i] = math.FMA(x[i], 0.5, 1)
		}
	}
	if x[0] < 0 { // never: keeps the loop from being left out
		return 0
	}
	return turns * len(x) * 2
}
