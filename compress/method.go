package compress

import (
	"context"
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
)

// Method is one way to encode linears, with its parameters fixed. It holds no weights.
type Method interface {
	// Name is the method's name in recipes, "rtn".
	Name() string
	// Version changes whenever the output bytes of the same input and parameters do.
	Version() int
	// Layout says what encoding l will give. It needs no weights, and refuses, with
	// ErrInvalid and the linear's name, what can never work.
	Layout(l Linear) (Layout, error)
	// Prepare does once what a group of linears shares and returns an encoder for each, in
	// the order of group. A method whose Layout says ShareNone is given one linear at a time.
	Prepare(ctx context.Context, group []Weights, o Options) ([]RowEncoder, error)
}

// Chainer is a method whose result another method can encode further, as weights without those it pruned, or as
// factors.
type Chainer interface {
	Method
	// Then returns the method that does both. It refuses, with ErrInvalid and the reason, what cannot be combined.
	Then(next Method) (Method, error)
}

// RowEncoder encodes panels of one linear. Rows may be called in any order, and by several
// goroutines at once if each has a dst of its own.
type RowEncoder interface {
	Rows(dst *Encoded, p Panel) error
}

// Kernel names a set of machine instructions. It never changes what comes out.
type Kernel string

// Kernels. KernelBest takes what the machine has.
const (
	KernelBest   Kernel = ""
	KernelScalar Kernel = "scalar"
	KernelAVX2   Kernel = "avx2"
	KernelAVX512 Kernel = "avx512"
)

// Options is what Prepare gets besides weights. The zero value is good for methods without Needs.
type Options struct {
	Kernel Kernel
	// PanelRows is how many rows Prepare asks for at a time, 0 for a bound on bytes. It never
	// changes what comes out.
	PanelRows int
	// Alive is called by work that takes long without reading or giving anything, at least every few seconds. nil: nobody asks.
	Alive func()
	// Seed is already derived from the recipe's seed, the purpose and the tensor's name.
	Seed uint64
}

// Beat calls Alive, if there is somebody to tell.
func (o Options) Beat() {
	if o.Alive != nil {
		o.Alive()
	}
}

// RowsPerPanel is how many rows of l a pass over its weights should ask for.
func (o Options) RowsPerPanel(l Linear) int {
	if o.PanelRows > 0 {
		return o.PanelRows
	}
	const elements = 1 << 18 // 0.5 MiB of bf16: stays in a core's cache
	return int(min(max(elements/max(l.Cols, 1), 1), max(l.Rows, 1)))
}

// Sharing says which linears go through one Prepare.
type Sharing string

// Kinds of sharing.
const (
	ShareNone  Sharing = ""      // each linear alone
	ShareFused Sharing = "fused" // linears that engines fuse into one: q, k, v; gate, up
	ShareInput Sharing = "input" // linears that read the same activations
)

// Need names a statistic that a method wants of the activations.
type Need struct {
	Stream    string `json:"stream"`    // named chain of activations: dense, compressed
	Site      string `json:"site"`      // where the linear reads: attn_in, down_in, ...
	Statistic string `json:"statistic"` // what is kept of them, or derived from what is kept
}

// Component is one named array of an encoded linear.
type Component struct {
	Name  string  `json:"name"`  // codes, scales, zeros; those of a nested scheme with a prefix, left.codes
	DType string  `json:"dtype"` // safetensors name
	Shape []int64 `json:"shape"` // the first dimension is rows, unless Whole or Ragged
	// RowsPer is how many rows share an entry of the first dimension, which then counts ceil(rows/RowsPer); 0 means 1. It
	// divides Layout.RowUnit.
	RowsPer int64 `json:"rows_per,omitempty"`
	// Whole marks an array that belongs to the linear at large, such as the scale of a tensor.
	// Every Encoded carries it in full, so that each can be decoded on its own.
	Whole bool `json:"whole,omitempty"`
	// Ragged marks an array of one dimension to which each row adds as many elements as its weights ask for, such as the values that
	// a mask keeps: at most one for each of them. Its size in all is known beforehand, that of a panel is len(Encoded.Data[i]).
	Ragged bool `json:"ragged,omitempty"`
}

