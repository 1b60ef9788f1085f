package verify

import (
	"bytes"
	"context"
	"errors"
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
	group := x.Linear.Cols
	if s, ok := x.Layout.Scheme.(compress.Int); ok {
		group = s.Group
	}
	t := (1e-4+float64(group)/lanes*0x1p-24)*reported + 1e-6
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
				lost, err := v.compare(ctx, src, l, 1, v.plainRows(at))
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
				lost, err := v.compare(ctx, src, x.Linear, x.Layout.RowUnit, rows)
				if errors.Is(err, compress.ErrInvalid) { // of what the result holds; reading fails otherwise
					v.problem("linear %s cannot be decoded: %v", x.Linear.Name, err)
					continue
				}
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
func (v *verifier) compare(ctx context.Context, src *shard.Checkpoint, l shard.Linear, unit int64, decoded rowReader) (sums, error) {
	want := plainRows(src, l)
	unit = max(unit, 1)
	per := int(max(panelWeights/max(l.Cols, 1)/unit, 1) * unit) // panels start at whole units
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
	return v.encodedRows(ctx, x)
}

// encodedRows reads a linear whose components the result holds.
func (v *verifier) encodedRows(ctx context.Context, x operation.EncodedLayout) (rowReader, error) {
	q, err := operation.Quantized(x)
	if err != nil {
		return nil, err
	}
	module, err := q.Tensors()
	if err != nil {
		return nil, err
	}
	parts := map[string]shard.Tensor{}
	for _, mt := range module {
		t, ok := v.result.Manifest.Tensor(mt.Name)
		if !ok {
			return nil, fmt.Errorf("tensor %s is missing", mt.Name)
		}
		if mt.Part != shard.PartShape {
			parts[string(mt.Part)] = t
			continue
		}
		shape := make([]byte, t.Length)
		if err := v.result.ReadAt(ctx, t.File, shape, t.Offset); err != nil {
			return nil, err
		}
		if !bytes.Equal(shape, q.ShapeData()) {
			return nil, fmt.Errorf("tensor %s does not say %d × %d", mt.Name, x.Linear.Rows, x.Linear.Cols)
		}
	}
	if err := v.alike(ctx, x, parts); err != nil {
		return nil, err
	}
	r := &components{verifier: v, x: x, parts: parts, data: make([][]byte, len(x.Layout.Components)), at: make([]int64, len(x.Layout.Components))}
	return r.rows, nil
}

// alike compares what linears that engines fuse must share: with two scales of all scales, one of them would be lost.
func (v *verifier) alike(ctx context.Context, x operation.EncodedLayout, parts map[string]shard.Tensor) error {
	if len(x.Share) < 2 || x.Layout.Share != compress.ShareFused {
		return nil
	}
	for _, c := range x.Layout.Components {
		if !c.Whole {
			continue
		}
		t := parts[c.Name]
		have := make([]byte, t.Length)
		if err := v.result.ReadAt(ctx, t.File, have, t.Offset); err != nil {
			return err
		}
		key := x.Share[0].Name + "." + c.Name
		if first, ok := v.shared[key]; !ok {
			if v.shared == nil {
				v.shared = map[string][]byte{}
			}
			v.shared[key] = have
		} else if !bytes.Equal(first, have) {
			v.problem("tensor %s is not that of the linears that engines fuse it with", t.Name)
		}
	}
	return nil
}

// components reads the components of an encoded linear, rows after rows from the first.
type components struct {
	*verifier
	x     operation.EncodedLayout
	parts map[string]shard.Tensor // by component
	data  [][]byte                // of the panel
	at    []int64                 // how much of a ragged component has been read
	zeros []byte                  // unpacked
	raw   []byte
}

func (r *components) rows(ctx context.Context, row int64, rows int, dst []float32) error {
	layout, cols := r.x.Layout, int(r.x.Linear.Cols)
	e := &compress.Encoded{Row: row, Rows: rows, Data: r.data}
	read := func(i int, offset, n int64) error {
		t := r.parts[layout.Components[i].Name]
		if offset < 0 || n < 0 || n > t.Length-offset {
			return compress.Invalidf("tensor %s of %d bytes ends before the rows do", t.Name, t.Length)
		}
		if int64(cap(r.data[i])) < n {
			r.data[i] = make([]byte, n)
		}
		r.data[i] = r.data[i][:n]
		return r.result.ReadAt(ctx, t.File, r.data[i], t.Offset+offset)
	}
	for i, c := range layout.Components {
		switch {
		case c.Ragged:
			continue // the others say how much
		case r.converted(i):
			if err := r.convert(ctx, i, row, rows); err != nil {
				return err
			}
			continue
		}
		offset := row / max(c.RowsPer, 1) * c.RowBytes()
		if c.Whole {
			offset = 0
		}
		if err := read(i, offset, c.PanelBytes(int64(rows))); err != nil {
			return err
		}
	}
	for i, c := range layout.Components {
		if !c.Ragged {
			continue
		}
		s, ok := layout.Scheme.(compress.RaggedScheme)
		if !ok {
			return fmt.Errorf("scheme %s does not say where rows of %s end", layout.Scheme.Kind(), c.Name)
		}
		n, err := s.RaggedBytes(i, cols, e)
		if err != nil {
			return err
		}
		if row == 0 {
			r.at[i] = 0
		}
		if err := read(i, r.at[i], n); err != nil {
			return err
		}
		r.at[i] += n
		if t := r.parts[c.Name]; row+int64(rows) == r.x.Linear.Rows && r.at[i] != t.Length {
			return compress.Invalidf("tensor %s has %d bytes, and the rows end after %d", t.Name, t.Length, r.at[i])
		}
	}
	return layout.Scheme.Decode(dst, cols, e)
}

// converted reports whether the format stores a component otherwise than the method made it.
func (r *components) converted(i int) bool {
	switch name := shard.Part(r.x.Layout.Components[i].Name); {
	case r.x.Format == operation.FormatInt:
		return name != shard.PartScales
	case r.x.Format == operation.FormatPack:
		return name == shard.PartZeros
	case r.x.Format == string(shard.FormatBitsAndBytes):
		return name == shard.PartOffset
	}
	return false
}

// convert reads integer codes or zero points, and turns them into what the method made.
func (r *components) convert(ctx context.Context, i int, row int64, rows int) error {
	c, bits, cols := r.x.Layout.Components[i], r.x.Layout.Scheme.CodeBits(), int(r.x.Linear.Cols)
	t := r.parts[c.Name]
	if shard.Part(c.Name) == shard.PartOffset {
		state := make([]byte, t.Length)
		if err := r.result.ReadAt(ctx, t.File, state, t.Offset); err != nil {
			return err
		}
		q, err := operation.Quantized(r.x)
		if err != nil {
			return err
		}
		r.data[i], err = q.OffsetOf(state)
		return err
	}
	if shard.Part(c.Name) == shard.PartCodes {
		n := rows * cols
		if cap(r.raw) < n {
			r.raw = make([]byte, n)
		}
		raw := r.raw[:n]
		if err := r.result.ReadAt(ctx, t.File, raw, t.Offset+row*int64(cols)); err != nil {
			return err
		}
		if packed := int(c.PanelBytes(int64(rows))); cap(r.data[i]) < packed {
			r.data[i] = make([]byte, packed)
		} else {
			r.data[i] = r.data[i][:packed]
		}
		return shard.Int8ToCodes(r.data[i], raw, cols, bits)
	}
	if r.zeros == nil {
		stored := make([]byte, t.Length)
		if err := r.result.ReadAt(ctx, t.File, stored, t.Offset); err != nil {
			return err
		}
		r.zeros = make([]byte, c.Bytes())
		if r.x.Format == operation.FormatInt {
			shard.Int8ToZeros(r.zeros, stored, bits)
		} else if err := shard.UnpackZeros(r.zeros, stored, int(r.x.Linear.Rows), len(r.zeros)/int(r.x.Linear.Rows), bits); err != nil {
			return err
		}
	}
	r.data[i] = r.zeros
	if !c.Whole {
		r.data[i] = r.zeros[row*c.RowBytes():][:int64(rows)*c.RowBytes()]
	}
	return nil
}
