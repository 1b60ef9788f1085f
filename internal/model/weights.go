package model

import (
	"context"
	"fmt"
	"sync"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// Linear is a weight matrix, rows = outputs × cols = inputs, that gives its rows as float32.
type Linear interface {
	// Size returns the rows and columns.
	Size() (rows, cols int)
	// Rows fills dst, n × cols, row-major, with n rows from row on. It may be called from many goroutines.
	Rows(ctx context.Context, dst []float32, row, n int) error
}

// Reader finds the linears of a checkpoint that is not stored as plain floats.
type Reader interface {
	// Linear returns the linear of a module, in memory if keep says so, and the tensors that it is made of; nil if the checkpoint
	// has it as plain floats or not at all.
	Linear(ctx context.Context, module string) (l Linear, tensors []string, err error)
}

// stored is a linear as the checkpoint has it: floats of any type.
type stored struct {
	ck    *shard.Checkpoint
	l     shard.Linear
	dtype tensor.DType
	row   int64  // bytes of a row
	raw   []byte // rows × row once loaded
}

func newStored(ck *shard.Checkpoint, l shard.Linear) (*stored, error) {
	t, err := ck.Manifest.LinearDType(l)
	if err != nil {
		return nil, err
	}
	d, err := tensor.ParseDType(string(t))
	if err != nil {
		return nil, err
	}
	if !d.Float() {
		return nil, fmt.Errorf("linear %s is stored as %s: %w", l.Name, t, ErrUnsupported)
	}
	row, err := ck.Manifest.RowBytes(l)
	return &stored{ck: ck, l: l, dtype: d, row: row}, err
}

func (s *stored) Size() (rows, cols int) { return int(s.l.Rows), int(s.l.Cols) }

// load reads the matrix into memory.
func (s *stored) load(ctx context.Context) error {
	raw := make([]byte, s.l.Rows*s.row)
	_, err := s.ck.Source().ReadRows(ctx, s.ck.Manifest, s.l, 0, int(s.l.Rows), raw)
	if err == nil {
		s.raw = raw
	}
	return err
}

func (s *stored) Rows(ctx context.Context, dst []float32, row, n int) error {
	from, bytes := int64(row)*s.row, int64(n)*s.row
	if s.raw != nil {
		tensor.ToFloat32(dst[:n*int(s.l.Cols)], s.raw[from:from+bytes], s.dtype)
		return nil
	}
	raw := make([]byte, bytes)
	if _, err := s.ck.Source().ReadRows(ctx, s.ck.Manifest, s.l, int64(row), n, raw); err != nil {
		return err
	}
	tensor.ToFloat32(dst[:n*int(s.l.Cols)], raw, s.dtype)
	return nil
}

// linear is a matrix of the model with its bias.
type linear struct {
	name       string // of the module
	rows, cols int
	w          Linear
	bias       []float32 // rows, or nil
}

// panelWeights is how many weights are widened at a time: 16 MiB of float32, so that packing the activations anew for each
// panel is little against the product.
const panelWeights = 1 << 22

// engine is what all blocks compute with.
type engine struct {
	kernels *tensor.Kernels
	threads int
	panels  sync.Pool // *[]float32 of widened weights
	rotary  *rotations
}

// lend returns a buffer of n elements and a function that takes it back.
func (e *engine) lend(n int) ([]float32, func()) {
	p, _ := e.panels.Get().(*[]float32)
	if p == nil {
		p = new([]float32)
	}
	if cap(*p) < n {
		*p = make([]float32, n)
	}
	return (*p)[:n], func() { e.panels.Put(p) }
}

// apply computes y = x·Wᵀ + bias for n vectors. x is n × cols, the result n × rows, row-major.
func (e *engine) apply(ctx context.Context, l *linear, x []float32, n int) ([]float32, error) {
	y := make([]float32, n*l.rows)
	err := e.panelwise(ctx, l, func(row, rows int, w []float32) error {
		e.kernels.GEMM(e.threads, false, true, n, rows, l.cols, x, l.cols, w, l.cols, y[row:], l.rows, false)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if l.bias != nil {
		for i := range n {
			e.kernels.Add(y[i*l.rows:][:l.rows], l.bias)
		}
	}
	if i := tensor.Finite(y); i >= 0 {
		return nil, fmt.Errorf("linear %s: output %d of row %d of the batch is %v: %w; look for damaged weights", l.name, i%l.rows, i/l.rows, y[i], ErrNotFinite)
	}
	return y, nil
}

// panelwise gives the rows of a linear, a panel after the other.
func (e *engine) panelwise(ctx context.Context, l *linear, do func(row, rows int, w []float32) error) error {
	per := max(panelWeights/l.cols, 1)
	w, back := e.lend(min(per, l.rows) * l.cols)
	defer back()
	for row := 0; row < l.rows; row += per {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := min(per, l.rows-row)
		if err := l.w.Rows(ctx, w[:rows*l.cols], row, rows); err != nil {
			return fmt.Errorf("read linear %s: %w", l.name, err)
		}
		if err := do(row, rows, w[:rows*l.cols]); err != nil {
			return err
		}
	}
	return nil
}
