package compress

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// WorkDType names the element type that a linear's arithmetic starts from and that its scales are stored in: the source's own, F32 for F64,
// and BF16, which holds every value of both, for FP8. It refuses what are no weights.
func (l Linear) WorkDType() (string, error) {
	d, err := tensor.ParseDType(l.DType)
	if err != nil {
		return "", Invalidf("encode %s: %w", l.Name, err)
	}
	switch d {
	case tensor.F32, tensor.F16, tensor.BF16:
		return d.String(), nil
	case tensor.F64:
		return tensor.F32.String(), nil
	case tensor.F8E4M3, tensor.F8E5M2:
		return tensor.BF16.String(), nil
	}
	return "", Invalidf("encode %s: weights of type %s cannot be compressed: put the linear on the recipe's ignore list", l.Name, l.DType)
}

// Floats writes the weights of a panel of l as float32, rows × cols, row-major. F64 is rounded. It refuses what is not finite,
// with linear, row and column.
func (p Panel) Floats(l Linear, dst []float32) error {
	if err := p.Validate(l); err != nil {
		return err
	}
	d, err := tensor.ParseDType(p.DType)
	if err != nil {
		return Invalidf("encode %s: %w", l.Name, err)
	}
	n := p.Rows * p.Cols
	if len(dst) < n {
		return fmt.Errorf("encode %s: room for %d of a panel's %d weights", l.Name, len(dst), n)
	}
	dst = dst[:n]
	tensor.ToFloat32(dst, p.Data, d)
	if i := firstNotFinite(dst); i >= 0 {
		return p.notFinite(l, i, dst[i])
	}
	return nil
}

// firstNotFinite is the index of the first NaN or infinity, -1 if there is none.
func firstNotFinite(x []float32) int {
	const exponent = 0x7f800000
	for i, v := range x {
		if math.Float32bits(v)&exponent == exponent {
			return i
		}
	}
	return -1
}

// notFinite says which weight of the panel is no finite number.
func (p Panel) notFinite(l Linear, i int, v float32) error {
	what := fmt.Sprintf("is %v", v)
	if p.DType == tensor.F64.String() {
		if w := math.Float64frombits(binary.LittleEndian.Uint64(p.Data[i*8:])); !math.IsNaN(w) && !math.IsInf(w, 0) {
			what = fmt.Sprintf("is %g, beyond float32", w)
		}
	}
	return Invalidf("encode %s: weight at row %d, column %d %s: repair the checkpoint, or put the linear on the recipe's ignore list",
		l.Name, p.Row+int64(i/p.Cols), i%p.Cols, what)
}

// EachPanel passes over all rows of w in order, panel by panel, with the weights as float32, rows × cols, row-major, valid until the
// next one. It refuses weights that are not finite, and panels that leave rows out.
func EachPanel(ctx context.Context, w Weights, o Options, each func(p Panel, x []float32) error) error {
	l := w.Linear()
	var x []float32
	next := int64(0)
	for p, err := range w.Panels(ctx, o.RowsPerPanel(l)) {
		if err != nil {
			return fmt.Errorf("encode %s: %w", l.Name, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("encode %s: %w", l.Name, err)
		}
		if p.Row != next {
			return fmt.Errorf("encode %s: panel of row %d came where row %d was due", l.Name, p.Row, next)
		}
		next += int64(p.Rows)
		x = grow(x, p.Rows*p.Cols)
		if err := p.Floats(l, x); err != nil {
			return err
		}
		if err := each(p, x); err != nil {
			return err
		}
	}
	if next != l.Rows {
		return fmt.Errorf("encode %s: the panels end at row %d of %d", l.Name, next, l.Rows)
	}
	return nil
}
