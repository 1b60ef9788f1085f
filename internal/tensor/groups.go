package tensor

import (
	"fmt"
	"math"
)

// GroupResult receives what the group encoders make of a panel of rows. The
// caller makes the slices long enough; their bytes beyond the panel stay
// untouched. Error and Power may be nil.
type GroupResult struct {
	// Codes holds rows × PackedRowBytes(cols, bits): offset binary
	// u = q + 2^(bits-1), lowest bit first.
	Codes []byte
	// Scales holds rows × cols/group scales in the stored type, little-endian.
	Scales []byte
	// Zeros holds rows × cols/group zero points, one offset-binary byte each.
	// Only EncodeGroupsAsymmetric writes it.
	Zeros []byte
	// Error and Power hold for each row the sum of (w - w^)² and of w².
	Error, Power []float64

	bytes []byte // codes of a batch before packing, for widths no vector code packs
}

// EncodeGroups quantizes rows × cols weights, row-major in type d (F32, F16 or
// BF16), to symmetric integers that share a scale in each run of group columns.
// It returns the index of the first row that holds a NaN or an infinity, whose
// outputs and all later ones are then unspecified, or -1.
//
// The numbers (compressed-tensors rules), q in [qmin, qmax] = [-2^(bits-1), 2^(bits-1)-1]:
//
//	scale = stored(absmax / ((2^bits-1)/2)), two roundings, to float32 and to the stored type;
//	        a group of zeros takes the stored type's epsilon (2^-7 BF16, 2^-10 F16, 2^-23 F32),
//	        a scale that rounds to zero its smallest subnormal, one that overflows its largest finite value
//	q     = round(clamp(float32(x/scale), qmin, qmax)), ties to even
//	e     = fma(-q, scale, x)
//
// The error sum of a group has 16 float32 lanes: lane l takes elements l, l+16,
// ... by acc = fma(e, e, acc); lanes are added as a tree of distance 8, 4, 2, 1,
// and the float32 sums of the groups go into the row's float64 in order. Power
// is summed alike over x. All kernels and builds give the same bits.
//
// It panics on arguments no caller can mean: a group that does not divide cols,
// a result too small, a type that is not a float of 16 or 32 bits.
func (k *Kernels) EncodeGroups(r *GroupResult, src []byte, d DType, rows, cols, group, bits int, scale DType) (badRow int) {
	r.check(src, d, rows, cols, group, bits, scale, false)
	if rows == 0 || cols == 0 {
		clearSums(r, rows)
		return -1
	}
	if k.serves(group, bits) {
		return k.encodeVector(r, src, d, rows, cols, group, bits, scale)
	}
	return encodeGroups(r, src, d, rows, cols, group, bits, scale)
}

// EncodeGroupsAsymmetric is [Kernels.EncodeGroups] with a zero point in each
// group: w^ = (q - zp) * scale. With min and max taken over the group and 0:
//
//	scale = stored(float32(max-min) / (2^bits-1)), replaced as in EncodeGroups
//	zp    = round(clamp(qmin - float32(min/scale), qmin, qmax)), ties to even
//	q     = round(clamp(float32(x/scale) + zp, qmin, qmax)), every step rounded to float32
//	e     = fma(-(q-zp), scale, x)
//
// Zeros gets zp - qmin.
func (k *Kernels) EncodeGroupsAsymmetric(r *GroupResult, src []byte, d DType, rows, cols, group, bits int, scale DType) (badRow int) {
	r.check(src, d, rows, cols, group, bits, scale, true)
	if rows == 0 || cols == 0 {
		clearSums(r, rows)
		return -1
	}
	return encodeGroupsAsymmetric(r, src, d, rows, cols, group, bits, scale)
}

func clearSums(r *GroupResult, rows int) {
	if r.Error != nil {
		clear(r.Error[:rows])
	}
	if r.Power != nil {
		clear(r.Power[:rows])
	}
}

// check panics unless every slice holds its part of the panel: the vector code
// has no bounds checks of its own.
func (r *GroupResult) check(src []byte, d DType, rows, cols, group, bits int, scale DType, zeros bool) {
	checkBits(bits)
	checkStored("encode", d)
	checkStored("store scales as", scale)
	checkShape(rows, cols, group)
	groups := 0
	if cols > 0 {
		groups = rows * (cols / group)
	}
	need := func(what string, have, want int) {
		if have < want {
			panic(fmt.Sprintf("tensor: encode %d × %d in groups of %d: %s holds %d, want %d", rows, cols, group, what, have, want))
		}
	}
	need("source bytes", len(src), rows*cols*d.Size())
	need("codes", len(r.Codes), rows*PackedRowBytes(cols, bits))
	need("scales", len(r.Scales), groups*scale.Size())
	if zeros {
		need("zeros", len(r.Zeros), groups)
	}
	if r.Error != nil {
		need("error", len(r.Error), rows)
	}
	if r.Power != nil {
		need("power", len(r.Power), rows)
	}
}

func checkStored(what string, d DType) {
	if d != F32 && d != F16 && d != BF16 {
		panic(fmt.Sprintf("tensor: %s %v: want F32, F16 or BF16", what, d))
	}
}

// maxElements keeps every byte count of a panel inside an int.
const maxElements = math.MaxInt / 16

func checkShape(rows, cols, group int) {
	switch {
	case rows < 0 || cols < 0 || group < 1:
	case cols > 0 && (cols%group != 0 || rows > maxElements/cols):
	default:
		return
	}
	panic(fmt.Sprintf("tensor: shape %d × %d in groups of %d: want rows and cols that fit in memory and a group that divides cols", rows, cols, group))
}
