package operation

import (
	"context"
	"encoding/binary"
	"io"
	"iter"
	"math"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// encodeJob streams one weight file: source rows in, file bytes out, in order.
type encodeJob struct {
	params   *EncodeParams
	layout   *Layout
	manifest *shard.Manifest
	source   *shard.Source
	env      *Env

	*buffers // for as long as it writes

	stats [][]LinearStats // by item
	aside map[int]aside   // by item: what waits for its place in the file

	prepared     []compress.RowEncoder // of linears that share, for the next of them
	preparedName string                // the first of them
}

// aside holds the components of a linear that are small beside the one that streams, as they are stored.
type aside map[shard.Part][]byte

// write makes the file's tensors in their order.
func (j *encodeJob) write(ctx context.Context, w io.Writer, p *pool) error {
	j.buffers = p.get()
	defer p.put(j.buffers)
	j.stats = make([][]LinearStats, len(j.layout.Items))
	j.aside = map[int]aside{}
	out, err := shard.NewWriter(w, j.layout.File)
	if err != nil {
		return err
	}
	for _, p := range j.layout.parts {
		it, lay := &j.params.Items[p.item], &j.layout.Items[p.item]
		if err := out.Begin(lay.Tensors[p.tensor].Name); err != nil {
			return err
		}
		var err error
		switch {
		case it.Copy != "":
			err = j.copyTensor(ctx, out, it.Copy)
		case it.Rebuild != "":
			err = j.rebuild(ctx, out, p.item)
		case it.Cast != nil:
			err = j.cast(ctx, out, *it.Cast)
		case lay.Encoded[0].Format == FormatDense:
			err = j.encodeDense(ctx, out, p.item)
		default:
			err = j.encode(ctx, out, p)
		}
		if err != nil {
			return err
		}
	}
	return out.Close()
}

func (j *encodeJob) copyTensor(ctx context.Context, out io.Writer, name string) error {
	t, err := tensorNamed(j.manifest, name)
	if err != nil {
		return err
	}
	for done := int64(0); done < t.Length; {
		n := min(int64(len(j.panel)), t.Length-done)
		if err := j.source.ReadAt(ctx, t.File, j.panel[:n], t.Offset+done); err != nil {
			return err
		}
		if _, err := out.Write(j.panel[:n]); err != nil {
			return err
		}
		done += n
		j.env.Progress(n)
	}
	return nil
}

// weights gives the panels of a linear out of the source. There is one panel
// buffer: only one sequence may be under way.
type weights struct {
	job    *encodeJob
	linear compress.Linear
	view   shard.Linear
	row    int64 // bytes of one row
	silent bool  // do not count towards progress
}

func (j *encodeJob) weights(x EncodedLayout) (*weights, error) {
	al, err := AsLinear(j.manifest, x.Linear)
	if err != nil {
		return nil, err
	}
	row, err := j.manifest.RowBytes(x.Linear)
	if err != nil {
		return nil, err
	}
	return &weights{job: j, linear: al, view: x.Linear, row: row}, nil
}

// Linear implements compress.Weights.
func (s *weights) Linear() compress.Linear { return s.linear }

// Panels implements compress.Weights.
func (s *weights) Panels(ctx context.Context, rows int) iter.Seq2[compress.Panel, error] {
	return func(yield func(compress.Panel, error) bool) {
		j := s.job
		if need := min(int64(rows), s.linear.Rows) * s.row; need > int64(len(j.panel)) {
			j.panel = make([]byte, need) // a row longer than a panel
		}
		for row := int64(0); row < s.linear.Rows; {
			n := min(int64(rows), s.linear.Rows-row)
			buf := j.panel[:n*s.row]
			d, err := j.source.ReadRows(ctx, j.manifest, s.view, row, int(n), buf)
			if err != nil {
				yield(compress.Panel{}, err)
				return
			}
			if !yield(compress.Panel{Row: row, Rows: int(n), Cols: int(s.linear.Cols), DType: string(d), Data: buf}, nil) {
				return
			}
			if s.silent {
				j.env.Progress(0) // alive
			} else {
				j.env.Progress(n * s.row)
			}
			row += n
		}
	}
}

// each encodes a linear panel by panel and hands on what comes out, which is
// valid until the next call.
func (j *encodeJob) each(ctx context.Context, x EncodedLayout, emit func(*compress.Encoded) error) (LinearStats, error) {
	none := LinearStats{}
	src, err := j.weights(x)
	if err != nil {
		return none, err
	}
	rows := rowsAt(src.row, x.Layout.RowUnit)
	src.silent = true
	enc, err := j.prepare(ctx, x, src, rows)
	if err != nil {
		return none, err
	}
	src.silent = false
	var lost, power float64
	for p, err := range src.Panels(ctx, rows) {
		if err != nil {
			return none, err
		}
		if err := enc.Rows(&j.encoded, p); err != nil {
			return none, err
		}
		lost = compress.Sum(lost, j.encoded.Error)
		power = compress.Sum(power, j.encoded.Power)
		if err := emit(&j.encoded); err != nil {
			return none, err
		}
	}
	return LinearStats{Name: x.Linear.Name, Error: finite(lost), Power: finite(power)}, nil
}

// prepare makes the encoder of a linear. Linears that share are prepared together, and once as long as they follow each other.
func (j *encodeJob) prepare(ctx context.Context, x EncodedLayout, src *weights, rows int) (compress.RowEncoder, error) {
	o := compress.Options{Kernel: j.env.Kernel, PanelRows: rows, Seed: x.Seed, Alive: func() { j.env.Progress(0) }}
	if len(x.Share) == 0 {
		enc, err := x.Method.Prepare(ctx, []compress.Weights{src}, o)
		if err != nil {
			return nil, err
		}
		return enc[0], nil
	}
	name := x.Share[0].Name
	if j.preparedName != name || len(j.prepared) != len(x.Share) {
		j.prepared, j.preparedName = nil, ""
		group := make([]compress.Weights, len(x.Share))
		for i, peer := range x.Share {
			w, err := j.weights(EncodedLayout{Linear: peer})
			if err != nil {
				return nil, err
			}
			w.silent = true
			group[i] = w
			o.PanelRows = min(o.PanelRows, rowsAt(w.row, 1)) // one of them may have longer rows
		}
		enc, err := x.Method.Prepare(ctx, group, o)
		if err != nil {
			return nil, err
		}
		j.prepared, j.preparedName = enc, name
	}
	return j.prepared[x.At], nil
}

func finite(v float64) *float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil
	}
	return &v
}

