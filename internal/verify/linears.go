package verify

import (
	"bytes"
	"context"
	"fmt"
	"math"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// panelWeights bounds how many weights are decoded at a time.
const panelWeights = 1 << 18

// lanes are the float32 sums among which the kernels deal out the columns of a group.
const lanes = 16

// tolerance is how far a measured error may be from the reported one. The report
// sums in float32 lanes, this package in float64 one by one; and the error of
// nearly perfect linears is made of roundings, of 2^-24 of the weights each.
//
// The columns of a group are added in 16 lanes: group/16 additions in a row of
// squares, which err by at most 2^-24 of the sum each, and so do the two sums under
// the root. That is next to nothing for groups and grows with a row's width where
// all its columns share a scale.
func tolerance(reported float64, x operation.EncodedLayout, stored shard.DType) float64 {
	t := (1e-4+float64(x.Layout.Scheme.Group)/lanes*0x1p-24)*reported + 1e-6
	if x.Format == operation.FormatDense {
		// The report speaks of what the codes mean, a dense result rounds that to the
		// stored type: by the triangle inequality the two differ by at most its unit
		// roundoff.
		switch stored {
		case shard.BF16:
			t += 0x1p-8
		case shard.F16:
			t += 0x1p-11
		default:
			t += 0x1p-24
		}
	}
	return t
}

// linears decodes every encoded linear and compares it, and every tensor that was
// carried over, with the source.
func (v *verifier) linears(ctx context.Context, src *shard.Checkpoint, plan *coordinator.Plan, g *given) error {
	reported := map[string]coordinator.ReportLinear{}
	for _, l := range g.report.Linears {
		reported[l.Name] = l
	}
	for _, u := range plan.Units {
		params, layout, err := u.Work()
		if err != nil {
			return err
		}
		for i, it := range layout.Items {
			if len(v.Problems) > maxProblems {
				return nil
			}
			item := params.Items[i]
			switch {
			case item.Copy != "":
				if err := v.copied(ctx, src, item.Copy); err != nil {
					return err
				}
				continue
			case item.Cast != nil:
				l := params.Linears[*item.Cast]
				at := l
				at.Name, at.Tensor = l.Name, l.Name+".weight"
				at.Row, at.RowStep, at.Transposed, at.Expert, at.Scale, at.ScaleBlock = 0, 1, false, -1, "", [2]int64{}
				lost, err := v.compare(ctx, src, l, v.plainRows(at))
				if err != nil {
					return err
				}
				if lost.error != 0 {
					v.problem("linear %s is not what the source holds", l.Name)
				}
				continue
			}
			for _, x := range it.Encoded {
				rows, err := v.rows(ctx, item, x)
				if err != nil {
					v.problem("linear %s cannot be decoded: %v", x.Linear.Name, err)
					continue
				}
				lost, err := v.compare(ctx, src, x.Linear, rows)
				if err != nil {
					return err
				}
				v.judge(x, it.Tensors[0].DType, lost, reported[x.Linear.Name])
			}
		}
	}
	return nil
}

// judge holds the error of a linear against the report's.
func (v *verifier) judge(x operation.EncodedLayout, stored shard.DType, s sums, want coordinator.ReportLinear) {
	name := x.Linear.Name
	l := Linear{Name: name, Reported: want.RelativeError}
	have := math.Sqrt(s.error / s.power)
	if s.error == 0 {
		have = 0
	}
	if !math.IsNaN(have) && !math.IsInf(have, 0) {
		l.RelativeError = &have
	}
	v.Linears = append(v.Linears, l)
	switch {
	case math.IsNaN(s.error):
		v.problem("linear %s decodes to something that is not a number", name)
	case s.power == 0 && s.error > 0:
		v.problem("linear %s is zero in the source and not in the result", name)
	case s.power < underflow*float64(x.Linear.Rows)*float64(x.Linear.Cols):
		// The report's sums are of float32 squares: of so small ones they are too rough.
	case want.RelativeError == nil:
		// Likewise they have no value where they overflow.
		if s.power < overflow && s.error < overflow {
			v.problem("linear %s has no error in the report, and its relative error is %.6g", name, have)
		}
	case !(math.Abs(have-*want.RelativeError) <= tolerance(*want.RelativeError, x, stored)):
		v.problem("linear %s: its relative error is %.6g, the report says %.6g", name, have, *want.RelativeError)
	case *want.RelativeError > 0 && (want.SNR == nil || !(math.Abs(*want.SNR+20*math.Log10(*want.RelativeError)) <= 1e-5)):
		v.problem("linear %s: the report's signal-to-noise ratio does not follow from its relative error %.6g", name, *want.RelativeError)
	}
}

// overflow is where sums of float32 squares may cease to be numbers, underflow the
// mean square from which they and what is lost of them lose digits.
const (
	overflow  = math.MaxFloat32 / 2
	underflow = 1e-30
)

// copied compares a tensor that was carried over, byte by byte.
func (v *verifier) copied(ctx context.Context, src *shard.Checkpoint, name string) error {
	a, _ := src.Manifest.Tensor(name)
	b, ok := v.result.Manifest.Tensor(name)
	if !ok || a.Length != b.Length {
		return nil // a problem already
	}
	pa, pb := make([]byte, min(a.Length, 1<<20)), make([]byte, min(a.Length, 1<<20))
	for off := int64(0); off < a.Length; off += int64(len(pa)) {
		n := min(int64(len(pa)), a.Length-off)
		if err := src.ReadAt(ctx, a.File, pa[:n], a.Offset+off); err != nil {
			return err
		}
		if err := v.result.ReadAt(ctx, b.File, pb[:n], b.Offset+off); err != nil {
			return err
		}
		v.progress(2 * n)
		if !bytes.Equal(pa[:n], pb[:n]) {
			v.problem("tensor %s is not what the source holds", name)
			return nil
		}
	}
	return nil
}

// rowReader gives decoded rows of a linear of the result, rows × cols.
type rowReader func(ctx context.Context, row int64, rows int, dst []float32) error

// sums are Σ(w−ŵ)² and Σw² of a linear.
type sums struct{ error, power float64 }

// compare decodes a linear of the result and subtracts the source's.
func (v *verifier) compare(ctx context.Context, src *shard.Checkpoint, l shard.Linear, decoded rowReader) (sums, error) {
	want := plainRows(src, l)
	per := int(max(panelWeights/max(l.Cols, 1), 1))
	a, b := make([]float32, int64(per)*l.Cols), make([]float32, int64(per)*l.Cols)
	var s sums
	for row := int64(0); row < l.Rows; row += int64(per) {
		n := int(min(int64(per), l.Rows-row))
		pa, pb := a[:int64(n)*l.Cols], b[:int64(n)*l.Cols]
		if err := want(ctx, row, n, pa); err != nil {
			return s, err
		}
		if err := decoded(ctx, row, n, pb); err != nil {
			return s, err
		}
		for i, w := range pa {
			d := float64(w) - float64(pb[i])
			s.error += d * d
			s.power += float64(w) * float64(w)
		}
		v.progress(4 * int64(len(pa)))
	}
	return s, nil
}

// plainRows reads a linear that is stored as floats.
func plainRows(ck *shard.Checkpoint, l shard.Linear) rowReader {
	var raw []byte
	return func(ctx context.Context, row int64, rows int, dst []float32) error {
		per, err := ck.Manifest.RowBytes(l)
		if err != nil {
			return err
		}
		if n := int64(rows) * per; int64(cap(raw)) < n {
			raw = make([]byte, n)
		} else {
			raw = raw[:n]
		}
		t, err := ck.Source().ReadRows(ctx, ck.Manifest, l, row, rows, raw)
		if err != nil {
			return err
		}
		d, err := tensor.ParseDType(string(t))
		if err != nil {
			return err
		}
		tensor.ToFloat32(dst, raw, d)
		return nil
	}
}

func (v *verifier) plainRows(l shard.Linear) rowReader { return plainRows(v.result, l) }

// rows reads an encoded linear as the format stores it.
func (v *verifier) rows(ctx context.Context, item operation.Item, x operation.EncodedLayout) (rowReader, error) {
	if x.Format == operation.FormatDense {
		at := x.Linear
		if item.Rebuild == "" {
			at.Row, at.RowStep, at.Expert = 0, 1, -1
		}
		at.Scale, at.ScaleBlock = "", [2]int64{} // FP8 was decoded
		return v.plainRows(at), nil
	}
	return v.packedRows(ctx, x)
}

// packedRows reads a linear in one of the formats of compressed-tensors.
func (v *verifier) packedRows(ctx context.Context, x operation.EncodedLayout) (rowReader, error) {
	l, s := x.Linear, x.Layout.Scheme
	module, err := operation.Quantized(x).Tensors(shard.Format(x.Format))
	if err != nil {
		return nil, err
	}
	var codes shard.Tensor
	small := map[shard.Part][]byte{}
	for _, mt := range module {
		t, ok := v.result.Manifest.Tensor(mt.Name)
		if !ok {
			return nil, fmt.Errorf("tensor %s is missing", mt.Name)
		}
		if mt.Part == shard.PartCodes {
			codes = t
			continue
		}
		b := make([]byte, t.Length)
		if err := v.result.ReadAt(ctx, t.File, b, t.Offset); err != nil {
			return nil, err
		}
		small[mt.Part] = b
	}
	if shape, ok := small[shard.PartShape]; ok && !bytes.Equal(shape, operation.Quantized(x).ShapeData()) {
		return nil, fmt.Errorf("weight_shape does not say %d × %d", l.Rows, l.Cols)
	}
	zeros, err := plainZeros(x, small[shard.PartZeros])
	if err != nil {
		return nil, err
	}
	cols := int(l.Cols)
	stored := codes.Length / l.Rows // bytes of a row in the file
	packed := tensor.PackedRowBytes(cols, s.Bits)
	scales := small[shard.PartScales]
	var raw, unpacked []byte
	return func(ctx context.Context, row int64, rows int, dst []float32) error {
		if n := int64(rows) * stored; int64(cap(raw)) < n {
			raw = make([]byte, n)
		} else {
			raw = raw[:n]
		}
		if err := v.result.ReadAt(ctx, codes.File, raw, codes.Offset+row*stored); err != nil {
			return err
		}
		data := raw
		if x.Format == operation.FormatInt {
			if n := rows * packed; cap(unpacked) < n {
				unpacked = make([]byte, n)
			} else {
				unpacked = unpacked[:n]
			}
			if err := shard.Int8ToCodes(unpacked, raw, cols, s.Bits); err != nil {
				return err
			}
			data = unpacked
		}
		e := &compress.Encoded{Row: row, Rows: rows, Data: [][]byte{data, ofRows(scales, s, row, rows, l.Rows)}}
		if !s.Symmetric {
			e.Data = append(e.Data, ofRows(zeros, s, row, rows, l.Rows))
		}
		return s.Decode(dst, cols, e)
	}, nil
}

// ofRows cuts the rows' part out of a component; what the whole tensor shares stays whole.
func ofRows(b []byte, s compress.Scheme, row int64, rows int, total int64) []byte {
	if s.Strategy == compress.StrategyTensor {
		return b
	}
	per := int64(len(b)) / total
	return b[row*per : (row+int64(rows))*per]
}

// plainZeros turns stored zero points into a byte for each, rows × groups.
func plainZeros(x operation.EncodedLayout, stored []byte) ([]byte, error) {
	s := x.Layout.Scheme
	if s.Symmetric {
		return nil, nil
	}
	if x.Format == operation.FormatInt {
		out := make([]byte, len(stored))
		shard.Int8ToZeros(out, stored, s.Bits)
		return out, nil
	}
	rows, groups := int(x.Linear.Rows), int(x.Linear.Cols/s.Group)
	out := make([]byte, rows*groups)
	return out, shard.UnpackZeros(out, stored, rows, groups, s.Bits)
}
