package shard

import (
	"context"
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
)

// scratchSize bounds the buffer through which transposed weights are read.
const scratchSize = 1 << 20

// ReadRows reads rows of a linear into dst, which must have exactly rows × RowBytes bytes, and returns the type of its elements.
//
// Weights that are stored as rows come straight from the file in their stored type. Transposed ones are gathered through a scratch of
// 1 MiB, or of the panel's size if that is larger. FP8 with scales becomes BF16: the product of weight and scale in float32, rounded once
// to nearest even. NaN and infinity pass through, for the reader to refuse with the linear's name.
func (s *Source) ReadRows(ctx context.Context, m *Manifest, l Linear, row int64, rows int, dst []byte) (DType, error) {
	if err := m.checkView(l); err != nil {
		return "", fmt.Errorf("read linear: %w", err)
	}
	if row < 0 || rows < 0 || int64(rows) > l.Rows || row > l.Rows-int64(rows) {
		return "", fmt.Errorf("read linear %q: rows %d to %d of %d: %w", l.Name, row, row+int64(rows), l.Rows, ErrMissing)
	}
	t, _ := m.Tensor(l.Tensor)
	v := view{l: l, row: l.Row + row*l.RowStep, rows: rows, size: t.DType.Size(), width: t.Shape[len(t.Shape)-1]}
	v.offset = t.Offset
	if l.Expert >= 0 {
		v.offset += int64(l.Expert) * t.Shape[1] * t.Shape[2] * v.size
	}
	dtype, n := t.DType, int64(rows)*l.Cols*v.size
	if l.Scale != "" {
		dtype, n = BF16, 2*n
	}
	if int64(len(dst)) != n {
		return "", fmt.Errorf("read linear %q: have a buffer of %d bytes for %d rows of %d: %w", l.Name, len(dst), rows, n, ErrOrder)
	}
	if n == 0 {
		return dtype, ctx.Err()
	}
	var err error
	switch {
	case l.Scale != "":
		err = s.readScaled(ctx, m, t, v, dst)
	case l.Transposed:
		err = s.reading(ctx, t.File, func(f weightFile) error { return s.gather(ctx, f, v, dst) })
	case l.RowStep > 1:
		err = s.reading(ctx, t.File, func(f weightFile) error { return readStrided(ctx, f, v, dst) })
	default:
		err = s.ReadAt(ctx, t.File, dst, v.offset+v.row*v.width*v.size)
	}
	if err != nil {
		return "", fmt.Errorf("read linear %q: %w", l.Name, err)
	}
	return dtype, nil
}

// view is the part of a stored matrix that a read wants.
type view struct {
	l      Linear
	row    int64 // first row wanted, counted in the matrix
	rows   int
	offset int64 // of the matrix in the file
	size   int64 // bytes of an element
	width  int64 // elements of a stored row: l.Cols, or the outputs when transposed
}

// readStrided reads every RowStep-th row.
func readStrided(ctx context.Context, f weightFile, v view, dst []byte) error {
	bytes := v.l.Cols * v.size
	for r := range int64(v.rows) {
		if err := f.readFull(ctx, dst[r*bytes:(r+1)*bytes], v.offset+(v.row+r*v.l.RowStep)*bytes); err != nil {
			return err
		}
	}
	return nil
}

// gather reads rows of a matrix stored as cols × rows: a stripe of some stored rows at a time, of which only the wanted part is read
// when that is small against the whole.
func (s *Source) gather(ctx context.Context, f weightFile, v view, dst []byte) error {
	f = f.until(v.offset + v.l.Cols*v.width*v.size) // the next rows need the same stripes
	span := (int64(v.rows)-1)*v.l.RowStep + 1       // stored elements from the first wanted to the last
	whole := 4*span >= v.width
	stride, skip := span, int64(0) // elements between stripes in the scratch, and before the first wanted one
	if whole {
		stride, skip = v.width, v.row
	}
	pooled, _ := s.scratch.Get().(*[]byte)
	defer s.scratch.Put(pooled)
	scratch := *pooled
	if need := stride * v.size; need > int64(len(scratch)) {
		if whole { // do not let a wide tensor set the memory: take the wanted part only
			whole, stride, skip = false, span, 0
		}
		if need = stride * v.size; need > int64(len(scratch)) {
			scratch = make([]byte, need) // at most RowStep/cols of the panel's size
		}
	}
	stripe := int64(len(scratch)) / (stride * v.size)
	for col := int64(0); col < v.l.Cols; col += stripe {
		n := min(stripe, v.l.Cols-col)
		if err := readStripe(ctx, f, v, scratch, col, n, stride, whole); err != nil {
			return err
		}
		transpose(dst, scratch[skip*v.size:], v, col, n, stride)
	}
	return nil
}

