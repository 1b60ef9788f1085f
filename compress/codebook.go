package compress

import (
	"encoding/binary"
	"math"
)

// KindCodebook is the kind of Codebook.
const KindCodebook = "codebook"

// Tables of Codebook.
const (
	TableNF4 = "nf4" // quantiles of the normal distribution (Dettmers et al., arXiv 2305.14314, appendix E)
	TableFP4 = "fp4" // a sign, two bits of exponent, one of mantissa
)

// NestedBlock is how many scales share a scale where the scales are codes themselves.
const NestedBlock = 256

// Components of Codebook.
const (
	ComponentAbsmax       = "absmax"
	ComponentTable        = "table"
	ComponentNestedAbsmax = "nested_absmax"
	ComponentNestedTable  = "nested_table"
	ComponentOffset       = "offset"
)

// Codebook is the scheme of 4-bit codes that are places in a table, as the library bitsandbytes stores them. The weights, row after row,
// are one sequence cut into runs of Block, so a run may begin in one row and end in the next; the last one may be short.
// w ≈ table[code] · absmax of the run.
//
// Its components, for n = rows · cols weights and b = ceil(n/Block) runs, are
//
//	codes          U8 [ceil(n/2)], ragged   two codes a byte, the first in the high half; behind an odd last one stands that of 0
//	absmax         F32 [b], ragged; U8 if Nested
//	table          F32 [16], whole
//
// and if Nested, absmax of run i being nested_table[absmax[i]] · nested_absmax[i/256] + offset,
//
//	nested_absmax  F32 [ceil(b/256)], whole
//	nested_table   F32 [256], whole
//	offset         F32 [1], whole
//
// Panels start where a run does.
type Codebook struct {
	Table  string `json:"table"` // the table's name; what it holds is a component
	Block  int64  `json:"block"`
	Nested bool   `json:"nested"`
	DType  string `json:"dtype"` // to which engines decode
}

// Kind implements Scheme.
func (s Codebook) Kind() string { return KindCodebook }

// CodeBits implements Scheme.
func (s Codebook) CodeBits() int { return 4 }

// Validate implements Scheme.
func (s Codebook) Validate(rows, cols int64) error {
	switch {
	case s.Table != TableNF4 && s.Table != TableFP4:
		return Invalidf("decode scheme: table %.40q is not known", s.Table)
	case s.Block < 32 || s.Block > 4096 || s.Block&(s.Block-1) != 0:
		return Invalidf("decode scheme: runs of %d weights, not a power of two from 32 to 4096", s.Block)
	case s.DType != "F32" && s.DType != "F16" && s.DType != "BF16":
		return Invalidf("decode scheme: decodes to %.40q, not F32, F16 or BF16", s.DType)
	case rows < 1 || cols < 1 || rows > math.MaxInt64/8/cols:
		return Invalidf("decode scheme: %d rows of %d columns", rows, cols)
	}
	return nil
}

// Components implements Scheme.
func (s Codebook) Components(rows, cols int64) []Component {
	n := rows * cols
	runs := (n + s.Block - 1) / s.Block
	absmax := "F32"
	if s.Nested {
		absmax = "U8"
	}
	out := []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{(n + 1) / 2}, Ragged: true},
		{Name: ComponentAbsmax, DType: absmax, Shape: []int64{runs}, Ragged: true},
		{Name: ComponentTable, DType: "F32", Shape: []int64{16}, Whole: true},
	}
	if !s.Nested {
		return out
	}
	return append(out,
		Component{Name: ComponentNestedAbsmax, DType: "F32", Shape: []int64{(runs + NestedBlock - 1) / NestedBlock}, Whole: true},
		Component{Name: ComponentNestedTable, DType: "F32", Shape: []int64{256}, Whole: true},
		Component{Name: ComponentOffset, DType: "F32", Shape: []int64{1}, Whole: true})
}

