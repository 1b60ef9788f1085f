package compress

import (
	"github.com/shardpress/shardpress/internal/tensor"
)

// KindAffine is the kind of Affine.
const KindAffine = "affine"

// Affine is the scheme of integer codes whose zero point is a float: w ≈ scale · (q − zero).
//
// Its components, for codes of b bits, are
//
//	codes   U8 [rows, 4·ceil(cols·b/32)]  q + 2^(b-1), packed as those of [Int]
//	scales  ScaleDType [rows, cols/Group]
//	zeros   ZeroDType [rows, cols/Group]
//
// with q in [-2^(b-1), 2^(b-1)-1]. Zero points are those of signed codes, and so near 0 where weights lie evenly about it: that is where a
// short float is finest.
type Affine struct {
	Bits       int    `json:"bits"`
	Group      int64  `json:"group"` // columns that share a scale and a zero point: up to all of them
	ScaleDType string `json:"scale_dtype"`
	ZeroDType  string `json:"zero_dtype"`
}

// Kind implements Scheme.
func (s Affine) Kind() string { return KindAffine }

// CodeBits implements Scheme.
func (s Affine) CodeBits() int { return s.Bits }

// Validate implements Scheme.
func (s Affine) Validate(_, cols int64) error {
	switch {
	case s.Bits < 2 || s.Bits > 8:
		return Invalidf("decode scheme: %d bits, not 2 to 8", s.Bits)
	case cols < 1 || s.Group < 1 || cols%s.Group != 0:
		return Invalidf("decode scheme: groups of %d do not divide %d columns", s.Group, cols)
	}
	if _, err := shortFloat("scales", s.ScaleDType); err != nil {
		return err
	}
	_, err := shortFloat("zeros", s.ZeroDType)
	return err
}

// shortFloat is a type that components of floats are stored in.
func shortFloat(what, name string) (tensor.DType, error) {
	d, err := tensor.ParseDType(name)
	if err != nil {
		return 0, Invalidf("decode scheme: %w", err)
	}
	if d != tensor.F32 && d != tensor.F16 && d != tensor.BF16 {
		return 0, Invalidf("decode scheme: %s are %s, not F32, F16 or BF16", what, name)
	}
	return d, nil
}

// Components implements Scheme.
func (s Affine) Components(rows, cols int64) []Component {
	groups := []int64{rows, cols / s.Group}
	return []Component{
		{Name: ComponentCodes, DType: "U8", Shape: []int64{rows, int64(tensor.PackedRowBytes(int(cols), s.Bits))}},
		{Name: ComponentScales, DType: s.ScaleDType, Shape: groups},
		{Name: ComponentZeros, DType: s.ZeroDType, Shape: groups},
	}
}

// Decode writes the rows of e as rows × cols float32: code − zero, rounded, times the scale, rounded again.
func (s Affine) Decode(dst []float32, cols int, e *Encoded) error {
	if err := CheckDecode(s, dst, cols, e); err != nil {
		return err
	}
	scaleType, err := shortFloat("scales", s.ScaleDType)
	if err != nil {
		return err
	}
	zeroType, err := shortFloat("zeros", s.ZeroDType)
	if err != nil {
		return err
	}
	group, groups := int(s.Group), cols/int(s.Group)
	low := float32(int(1) << (s.Bits - 1))
	codes, scales, zeros := make([]uint8, cols), make([]float32, groups), make([]float32, groups)
	packed := tensor.PackedRowBytes(cols, s.Bits)
	for row := range e.Rows {
		tensor.UnpackRow(codes, e.Data[0][row*packed:][:packed], s.Bits)
		tensor.ToFloat32(scales, e.Data[1][row*groups*scaleType.Size():], scaleType)
		tensor.ToFloat32(zeros, e.Data[2][row*groups*zeroType.Size():], zeroType)
		for g := range groups {
			scale, zero := scales[g], zeros[g]
			out := dst[row*cols+g*group:][:group]
			for i, u := range codes[g*group:][:group] {
				out[i] = float32((float32(u)-low)-zero) * scale
			}
		}
	}
	return nil
}