// RowBytes is the size of the component's part of one row, or of RowsPer rows; 0 for one that is whole or ragged.
func (c Component) RowBytes() int64 {
	if c.Whole || c.Ragged || len(c.Shape) == 0 {
		return 0
	}
	return c.bytes(c.Shape[1:])
}

// PanelBytes is the size of the component's part of a panel of rows rows, which begins at a multiple of RowsPer. That of a whole
// component is all of it, that of a ragged one is not known.
func (c Component) PanelBytes(rows int64) int64 {
	if c.Whole {
		return c.Bytes()
	}
	per := max(c.RowsPer, 1)
	return (rows + per - 1) / per * c.RowBytes()
}

// Bytes is the size of the component of the whole linear.
func (c Component) Bytes() int64 { return c.bytes(c.Shape) }

func (c Component) bytes(shape []int64) int64 {
	d, err := tensor.ParseDType(c.DType)
	if err != nil {
		return 0
	}
	n := int64(d.Size())
	for _, dim := range shape {
		n *= dim
	}
	return n
}

// Layout is what a method will make of a linear, known before any weight is read.
type Layout struct {
	Scheme     Scheme
	Components []Component // in the order of Encoded.Data
	Share      Sharing
	AllRows    bool  // Prepare reads every row: rows cannot be split over tasks
	Seeded     bool  // Options.Seed is used
	RowUnit    int64 // panels start at a multiple of it (tiles of rows that share a scale); at least 1
	Scratch    int64 // bytes of memory beyond the panel and the components
	Needs      []Need
}

// Bytes is the size of all components.
func (l Layout) Bytes() int64 {
	var n int64
	for _, c := range l.Components {
		n += c.Bytes()
	}
	return n
}

// Encoded holds the components of a panel of rows. Its buffers are reused by the next call
// that is given it.
type Encoded struct {
	Row  int64
	Rows int
	Data [][]byte // one per component of the Layout, little-endian
	// Error and Power hold, for each row, Σ(w − ŵ)² and Σw². Sums over more rows are taken
	// in row order, so that they do not depend on the panels. Weights beyond 1e19 overflow the
	// float32 squares: such a row has +Inf.
	Error []float64 // rows
	Power []float64 // rows
}

// Resize makes room for the rows of p; methods call it first. Contents are undefined after
// it; ragged components are empty, and whole ones nil: a method points them to its own memory.
func (e *Encoded) Resize(l Layout, p Panel) {
	e.Row, e.Rows = p.Row, p.Rows
	if len(e.Data) != len(l.Components) {
		e.Data = make([][]byte, len(l.Components))
	}
	for i, c := range l.Components {
		switch {
		case c.Whole:
			e.Data[i] = nil
		case c.Ragged:
			e.Data[i] = e.Data[i][:0]
		default:
			e.Data[i] = grow(e.Data[i], int(c.PanelBytes(int64(p.Rows))))
		}
	}
	e.Error = grow(e.Error, p.Rows)
	e.Power = grow(e.Power, p.Rows)
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// Sum adds per-row figures in row order.
func Sum(total float64, rows []float64) float64 {
	for _, v := range rows {
		total += v
	}
	return total
}

// Encode runs m over one linear and hands each encoded panel to emit, in row order. It is the
// whole of the job in one process; a fleet cuts it into tasks.
func Encode(ctx context.Context, m Method, w Weights, o Options, emit func(*Encoded) error) error {
	l := w.Linear()
	enc, err := m.Prepare(ctx, []Weights{w}, o)
	if err != nil {
		return err
	}
	if len(enc) != 1 {
		return fmt.Errorf("encode %s: method %s prepared %d encoders for one linear", l.Name, m.Name(), len(enc))
	}
	layout, err := m.Layout(l)
	if err != nil {
		return err
	}
	unit := int(max(layout.RowUnit, 1))
	rows := max(o.RowsPerPanel(l)/unit, 1) * unit // panels start at a multiple of it
	var e Encoded
	for p, err := range w.Panels(ctx, rows) {
		if err != nil {
			return fmt.Errorf("encode %s: %w", l.Name, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("encode %s: %w", l.Name, err)
		}
		if err := enc[0].Rows(&e, p); err != nil {
			return err
		}
		if err := emit(&e); err != nil {
			return err
		}
	}
	return nil
}