// RowUnit is the number of rows after which a row begins with a run again: where panels may start.
func (s Codebook) RowUnit(cols int64) int64 {
	unit := s.Block
	for unit > 1 && cols%2 == 0 { // Block is a power of two
		unit, cols = unit/2, cols/2
	}
	return unit
}

// RaggedBytes implements RaggedScheme.
func (s Codebook) RaggedBytes(i, cols int, e *Encoded) (int64, error) {
	if e.Rows == 0 {
		return 0, nil
	}
	if err := s.Validate(int64(e.Rows), int64(cols)); err != nil {
		return 0, err
	}
	parts := s.Components(int64(e.Rows), int64(cols))
	if i < 0 || i >= len(parts) || !parts[i].Ragged {
		return 0, Invalidf("decode scheme: component %d is not ragged", i)
	}
	return parts[i].Bytes(), nil
}

// Decode implements Scheme. A weight is the table's entry times absmax, rounded once to float32; a nested absmax is rounded after the product
// and after the sum.
func (s Codebook) Decode(dst []float32, cols int, e *Encoded) error {
	if e.Rows == 0 {
		return s.Validate(1, int64(cols))
	}
	if err := s.checkDecode(dst, cols, e); err != nil {
		return err
	}
	var table [16]float32
	readFloats(table[:], e.Data[2])
	codes, block, n := e.Data[0], int(s.Block), e.Rows*cols
	first := e.Row * int64(cols) / s.Block // run of the matrix that the panel begins with
	for run := 0; run*block < n; run++ {
		absmax, err := s.absmax(e, run, first+int64(run))
		if err != nil {
			return err
		}
		for i := run * block; i < min((run+1)*block, n); i++ {
			c := codes[i/2] >> (4 - 4*(i&1)) & 15
			dst[i] = table[c] * absmax
		}
	}
	return nil
}

// absmax is that of a run of the panel, which is run at of the matrix.
func (s Codebook) absmax(e *Encoded, run int, at int64) (float32, error) {
	if !s.Nested {
		return floatAt(e.Data[1], run), nil
	}
	code := int(e.Data[1][run])
	if at/NestedBlock >= int64(len(e.Data[3])/4) {
		return 0, Invalidf("decode row %d: run %d has no %s among %d", e.Row, at, ComponentNestedAbsmax, len(e.Data[3])/4)
	}
	v := float32(floatAt(e.Data[4], code) * floatAt(e.Data[3], int(at/NestedBlock)))
	return v + floatAt(e.Data[5], 0), nil
}

// checkDecode is CheckDecode for a scheme of which one component, nested_absmax, grows with all rows of the matrix and is whole.
func (s Codebook) checkDecode(dst []float32, cols int, e *Encoded) error {
	if err := s.Validate(int64(e.Rows), int64(cols)); err != nil {
		return err
	}
	if len(dst)/cols < e.Rows {
		return Invalidf("decode %d rows of %d: room for %d weights", e.Rows, cols, len(dst))
	}
	if e.Row < 0 || e.Row > math.MaxInt64/int64(cols) || e.Row*int64(cols)%s.Block != 0 {
		return Invalidf("decode %d rows of %d: row %d does not begin with a run of %d", e.Rows, cols, e.Row, s.Block)
	}
	parts := s.Components(int64(e.Rows), int64(cols))
	if len(e.Data) != len(parts) {
		return Invalidf("decode %d rows of %d: %d components, not %d", e.Rows, cols, len(e.Data), len(parts))
	}
	for i, c := range parts {
		if have, want := int64(len(e.Data[i])), c.Bytes(); c.Name != ComponentNestedAbsmax && have != want {
			return Invalidf("decode %d rows of %d: %s hold %d bytes, not %d", e.Rows, cols, c.Name, have, want)
		}
	}
	return nil
}

func readFloats(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = floatAt(src, i)
	}
}

func floatAt(b []byte, i int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
}
