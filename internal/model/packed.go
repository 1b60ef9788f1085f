package model

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// integers reads linears that compressed-tensors stores as integers, in the formats pack-quantized and int-quantized: weight =
// scale·(code - zero point), decoded as compress.Int does it. Other formats' tensors are refused by their names, since nothing reads them.
type integers struct {
	ck   *shard.Checkpoint
	bits []int // that config.json speaks of
}

// newIntegers returns nil for a checkpoint that compressed-tensors has no part in.
func newIntegers(ck *shard.Checkpoint) (*integers, error) {
	if ck.Manifest.Model.Quantization != "compressed-tensors" {
		return nil, nil
	}
	f, err := parseFields(shard.ConfigName, ck.Config)
	if err != nil {
		return nil, err
	}
	var q struct {
		Groups map[string]struct {
			Weights *struct {
				Bits int    `json:"num_bits"`
				Type string `json:"type"`
			} `json:"weights"`
		} `json:"config_groups"`
	}
	q = get(f, "quantization_config", q, "a description of compressed-tensors")
	r := &integers{ck: ck}
	for _, g := range q.Groups {
		if w := g.Weights; w != nil && w.Type == "int" && w.Bits >= 2 && w.Bits <= 8 && !slices.Contains(r.bits, w.Bits) {
			r.bits = append(r.bits, w.Bits)
		}
	}
	return r, f.err
}

// Linear implements [Reader].
func (r *integers) Linear(ctx context.Context, module string) (Linear, []string, error) {
	m := r.ck.Manifest
	l := &integerLinear{ck: r.ck, module: module}
	var ok bool
	if l.codes, ok = m.Tensor(module + ".weight_packed"); ok {
		if err := l.packed(ctx, r.bits); err != nil {
			return nil, nil, err
		}
	} else if l.codes, ok = m.Tensor(module + ".weight"); ok && l.codes.DType == shard.I8 && len(l.codes.Shape) == 2 {
		l.rows, l.cols, l.bits = int(l.codes.Shape[0]), int(l.codes.Shape[1]), 8
	} else {
		return nil, nil, nil
	}
	if err := l.companions(); err != nil {
		return nil, nil, err
	}
	return l, l.tensors, nil
}

// integerLinear is a linear of integers. What it is made of is read when the first rows are asked for.
type integerLinear struct {
	ck                   *shard.Checkpoint
	module               string
	tensors              []string
	codes, scales, zeros shard.Tensor // zeros without a name if there are none
	scale                tensor.DType
	rows, cols, bits     int
	group                int // columns that share a scale

	mu        sync.Mutex
	rawCodes  []byte // rows × packed row
	rawScales []byte // rows × groups
	rawZeros  []byte // rows × groups, or nil
}

func (l *integerLinear) Size() (rows, cols int) { return l.rows, l.cols }

// packed takes sizes from weight_packed and weight_shape.
func (l *integerLinear) packed(ctx context.Context, bits []int) error {
	t := l.codes
	shape, ok := l.ck.Manifest.Tensor(l.module + ".weight_shape")
	if t.DType != shard.I32 || len(t.Shape) != 2 || !ok || shape.DType != shard.I64 || !slices.Equal(shape.Shape, []int64{2}) {
		return fmt.Errorf("tensor %q is %s of shape %v: %w; packed integers are I32 of two dimensions, with a weight_shape", t.Name, t.DType, t.Shape, ErrUnsupported)
	}
	raw := make([]byte, 16)
	if err := l.ck.ReadAt(ctx, shape.File, raw, shape.Offset); err != nil {
		return err
	}
	rows, cols := int64(binary.LittleEndian.Uint64(raw)), int64(binary.LittleEndian.Uint64(raw[8:]))
	if rows != t.Shape[0] || cols < 1 || cols > maxSize {
		return fmt.Errorf("tensor %q says %d × %d, %q has shape %v: %w", shape.Name, rows, cols, t.Name, t.Shape, ErrConfig)
	}
	l.rows, l.cols = int(rows), int(cols)
	for _, b := range bits {
		if int64(tensor.PackedRowBytes(l.cols, b)) == 4*t.Shape[1] {
			if l.bits != 0 {
				return fmt.Errorf("tensor %q of shape %v may hold codes of %d or %d bits: %w", t.Name, t.Shape, l.bits, b, ErrUnsupported)
			}
			l.bits = b
		}
	}
	if l.bits == 0 {
		return fmt.Errorf("tensor %q of shape %v does not hold %d columns of any num_bits in %s, %v: %w", t.Name, t.Shape, cols, shard.ConfigName, bits, ErrConfig)
	}
	l.tensors = append(l.tensors, shape.Name)
	return nil
}