// readStripe reads n stored rows from the given one on: whole ones by one call, else the wanted part of each by its own.
func readStripe(ctx context.Context, f weightFile, v view, scratch []byte, col, n, stride int64, whole bool) error {
	bytes := stride * v.size
	if whole {
		return f.readFull(ctx, scratch[:n*bytes], v.offset+col*bytes)
	}
	for i := range n {
		if err := f.readFull(ctx, scratch[i*bytes:(i+1)*bytes], v.offset+((col+i)*v.width+v.row)*v.size); err != nil {
			return err
		}
	}
	return nil
}

// transpose writes n columns of all rows from a stripe of n stored rows.
func transpose(dst, stripe []byte, v view, col, n, stride int64) {
	for r := range int64(v.rows) {
		out := dst[(r*v.l.Cols+col)*v.size:][:n*v.size]
		in := stripe[r*v.l.RowStep*v.size:]
		if v.size == 2 {
			for i := range n {
				at := i * stride * 2
				out[2*i], out[2*i+1] = in[at], in[at+1]
			}
			continue
		}
		for i := range n {
			at := i * stride * v.size
			copy(out[i*v.size:(i+1)*v.size], in[at:at+v.size])
		}
	}
}

// readScaled reads FP8 weights into the second half of dst and widens them in place: the product for element i goes to bytes 2i and
// 2i+1, its code lies at byte n+i of 2n, which no earlier product has reached.
func (s *Source) readScaled(ctx context.Context, m *Manifest, t Tensor, v view, dst []byte) error {
	codes := dst[len(dst)/2:]
	if err := s.ReadAt(ctx, t.File, codes, v.offset+v.row*v.width*v.size); err != nil {
		return err
	}
	b := v.l.ScaleBlock
	scale, _ := m.Tensor(v.l.Scale)
	first, perRow := v.row/b[0], ceilDiv(v.width, b[1])
	count := ((v.row+int64(v.rows)-1)/b[0] - first + 1) * perRow
	raw := make([]byte, count*scale.DType.Size())
	if err := s.ReadAt(ctx, scale.File, raw, scale.Offset+first*perRow*scale.DType.Size()); err != nil {
		return err
	}
	scaleType, err := tensor.ParseDType(string(scale.DType))
	if err != nil {
		return err
	}
	scales := make([]float32, count) // block rows × perRow, row-major
	tensor.ToFloat32(scales, raw, scaleType)
	values, err := codeValues(t.DType)
	if err != nil {
		return err
	}
	for r := range int64(v.rows) {
		of := scales[((v.row+r)/b[0]-first)*perRow:]
		for col := int64(0); col < v.l.Cols; col += b[1] {
			i, n := r*v.l.Cols+col, min(b[1], v.l.Cols-col)
			widen(dst[2*i:2*(i+n)], codes[i:i+n], values, of[col/b[1]])
		}
	}
	return nil
}

// codeValues lists the numbers that the 256 codes of an 8-bit float type stand for.
func codeValues(d DType) (*[256]float32, error) {
	of, err := tensor.ParseDType(string(d))
	if err != nil {
		return nil, err
	}
	var codes [256]byte
	for i := range codes {
		codes[i] = byte(i)
	}
	values := &[256]float32{}
	tensor.ToFloat32(values[:], codes[:], of)
	return values, nil
}

// widen multiplies codes of one scale into BF16. Each piece of codes is read before the bytes of dst, which may be the same, are written.
func widen(dst, codes []byte, values *[256]float32, scale float32) {
	var piece [256]float32
	for i := 0; i < len(codes); i += len(piece) {
		n := min(len(piece), len(codes)-i)
		for j, c := range codes[i : i+n] {
			piece[j] = values[c] * scale
		}
		tensor.FromFloat32(dst[2*i:2*(i+n)], piece[:n], tensor.BF16)
	}
}
