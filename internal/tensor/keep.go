package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// KeepResult receives what [Kernels.KeepLargest] makes of a panel of rows. The caller makes the slices long enough.
type KeepResult struct {
	// Mask holds rows × ceil(cols/8): bit c%8 of byte c/8 is 1 where column c is kept, 0 beyond the columns.
	Mask []byte
	// Kept holds rows × cols/m·n weights in the source's type: those that are kept, in the order of the columns.
	Kept []byte
	// Error and Power hold for each row the sum of w² over what is not kept, and over all.
	Error, Power []float64
}

// maxM bounds the columns among which some are kept.
const maxM = 64

// KeepLargest keeps the n of every m columns that have the largest magnitudes, of rows × cols weights, row-major in type d (F32,
// F16 or BF16). Of equal magnitudes the later ones are kept. It returns the index of the first row that holds a NaN or an
// infinity, whose outputs and all later ones are then unspecified, or -1.
//
// The sums are those of [SumSquares]. All kernels and builds give the same bits.
//
// It panics on arguments no caller can mean: m outside of 1 to 64 or not a divisor of cols, n outside of 1 to m, a result too small, a
// type that is not a float of 16 or 32 bits.
func (k *Kernels) KeepLargest(r *KeepResult, src []byte, d DType, rows, cols, n, m int) (badRow int) {
	checkStored("keep", d)
	if m < 1 || m > maxM || n < 1 || n > m {
		panic(fmt.Sprintf("tensor: keep %d of %d columns: want from 1 of 1 to 64 of 64", n, m))
	}
	checkShape(rows, cols, m)
	need := func(what string, have, want int) {
		if have < want {
			panic(fmt.Sprintf("tensor: keep %d of %d columns of %d × %d: %s holds %d, want %d", n, m, rows, cols, what, have, want))
		}
	}
	need("source bytes", len(src), rows*cols*d.Size())
	need("mask", len(r.Mask), rows*((cols+7)/8))
	need("kept", len(r.Kept), rows*(cols/m)*n*d.Size())
	need("error", len(r.Error), rows)
	need("power", len(r.Power), rows)
	per, in, out := (cols+7)/8, cols*d.Size(), cols/m*n*d.Size()
	var row keepRow
	for i := range rows {
		row = keepRow{mask: r.Mask[i*per:][:per], kept: r.Kept[i*out : (i+1)*out : rows*out], src: src[i*in:][:in], d: d, n: n, m: m}
		finite, served := k.keepVector(&row)
		if !served {
			finite = row.plain()
		}
		if !finite {
			return i
		}
		r.Error[i], r.Power[i] = row.error, row.power
	}
	return -1
}

// keepRow is one row of KeepLargest, or what a kernel leaves of it.
type keepRow struct {
	mask, kept, src []byte
	d               DType
	n, m            int
	error, power    float64
}

// plain keeps the largest of a row in plain Go, false if it is not finite. It is the definition.
func (r *keepRow) plain() bool {
	size := r.d.Size()
	cols := len(r.src) / size
	var x [squareRun]float32
	var keys [maxM]uint32
	clear(r.mask)
	to := 0
	for g := 0; g < cols; g += r.m {
		ToFloat32(x[:r.m], r.src[g*size:], r.d)
		for i, v := range x[:r.m] {
			keys[i] = math.Float32bits(v) &^ (1 << 31)
			if keys[i] >= 0x7f800000 {
				return false
			}
		}
		for i := range r.m {
			c := g + i
			kept := uint32(outranked(keys[:r.m], i)-r.n) >> 31
			r.mask[c/8] |= byte(kept) << (c % 8)
			if to < len(r.kept) { // what is not kept is overwritten by what is
				if size == 2 {
					binary.LittleEndian.PutUint16(r.kept[to:], binary.LittleEndian.Uint16(r.src[2*c:]))
				} else {
					binary.LittleEndian.PutUint32(r.kept[to:], binary.LittleEndian.Uint32(r.src[4*c:]))
				}
			}
			to += size * int(kept)
		}
	}
	for c := 0; c < cols; c += len(x) {
		n := min(len(x), cols-c)
		ToFloat32(x[:n], r.src[c*size:], r.d)
		r.power += float64(sumSquares(x[:n]))
		for i := range n {
			if r.mask[(c+i)/8]>>((c+i)%8)&1 == 1 {
				x[i] = 0
			}
		}
		r.error += float64(sumSquares(x[:n]))
	}
	return true
}

// outranked counts the keys that go before key i: larger ones, and of equal ones those behind it. They are below 2^31, so that the sign of
// a difference compares, without a branch that nobody could foresee.
func outranked(keys []uint32, i int) int {
	n, own := uint32(0), keys[i]
	for _, k := range keys[:i] {
		n += (own - k) >> 31
	}
	for _, k := range keys[i+1:] {
		n += (own - k - 1) >> 31
	}
	return int(n)
}

// squareRun is how many squares are added in float32 before they go into a float64.
const squareRun = 256

// SumSquares adds the squares of x: runs of 256 in 16 lanes of float32, element i in lane i%16 by acc = acc + float32(x·x), lanes as
// a tree of distance 8, 4, 2, 1, and the runs in float64, in order. Squares beyond float32 give +Inf.
func SumSquares(x []float32) float64 {
	var s float64
	for len(x) > 0 {
		n := min(len(x), squareRun)
		s += float64(sumSquares(x[:n]))
		x = x[n:]
	}
	return s
}

// sumSquares is SumSquares of one run.
func sumSquares(x []float32) float32 {
	var acc [lanes]float32
	for ; len(x) >= lanes; x = x[lanes:] {
		for i, v := range x[:lanes] {
			acc[i] += float32(v * v)
		}
	}
	for i, v := range x {
		acc[i] += float32(v * v)
	}
	return addLanes(&acc)
}
