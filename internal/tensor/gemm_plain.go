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
	return &tiles[float32]{rows: plainRows, cols: plainCols, mc: 64, kc: 256, nc: 512, kernel: plainTile32}
}

func plainTiles64() *tiles[float64] {
	return &tiles[float64]{rows: plainRows, cols: plainCols, mc: 64, kc: 256, nc: 512, kernel: plainTile64}
}

func plainTile32(k int, a *float32, aRow, aCol int, b, c *float32, ldc int, load bool) {
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
			x, y := float64(row[p*aCol]), (*[plainCols]float32)(bs[p*plainCols:])
			for j := range plainCols {
				// FMA32, by hand because it is too large to be inlined.
				sum := x*float64(y[j]) + float64(s[j])
				if fmaUnsafe(sum) {
					s[j] = fma32Odd(row[p*aCol], y[j], s[j])
				} else {
					s[j] = float32(sum)
				}
			}
		}
		copy(to, s[:])
	}
}

func plainTile64(k int, a *float64, aRow, aCol int, b, c *float64, ldc int, load bool) {
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
			x, y := row[p*aCol], (*[plainCols]float64)(bs[p*plainCols:])
			for j := range plainCols {
				s[j] = math.FMA(x, y[j], s[j])
			}
		}
		copy(to, s[:])
	}
}
