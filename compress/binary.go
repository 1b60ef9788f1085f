package compress

import (
	"github.com/shardpress/shardpress/internal/tensor"
)

// KindBinary is the kind of Binary.
const KindBinary = "binary"

// ComponentOffsets are what is added to the weights of a group.
const ComponentOffsets = "offsets"

// Binary is the scheme of binary coding, as LUT-GEMM (Park et al., arXiv 2206.09557) multiplies with it:
// w ≈ Σᵢ αᵢ·bᵢ (+ offset), with bᵢ = ±1.
//
// Its components, for b bits, are
//
//	codes    U8 [rows, b, ceil(cols/8)]       plane i of a row holds bᵢ of every column, +1 as a 1, the first column in the lowest bit
//	scales   ScaleDType [rows, cols/Group, b] α of plane 0, 1, ... of the group
//	offsets  ScaleDType [rows, cols/Group]    only if Offset
type Binary struct {
	Bits       int    `json:"bits"`
	Group      int64  `json:"group"` // columns that share their αs: up to all of them
	Offset     bool   `json:"offset"`
	ScaleDType string `json:"scale_dtype"`
}

// Kind implements Scheme.
func (s Binary) Kind() string { return KindBinary }

// CodeBits implements Scheme.
func (s Binary) CodeBits() int { return s.Bits }

// Validate implements Scheme.
func (s Binary) Validate(_, cols int64) error {
	switch {
	case s.Bits < 1 || s.Bits > 8:
		return Invalidf("decode scheme: %d bits, not 1 to 8", s.Bits)
	case cols < 1 || s.Group < 1 || cols%s.Group != 0:
		return Invalidf("decode scheme: groups of %d do not divide %d columns", s.Group, cols)
	}
	_, err := shortFloat("scales", s.ScaleDType)
	return err
}

// Components implements Scheme.
func (s Binary) Components(rows, cols int64) []Component {
	groups := cols / s.Group
	out := []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{rows, int64(s.Bits), (cols + 7) / 8}},
		{Name: ComponentScales, DType: s.ScaleDType, Shape: []int64{rows, groups, int64(s.Bits)}},
	}
	if s.Offset {
		out = append(out, Component{Name: ComponentOffsets, DType: s.ScaleDType, Shape: []int64{rows, groups}})
	}
	return out
}

// Decode writes the rows of e as rows × cols float32: ±α of plane 0, then 1, ... are added up in float32, and last the offset. Bits
// beyond the columns mean nothing.
func (s Binary) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	d, err := shortFloat("scales", s.ScaleDType)
	if err != nil {
		return err
	}
	group, groups, plane := int(s.Group), cols/int(s.Group), (cols+7)/8
	alphas, offsets := make([]float32, groups*s.Bits), make([]float32, groups)
	values := make([]float32, 1<<s.Bits) // of a group, by code: bit i is plane i
	for row := range e.Rows {
		planes := e.Data[0][row*s.Bits*plane:][:s.Bits*plane]
		tensor.ToFloat32(alphas, e.Data[1][row*len(alphas)*d.Size():], d)
		if s.Offset {
			tensor.ToFloat32(offsets, e.Data[2][row*groups*d.Size():], d)
		}
		for g := range groups {
			BinaryValues(values, alphas[g*s.Bits:][:s.Bits], offsets[g])
			for col := g * group; col < (g+1)*group; col++ {
				code := 0
				for i := range s.Bits {
					code |= int(planes[i*plane+col/8]>>(col%8)&1) << i
				}
				dst[row*cols+col] = values[code]
			}
		}
	}
	return nil
}

// BinaryValues writes what each code of len(alphas) bits means, as [Binary] has it.
func BinaryValues(dst, alphas []float32, offset float32) {
	for code := range dst[:1<<len(alphas)] {
		var v float32
		for i, a := range alphas {
			if code>>i&1 == 0 {
				a = -a
			}
			v += a
		}
		dst[code] = v + offset
	}
}