// companions finds scales and zero points.
func (l *integerLinear) companions() error {
	m := l.ck.Manifest
	l.tensors = append(l.tensors, l.codes.Name)
	var ok bool
	name := l.module + ".weight_scale"
	if l.scales, ok = m.Tensor(name); !ok {
		return fmt.Errorf("tensor %q: %w", name, shard.ErrMissing)
	}
	s := l.scales
	d, err := tensor.ParseDType(string(s.DType))
	if err != nil {
		return err
	}
	groups := int64(1)
	if len(s.Shape) == 2 {
		groups = s.Shape[1]
	}
	if d != tensor.F32 && d != tensor.F16 && d != tensor.BF16 || len(s.Shape) == 0 || len(s.Shape) > 2 || s.Shape[0] != int64(l.rows) ||
		groups < 1 || int64(l.cols)%groups != 0 {
		return fmt.Errorf("tensor %q is %s of shape %v for %d × %d weights: %w; a scale for each row and group of columns is", name, s.DType, s.Shape, l.rows, l.cols, ErrUnsupported)
	}
	l.scale, l.group = d, l.cols/int(groups)
	l.tensors = append(l.tensors, name)
	if l.zeros, ok = m.Tensor(l.module + ".weight_zero_point"); ok {
		want := int64(l.rows) * groups // bytes, of int-quantized
		if l.codes.DType == shard.I32 {
			want = int64(shard.PackedZeroBytes(l.rows, int(groups), l.bits))
		}
		if l.zeros.Length != want {
			return fmt.Errorf("tensor %q has %d bytes, want %d: %w", l.zeros.Name, l.zeros.Length, want, ErrConfig)
		}
		l.tensors = append(l.tensors, l.zeros.Name)
	}
	return nil
}

// load reads codes, scales and zero points.
func (l *integerLinear) load(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rawCodes != nil {
		return nil
	}
	read := func(t shard.Tensor) ([]byte, error) {
		raw := make([]byte, t.Length)
		return raw, l.ck.ReadAt(ctx, t.File, raw, t.Offset)
	}
	codes, err := read(l.codes)
	if err != nil {
		return err
	}
	if l.rawScales, err = read(l.scales); err != nil {
		return err
	}
	packed := l.codes.DType == shard.I32
	if l.zeros.Name != "" {
		stored, err := read(l.zeros)
		if err != nil {
			return err
		}
		groups := l.cols / l.group
		l.rawZeros = make([]byte, l.rows*groups)
		if !packed {
			shard.Int8ToZeros(l.rawZeros, stored, l.bits)
		} else if err := shard.UnpackZeros(l.rawZeros, stored, l.rows, groups, l.bits); err != nil {
			return err
		}
	}
	if !packed {
		signed := codes
		codes = make([]byte, l.rows*tensor.PackedRowBytes(l.cols, l.bits))
		if err := shard.Int8ToCodes(codes, signed, l.cols, l.bits); err != nil {
			return err
		}
	}
	l.rawCodes = codes
	return nil
}

// Rows implements [Linear].
func (l *integerLinear) Rows(ctx context.Context, dst []float32, row, n int) error {
	if err := l.load(ctx); err != nil {
		return err
	}
	groups := l.cols / l.group
	var zeros []byte
	if l.rawZeros != nil {
		zeros = l.rawZeros[row*groups : (row+n)*groups]
	}
	at, scale := tensor.PackedRowBytes(l.cols, l.bits), groups*l.scale.Size()
	tensor.DecodeGroups(dst, l.rawCodes[row*at:(row+n)*at], l.rawScales[row*scale:(row+n)*scale], zeros, n, l.cols, l.group, l.bits, l.scale)
	return nil
}
