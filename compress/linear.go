package compress

import (
	"context"
	"fmt"
	"iter"

	"github.com/shardpress/shardpress/internal/tensor"
)

// Roles of a linear. Heads, embeddings and routers are left alone by recipes that do not
// name them, see package recipe.
const (
	RoleLinear    = "linear"
	RoleHead      = "head"
	RoleEmbedding = "embedding"
	RoleRouter    = "router"
)

// maxElements bounds rows × cols so that byte and bit counts of a linear fit an int64 with room.
const maxElements = 1 << 52

// Linear describes a weight matrix; rows = outputs, cols = inputs.
type Linear struct {
	Name  string // module name without ".weight": model.layers.0.self_attn.q_proj
	Rows  int64
	Cols  int64
	DType string // safetensors name of the source elements, "BF16"
	Role  string // RoleLinear, RoleHead, ...
	Block int    // decoder block, -1 outside of blocks
}

// Validate refuses what no method can encode.
func (l Linear) Validate() error {
	if l.Rows < 1 || l.Cols < 1 {
		return Invalidf("encode %s: shape [%d, %d] is empty: put the linear on the recipe's ignore list", l.Name, l.Rows, l.Cols)
	}
	// One row must fit an int on every machine, bits included.
	if l.Cols > 1<<26 || l.Rows > maxElements/l.Cols {
		return Invalidf("encode %s: shape [%d, %d] is too large for a weight matrix", l.Name, l.Rows, l.Cols)
	}
	if _, err := tensor.ParseDType(l.DType); err != nil {
		return Invalidf("encode %s: %w", l.Name, err)
	}
	return nil
}

// Panel is a run of whole rows of a linear.
type Panel struct {
	Row   int64 // first row within the linear
	Rows  int
	Cols  int
	DType string
	Data  []byte // rows × cols, row-major, little-endian; valid until the next panel
}

// Validate checks that p is a run of rows of l and holds what it says.
func (p Panel) Validate(l Linear) error {
	if p.Rows < 0 || p.Row < 0 || p.Row > l.Rows || int64(p.Rows) > l.Rows-p.Row || int64(p.Cols) != l.Cols {
		return fmt.Errorf("encode %s: panel of rows %d+%d × %d does not lie in [%d, %d]", l.Name, p.Row, p.Rows, p.Cols, l.Rows, l.Cols)
	}
	if p.DType != l.DType {
		return fmt.Errorf("encode %s: panel holds %s, not %s", l.Name, p.DType, l.DType)
	}
	d, err := tensor.ParseDType(p.DType)
	if err != nil {
		return Invalidf("encode %s: %w", l.Name, err)
	}
	if want := int64(p.Rows) * int64(p.Cols) * int64(d.Size()); int64(len(p.Data)) != want {
		return fmt.Errorf("encode %s: panel of %d bytes where rows %d+%d need %d", l.Name, len(p.Data), p.Row, p.Rows, want)
	}
	return nil
}

// Weights gives the panels of one linear, as often as asked, in row order without gaps.
type Weights interface {
	Linear() Linear
	// Panels yields panels of at most rows rows. A panel's bytes are valid until the next
	// one is asked for. The sequence ends after the first error.
	Panels(ctx context.Context, rows int) iter.Seq2[Panel, error]
}

// NewWeights makes Weights of a matrix in memory; data is rows × cols, row-major, little-endian
// and is not copied.
func NewWeights(l Linear, data []byte) (Weights, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	d, err := tensor.ParseDType(l.DType)
	if err != nil {
		return nil, Invalidf("encode %s: %w", l.Name, err)
	}
	row := l.Cols * int64(d.Size())
	if int64(len(data))/row != l.Rows || int64(len(data))%row != 0 {
		return nil, Invalidf("encode %s: %d bytes where [%d, %d] %s needs %d", l.Name, len(data), l.Rows, l.Cols, l.DType, l.Rows*row)
	}
	return &memory{linear: l, row: int(row), data: data}, nil
}

type memory struct {
	linear Linear
	row    int // bytes
	data   []byte
}

func (m *memory) Linear() Linear { return m.linear }

func (m *memory) Panels(ctx context.Context, rows int) iter.Seq2[Panel, error] {
	return func(yield func(Panel, error) bool) {
		if rows < 1 {
			yield(Panel{}, fmt.Errorf("read %s: panels of %d rows", m.linear.Name, rows))
			return
		}
		for r := 0; r < int(m.linear.Rows); r += rows {
			if err := ctx.Err(); err != nil {
				yield(Panel{}, fmt.Errorf("read %s: %w", m.linear.Name, err))
				return
			}
			n := min(rows, int(m.linear.Rows)-r)
			p := Panel{
				Row: int64(r), Rows: n, Cols: int(m.linear.Cols), DType: m.linear.DType,
				Data: m.data[r*m.row : (r+n)*m.row],
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}
