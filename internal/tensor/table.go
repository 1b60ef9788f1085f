package tensor

import (
	"fmt"
	"math"
)

// Table4 is a table of 16 numbers from -1 to 1, places in which stand for weights.
type Table4 struct {
	Values [16]float32 // by code
	Bounds [15]float32 // ascending: between the values in their order
	Codes  [16]uint8   // of the value between Bounds[i-1] and Bounds[i], the upper one included

	lookups tableLookups
}

// NewTable4 makes a table of values by code, with the codes that put them in order. A bound is half of the float32 sum of two neighbours.
func NewTable4(values [16]float32, codes [16]uint8) *Table4 {
	t := &Table4{Values: values, Codes: codes}
	for i := range t.Bounds {
		t.Bounds[i] = (values[codes[i]] + values[codes[i+1]]) / 2
	}
	t.lookups.fill(t)
	return t
}

// MinAbsmax takes the place of smaller magnitudes before they divide, 1e-38 as in bitsandbytes.
const MinAbsmax = float32(1e-38)

// RunsAbsmax writes the largest magnitude of each run of block elements, the last of which may be short. It returns the index of the
// first run that holds a NaN or an infinity, or -1; what follows that run is unspecified.
func (k *Kernels) RunsAbsmax(dst []float32, src []byte, d DType, block int) (badRun int) {
	n := len(src) / d.Size()
	if block < 1 || len(dst) < (n+block-1)/block {
		panic(fmt.Sprintf("tensor: magnitudes of %d elements in runs of %d: room for %d", n, block, len(dst)))
	}
	full := 0
	if block%32 == 0 && k.set() != scalar && (d == BF16 || d == F16 || d == F32) {
		full = n / block
		if bad := k.runsAbsmaxVector(dst[:full], src, d, block); bad >= 0 {
			return bad
		}
	}
	var x [256]float32
	for run := full; run*block < n; run++ {
		var bits uint32 // magnitudes order like their bits, with NaN and infinity on top
		for i, end := run*block, min((run+1)*block, n); i < end; i += len(x) {
			m := min(len(x), end-i)
			ToFloat32(x[:m], src[i*d.Size():], d)
			for _, v := range x[:m] {
				bits = max(bits, math.Float32bits(v)&^(1<<31))
			}
		}
		if bits >= 0x7f800000 {
			return run
		}
		dst[run] = math.Float32frombits(bits)
	}
	return -1
}

// TablePanel is how many bytes of weights a call of RunsAbsmax and then one of EncodeTable best have: they stay in a core's caches between
// the two, while the next ones are fetched. Half or twice as many take a tenth longer.
const TablePanel = 64 << 10

// maxAhead bounds the distance of the prefetch in bytes.
const maxAhead = 64 << 10

// TableResult receives what EncodeTable makes.
type TableResult struct {
	Codes        []byte    // two codes a byte, the first in the high half; behind an odd last one stands the code of 0
	Error, Power []float64 // of each row: Σ(w - ŵ)², Σw²
}

// EncodeTable encodes rows × cols finite elements of a float type, row-major, which are one sequence cut into runs of block, an even
// number. Run i has the largest magnitude absmax[i] and is decoded with scale[i]:
//
//	y    = float32(x · float32(1/max(absmax, MinAbsmax))); in a short last run float32(x / max(absmax, MinAbsmax))
//	code = t.Codes[number of bounds below y]
//	e    = fma(-t.Values[code], scale, x)
//
// so a weight in the middle between two values gets the lower. The sums of a row have 16 float32 lanes over all of its columns, lane l
// taking columns 2l, 2l+1, 2l+32, 2l+33, ... by fma(e, e, acc), added as a tree of distance 8, 4, 2, 1. All kernels give the same bits.
func (k *Kernels) EncodeTable(r *TableResult, src []byte, d DType, rows, cols, block int, absmax, scale []float32, t *Table4) {
	n := rows * cols
	runs := 0
	if block > 0 {
		runs = (n + block - 1) / block
	}
	if rows < 0 || cols < 1 || rows > maxElements/cols || block < 2 || block%2 != 0 || len(src) < n*d.Size() || len(r.Codes) < (n+1)/2 ||
		len(r.Error) < rows || len(r.Power) < rows || len(absmax) < runs || len(scale) < runs {
		panic(fmt.Sprintf("tensor: encode %d × %d in runs of %d: %d source bytes, room for %d codes, %d and %d sums, %d and %d scales",
			rows, cols, block, len(src), len(r.Codes), len(r.Error), len(r.Power), len(absmax), len(scale)))
	}
	if cols%block != 0 || !k.servesTable(d, block) {
		for row := range rows {
			encodeTableRow(r, src, d, row, cols, block, n, absmax, scale, t)
		}
		return
	}
	b := newTableBatch(t)
	ahead := min(n*d.Size(), maxAhead) // what the caller comes with next
	for row := range rows {
		at, runs := row*cols, cols/block
		b.row(k, r, src[at*d.Size():][:cols*d.Size()], row, cols, block, ahead, absmax[row*runs:][:runs], scale[row*runs:][:runs])
	}
}

// encodeTableRow is the plain kernel and the oracle of the vector ones.
func encodeTableRow(r *TableResult, src []byte, d DType, row, cols, block, n int, absmax, scale []float32, t *Table4) {
	var e2, p2 [lanes]float32
	var x [256]float32
	zero := t.Code(0)
	for col := 0; col < cols; {
		at := row*cols + col
		run := at / block
		end := min((run+1)*block, (row+1)*cols, at+len(x))
		m := end - at
		ToFloat32(x[:m], src[at*d.Size():], d)
		top := max(absmax[run], MinAbsmax)
		inverse, short := 1/top, (run+1)*block > n
		for i, v := range x[:m] {
			y := float32(v * inverse)
			if short {
				y = v / top
			}
			c := t.Code(y)
			if j := at + i; j%2 == 0 {
				r.Codes[j/2] = c<<4 | zero
			} else {
				r.Codes[j/2] = r.Codes[j/2]&0xf0 | c
			}
			lane := (col + i) / 2 % lanes
			addSquares(&e2[lane], &p2[lane], v, t.Values[c], scale[run])
		}
		col += m
	}
	r.Error[row], r.Power[row] = float64(addLanes(&e2)), float64(addLanes(&p2))
}

// Code is the code of a number: its value is the nearest, the lower of two that are as near.
func (t *Table4) Code(y float32) uint8 {
	i := 0
	for _, step := range [...]int{8, 4, 2, 1} {
		if y > t.Bounds[i+step-1] {
			i += step
		}
	}
	return t.Codes[i]
}
