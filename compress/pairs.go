package compress

import (
	"github.com/shardpress/shardpress/internal/tensor"
)

// KindPairs is the kind of Pairs.
const KindPairs = "pairs"

// Pairs is the scheme of OliVe (Guo et al., arXiv 2304.07493): codes of one width in which a weight that is too large for the
// grid takes the other weight of its pair, columns 2i and 2i+1, as a victim that becomes 0.
//
// Its components, for codes of b = 4 or 8 bits, are
//
//	codes   U8 [rows, 4·ceil(cols·b/32)]   each row one bit stream, lowest bit first, padded to 32-bit words
//	scales  ScaleDType [rows, cols/Group]
//
// A code of a pair without an outlier is the integer q in two's complement, q from -(2^(b-1)-1) to 2^(b-1)-1. The code of -2^(b-1) marks
// a victim, and the other code of the pair is then an adaptive biased float ("abfloat") of a sign, 2 bits of exponent e and b-3 of
// fraction f, with 2^(b-1)·2^e·(1 + f/2^(b-3)) as its value: from the top of the grid on, 12 to 96 with 4 bits. That with e = f = 0 is
// not used, since with its sign it would mark a victim. Values are times the scale.
type Pairs struct {
	Bits       int    `json:"bits"`
	Group      int64  `json:"group"` // columns that share a scale: up to all of them; even
	ScaleDType string `json:"scale_dtype"`
}

// Kind implements Scheme.
func (s Pairs) Kind() string { return KindPairs }

// CodeBits implements Scheme.
func (s Pairs) CodeBits() int { return s.Bits }

// Validate implements Scheme.
func (s Pairs) Validate(_, cols int64) error {
	switch {
	case s.Bits != 4 && s.Bits != 8:
		return Invalidf("decode scheme: %d bits, not 4 or 8", s.Bits)
	case cols < 1 || s.Group < 1 || cols%s.Group != 0:
		return Invalidf("decode scheme: groups of %d do not divide %d columns", s.Group, cols)
	case s.Group%2 != 0:
		return Invalidf("decode scheme: groups of %d columns are no pairs", s.Group)
	}
	_, err := shortFloat("scales", s.ScaleDType)
	return err
}

// Components implements Scheme.
func (s Pairs) Components(rows, cols int64) []Component {
	return []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{rows, int64(tensor.PackedRowBytes(int(cols), s.Bits))}},
		{Name: ComponentScales, DType: s.ScaleDType, Shape: []int64{rows, cols / s.Group}},
	}
}

// Outlier is what the code of an outlier means, before the scale; 0 if no outlier has it.
func (s Pairs) Outlier(code uint8) float32 {
	fraction := s.Bits - 3
	magnitude := int(code) & (1<<(s.Bits-1) - 1)
	if magnitude == 0 {
		return 0
	}
	v := float32(int(1)<<fraction|magnitude&(1<<fraction-1)) * float32(int(1)<<(magnitude>>fraction+2)) // 2^(b-1)/2^(b-3) = 2²
	if code>>(s.Bits-1)&1 != 0 {
		return -v
	}
	return v
}

// Decode writes the rows of e as rows × cols float32: each value, an integer, times the scale, rounded once. It refuses pairs that no
// encoder makes.
func (s Pairs) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	d, err := shortFloat("scales", s.ScaleDType)
	if err != nil {
		return err
	}
	victim := uint8(1) << (s.Bits - 1)
	shift := 8 - s.Bits
	group, groups := int(s.Group), cols/int(s.Group)
	codes, scales := make([]uint8, cols), make([]float32, groups)
	packed := tensor.PackedRowBytes(cols, s.Bits)
	for row := range e.Rows {
		tensor.UnpackRow(codes, e.Data[0][row*packed:][:packed], s.Bits)
		tensor.ToFloat32(scales, e.Data[1][row*groups*d.Size():], d)
		out := dst[row*cols:][:cols]
		for i := 0; i < cols; i += 2 {
			var v [2]float32
			for j, c := range codes[i : i+2] {
				switch {
				case c == victim:
				case codes[i+1-j] == victim:
					v[j] = s.Outlier(c)
				default:
					v[j] = float32(int8(c<<shift) >> shift)
				}
			}
			if v == [2]float32{} && (codes[i] == victim || codes[i+1] == victim) {
				return Invalidf("decode %d rows of %d: the pair of columns %d and %d of row %d has a victim and no outlier", e.Rows, cols, i, i+1, e.Row+int64(row))
			}
			scale := scales[i/group]
			out[i], out[i+1] = v[0]*scale, v[1]*scale
		}
	}
	return nil
}
