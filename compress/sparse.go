package compress

import (
	"math/bits"

	"github.com/shardpress/shardpress/internal/tensor"
)

// KindSparse is the kind of Sparse.
const KindSparse = "sparse"

// Components of Sparse.
const (
	ComponentMask   = "mask"
	ComponentValues = "values"
)

// Patterns: what Sparse prunes a share of.
const (
	PatternTensor = "tensor" // the whole matrix
	PatternRow    = "row"    // each row
	PatternNM     = "n:m"    // all but N of every M columns of a row
)

// MaxM bounds the M of N:M. Hardware has 4 and 8, and what is chosen among many columns is chosen by row.
const MaxM = 64

// Sparse is the scheme of pruned weights: a bit for each, and those that are kept as they were.
//
// Its components are
//
//	mask    U8 [rows, ceil(cols/8)]  bit c%8 of byte c/8 is 1 where column c is kept, and 0 beyond the columns
//	values  DType, the kept weights in the order of the columns:
//	        [rows, cols − pruned] by row and [rows, cols/M·N] for N:M, where every row has as many;
//	        [rows·cols − pruned], ragged, by tensor: those of a row begin where the row before it ends
//
// The numbers pruned are those of [PrunedCount]: the size of every component follows from the shape.
type Sparse struct {
	DType    string  `json:"dtype"`              // of the values: F32, F16 or BF16
	Pattern  string  `json:"pattern"`            // what Sparsity is a share of, or PatternNM
	Sparsity float64 `json:"sparsity,omitempty"` // share of the weights that is pruned
	N        int64   `json:"n,omitempty"`        // with PatternNM: so many columns
	M        int64   `json:"m,omitempty"`        // of each run of so many are kept
}

// PrunedCount is how many of n weights a sparsity prunes: floor(sparsity·n), with the product rounded to float64 as everybody's
// programs do it.
func PrunedCount(sparsity float64, n int64) int64 {
	return min(int64(sparsity*float64(n)), n)
}

// Kind implements Scheme.
func (s Sparse) Kind() string { return KindSparse }

// CodeBits implements Scheme: what is kept of a weight is all of it.
func (s Sparse) CodeBits() int { return 8 * s.size() }

// size is that of a value in bytes, 0 for a dtype that is none.
func (s Sparse) size() int {
	switch d, _ := tensor.ParseDType(s.DType); d {
	case tensor.F32, tensor.F16, tensor.BF16:
		return d.Size()
	}
	return 0
}

// Validate implements Scheme.
func (s Sparse) Validate(_, cols int64) error {
	if s.size() == 0 {
		return Invalidf("decode scheme: values are %.40q, not F32, F16 or BF16", s.DType)
	}
	switch s.Pattern {
	case PatternTensor, PatternRow:
		if !(s.Sparsity >= 0 && s.Sparsity <= 1) {
			return Invalidf("decode scheme: sparsity is %v, not from 0 to 1", s.Sparsity)
		}
		if s.N != 0 || s.M != 0 {
			return Invalidf("decode scheme: pattern %s with %d of %d columns", s.Pattern, s.N, s.M)
		}
	case PatternNM:
		if s.N < 1 || s.N > s.M || s.M > MaxM || s.Sparsity != 0 {
			return Invalidf("decode scheme: %d of %d columns and sparsity %v, not N of M from 1 to %d", s.N, s.M, s.Sparsity, MaxM)
		}
		if cols%s.M != 0 {
			return Invalidf("decode scheme: runs of %d columns do not divide %d", s.M, cols)
		}
	default:
		return Invalidf("decode scheme: pattern %.40q is not known", s.Pattern)
	}
	if cols < 1 {
		return Invalidf("decode scheme: %d columns", cols)
	}
	return nil
}