// encode writes one tensor of an encoded module. Whichever of them comes first in the file, the linear is
// encoded for it: the largest goes out as it comes, and what is small waits for its own
// tensor.
func (j *encodeJob) encode(ctx context.Context, out io.Writer, p part) error {
	lay := &j.layout.Items[p.item]
	x, what := lay.Encoded[0], lay.module[p.tensor]
	if what == shard.PartShape {
		q, err := Quantized(x)
		if err != nil {
			return err
		}
		_, err = out.Write(q.ShapeData())
		return err
	}
	if what == lay.stream || j.aside[p.item] == nil {
		var stream io.Writer
		if what == lay.stream {
			stream = out
		}
		if err := j.encodeLinear(ctx, stream, p.item, x); err != nil {
			return err
		}
	}
	if what == lay.stream {
		return nil
	}
	data := j.aside[p.item][what]
	delete(j.aside[p.item], what)
	_, err := out.Write(data)
	j.give(data)
	return err
}

// encodeLinear encodes an item's linear, writes the component that streams if somebody wants it
// and puts the others aside.
func (j *encodeJob) encodeLinear(ctx context.Context, stream io.Writer, item int, x EncodedLayout) error {
	streams := j.layout.Items[item].stream
	keep := aside{}
	for _, c := range x.Layout.Components {
		if shard.Part(c.Name) != streams {
			// At their full size at once: growing would leave twice as much behind as garbage.
			keep[shard.Part(c.Name)] = j.take(c.Bytes())
		}
	}
	stats, err := j.each(ctx, x, func(e *compress.Encoded) error {
		for i, c := range x.Layout.Components {
			name, data := shard.Part(c.Name), e.Data[i]
			if name != streams {
				if !c.Whole || e.Row == 0 { // every panel carries a whole component in full
					keep[name] = append(keep[name], data...)
				}
				continue
			}
			if stream == nil {
				continue
			}
			if x.Format == FormatInt {
				j.unpacked = grow(j.unpacked, e.Rows*int(x.Linear.Cols))
				if err := shard.CodesToInt8(j.unpacked, data, int(x.Linear.Cols), x.Layout.Scheme.CodeBits()); err != nil {
					return err
				}
				data = j.unpacked
			}
			if _, err := stream.Write(data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if zeros, ok := keep[shard.PartZeros]; ok && (x.Format == FormatInt || x.Format == FormatPack) {
		if keep[shard.PartZeros], err = j.storedZeros(x, zeros); err != nil {
			return err
		}
	}
	if offset, ok := keep[shard.PartOffset]; ok && x.Format == string(shard.FormatBitsAndBytes) {
		q, err := Quantized(x)
		if err != nil {
			return err
		}
		keep[shard.PartOffset] = q.StateData(math.Float32frombits(binary.LittleEndian.Uint32(offset)))
		j.give(offset)
	}
	if j.aside[item] == nil {
		j.aside[item] = keep
	} else {
		for _, b := range keep {
			j.give(b)
		}
	}
	j.stats[item] = []LinearStats{stats}
	return nil
}

// storedZeros turns zero points into the tensor that the format wants.
func (j *encodeJob) storedZeros(x EncodedLayout, zeros []byte) ([]byte, error) {
	bits := x.Layout.Scheme.CodeBits()
	if x.Format == FormatInt {
		shard.ZerosToInt8(zeros, zeros, bits)
		return zeros, nil
	}
	rows := int(x.Linear.Rows)
	groups := len(zeros) / rows
	n := shard.PackedZeroBytes(rows, groups, bits)
	packed := j.take(int64(n))[:n]
	clear(packed)
	defer j.give(zeros)
	return packed, shard.PackZeros(packed, zeros, rows, groups, bits)
}

// encodeDense writes a linear that is a whole tensor as its decoded weights.
func (j *encodeJob) encodeDense(ctx context.Context, out io.Writer, item int) error {
	lay := &j.layout.Items[item]
	x := lay.Encoded[0]
	stats, err := j.each(ctx, x, func(e *compress.Encoded) error {
		raw, err := j.decode(x, e, lay.Tensors[0].DType)
		if err != nil {
			return err
		}
		_, err = out.Write(raw)
		return err
	})
	j.stats[item] = []LinearStats{stats}
	return err
}

// decode turns a panel of codes into stored elements, which are valid until the next
// call.
func (j *encodeJob) decode(x EncodedLayout, e *compress.Encoded, stored shard.DType) ([]byte, error) {
	d, err := tensor.ParseDType(string(stored))
	if err != nil {
		return nil, err
	}
	n := e.Rows * int(x.Linear.Cols)
	j.values, j.raw = grow(j.values, n), grow(j.raw, n*d.Size())
	if err := x.Layout.Scheme.Decode(j.values, int(x.Linear.Cols), e); err != nil {
		return nil, err
	}
	if d == tensor.F64 { // no encoding keeps more than float32
		for i, v := range j.values {
			binary.LittleEndian.PutUint64(j.raw[8*i:], math.Float64bits(float64(v)))
		}
	} else {
		tensor.FromFloat32(j.raw, j.values, d)
	}
	return j.raw, nil
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// cast writes a linear as it is read.
func (j *encodeJob) cast(ctx context.Context, out io.Writer, index int) error {
	v, err := j.params.linear(index)
	if err != nil {
		return err
	}
	s, err := j.weights(EncodedLayout{Linear: v})
	if err != nil {
		return err
	}
	for p, err := range s.Panels(ctx, rowsAt(s.row, 1)) {
		if err != nil {
			return err
		}
		if _, err := out.Write(p.Data); err != nil {
			return err
		}
	}
	return nil
}

// rebuild writes a tensor of one matrix or a stack of them, in its own shape and
// order, with its encoded linears decoded into their places.
func (j *encodeJob) rebuild(ctx context.Context, out io.Writer, item int) error {
	it, lay := &j.params.Items[item], &j.layout.Items[item]
	stats := make([]LinearStats, len(lay.Encoded))
	t, err := tensorNamed(j.manifest, it.Rebuild)
	if err != nil {
		return err
	}
	count, size := int64(1), int(t.DType.Size())
	if len(t.Shape) == 3 {
		count = t.Shape[0]
	}
	cols := t.Shape[len(t.Shape)-1]
	j.matrix = grow(j.matrix, int(t.Length/max(count, 1)))
	matrix := j.matrix // matrixRows × cols, row-major, as stored
	for n := range count {
		if err := j.source.ReadAt(ctx, t.File, matrix, t.Offset+n*int64(len(matrix))); err != nil {
			return err
		}
		for k, x := range lay.Encoded {
			l := x.Linear
			if max(l.Expert, 0) != int(n) {
				continue
			}
			stats[k], err = j.each(ctx, x, func(e *compress.Encoded) error {
				raw, err := j.decode(x, e, t.DType)
				if err != nil {
					return err
				}
				for r := range int64(e.Rows) {
					row := raw[r*l.Cols*int64(size) : (r+1)*l.Cols*int64(size)]
					at := l.Row + (e.Row+r)*max(l.RowStep, 1)
					if !l.Transposed {
						copy(matrix[at*cols*int64(size):], row)
						continue
					}
					for c := range l.Cols {
						copy(matrix[(c*cols+at)*int64(size):][:size], row[c*int64(size):])
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if _, err := out.Write(matrix); err != nil {
			return err
		}
	}
	j.stats[item] = stats
	return nil
}