// Components implements Scheme.
func (s Sparse) Components(rows, cols int64) []Component {
	values := Component{Name: ComponentValues, DType: s.DType}
	if s.Pattern == PatternTensor {
		values.Ragged = true
		values.Shape = []int64{rows*cols - PrunedCount(s.Sparsity, rows*cols)}
	} else {
		values.Shape = []int64{rows, s.rowValues(cols)}
	}
	return []Component{{Name: ComponentMask, DType: "U8", Shape: []int64{rows, (cols + 7) / 8}}, values}
}

// rowValues is how many weights of every row are kept, unless the pattern is that of a tensor.
func (s Sparse) rowValues(cols int64) int64 {
	if s.Pattern == PatternNM {
		return cols / s.M * s.N
	}
	return cols - PrunedCount(s.Sparsity, cols)
}

// RaggedBytes implements RaggedScheme.
func (s Sparse) RaggedBytes(i, cols int, e *Encoded) (int64, error) {
	if err := s.Validate(int64(max(e.Rows, 1)), int64(cols)); err != nil {
		return 0, err
	}
	per := (cols + 7) / 8
	if i != 1 || s.Pattern != PatternTensor || len(e.Data) != 2 || e.Rows < 0 || len(e.Data[0]) != e.Rows*per {
		return 0, Invalidf("decode %d rows of %d: component %d is none that a mask of these rows measures", e.Rows, cols, i)
	}
	n := 0
	for row := range e.Rows {
		kept, err := countKept(e.Data[0][row*per:][:per], cols)
		if err != nil {
			return 0, Invalidf("decode row %d: %w", e.Row+int64(row), err)
		}
		n += kept
	}
	return int64(n) * int64(s.size()), nil
}

// countKept counts the columns that the mask of a row keeps.
func countKept(mask []byte, cols int) (int, error) {
	if cols%8 != 0 && mask[len(mask)-1]>>(cols%8) != 0 {
		return 0, Invalidf("its mask keeps columns beyond the %d that there are", cols)
	}
	n := 0
	for _, b := range mask {
		n += bits.OnesCount8(b)
	}
	return n, nil
}

// Decode implements Scheme. It checks that every row, and every run of M columns, keeps as many weights as the scheme says.
func (s Sparse) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	d, err := tensor.ParseDType(s.DType)
	if err != nil {
		return Invalidf("decode scheme: %w", err)
	}
	per, values := (cols+7)/8, e.Data[1]
	for row := range e.Rows {
		mask := e.Data[0][row*per:][:per]
		n, err := countKept(mask, cols)
		if err == nil {
			err = s.checkRow(mask, cols, n)
		}
		if err == nil && n > len(values)/d.Size() {
			err = Invalidf("its mask keeps %d weights, and there are values for %d", n, len(values)/d.Size())
		}
		if err != nil {
			return Invalidf("decode row %d: %w", e.Row+int64(row), err)
		}
		out := dst[row*cols:][:cols]
		// The values go to the end of the row and from there to their columns: none is ever left of its column.
		tensor.ToFloat32(out[cols-n:], values, d)
		values = values[n*d.Size():]
		from := cols - n
		for c := range out {
			if mask[c/8]>>(c%8)&1 == 0 {
				out[c] = 0
				continue
			}
			out[c] = out[from]
			from++
		}
	}
	if len(values) > 0 {
		return Invalidf("decode %d rows of %d: %d bytes of values are left over", e.Rows, cols, len(values))
	}
	return nil
}

// checkRow refuses a mask that keeps another number of weights than the pattern.
func (s Sparse) checkRow(mask []byte, cols, n int) error {
	if s.Pattern == PatternTensor {
		return nil
	}
	if want := int(s.rowValues(int64(cols))); n != want {
		return Invalidf("its mask keeps %d weights, not %d", n, want)
	}
	if s.Pattern != PatternNM {
		return nil
	}
	for c := 0; c < cols; c += int(s.M) {
		kept := 0
		for i := c; i < c+int(s.M); i++ {
			kept += int(mask[i/8] >> (i % 8) & 1)
		}
		if kept != int(s.N) {
			return Invalidf("its mask keeps %d of the %d columns from %d, not %d", kept, s.M, c, s.N)
		}
	}
	return nil
}
