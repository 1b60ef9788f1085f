package operation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// EncodeOp is the operation that makes one weight file of the result: tensors
// carried over, and linears encoded by data-free methods. Its version changes with
// the bytes it makes from the same spec; a method's version is part of the spec.
const EncodeOp = "encode@1"

// Outputs of EncodeOp.
const (
	ShardOutput   = "shard.safetensors" // the weight file
	LinearsOutput = "linears.json"      // []LinearStats, in order of the items
)

// Formats of a linear in the result that are treated apart; shard has the others.
const (
	FormatDense = string(shard.FormatDense)
	FormatPack  = string(shard.FormatPackQuantized)
	FormatInt   = string(shard.FormatIntQuantized)
)

// EncodeParams decide, with the source bytes, the output bytes of EncodeOp.
type EncodeParams struct {
	// Tensors are the tensors of the source that the items read. Their File counts
	// the spec's source inputs.
	Tensors []shard.Tensor `json:"tensors"`
	// Linears are views of them.
	Linears []shard.Linear `json:"linears"`
	Items   []Item         `json:"items"`
}

// Item is one step of EncodeOp, which appends tensors to the file.
type Item struct {
	// Copy names a tensor that is carried over unchanged.
	Copy string `json:"copy,omitempty"`
	// Rebuild names a tensor that is written in its own shape, with the linears
	// of Encode decoded into it.
	Rebuild string `json:"rebuild,omitempty"`
	// Encode are linears to be encoded; without Rebuild there is one.
	Encode []EncodeLinear `json:"encode,omitempty"`
	// Cast is a linear, by its index, that is written as it is read: FP8 as BF16,
	// an expert out of a stack as a tensor of its own.
	Cast *int `json:"cast,omitempty"`
}

// EncodeLinear says how one linear is encoded.
type EncodeLinear struct {
	Linear int             `json:"linear"` // index into Linears
	Method string          `json:"method"` // "rtn"
	At     int             `json:"at"`     // the method's version
	Params json.RawMessage `json:"params"` // resolved
	// Then encodes what the method makes of the weights.
	Then   *NextMethod `json:"then,omitempty"`
	Format string      `json:"format"` // a shard.Format
	// Share lists the linears that the method prepares together, this one among them, if they are several.
	Share []int `json:"share,omitempty"`
	// Seed is that of this linear, for methods that draw numbers.
	Seed uint64 `json:"seed,omitempty"`
}

// NextMethod is the second of two methods.
type NextMethod struct {
	Method string          `json:"method"`
	At     int             `json:"at"`
	Params json.RawMessage `json:"params"`
}

// LinearStats is what encoding a linear lost: Σ(w−ŵ)² and Σw². They are nil when
// they overflow, which weights beyond 1e19 do.
type LinearStats struct {
	Name  string   `json:"name"`
	Error *float64 `json:"error"`
	Power *float64 `json:"power"`
}

// Encode runs EncodeOp. The zero value works; that of All has its tasks share buffers.
type Encode struct{ buffers *pool }

// Run writes the weight file and the statistics.
func (o Encode) Run(ctx context.Context, spec *task.Spec, env *Env) ([]task.Consumed, error) {
	p, err := ParseEncodeParams(spec.Params)
	if err != nil {
		return nil, err
	}
	layout, err := p.Layout()
	if err != nil {
		return nil, err
	}
	src, consumed, err := openSource(ctx, spec, env)
	if err != nil {
		return nil, err
	}
	defer src.Close() //nolint:errcheck // opened for reading
	src.Want(p.Tensors)
	job := &encodeJob{params: p, layout: layout, manifest: layout.manifest, source: src, env: env}
	file := objstore.FromWriter(func(w io.Writer) error {
		err := job.write(ctx, w, o.buffers)
		if k := Classify(err); err != nil && (k == task.Invalid || k == task.Changed) {
			return &inputError{err}
		}
		return err
	})
	if err := env.Put(ctx, ShardOutput, file, layout.Size()); err != nil {
		var bad *inputError
		if errors.As(err, &bad) {
			return nil, bad.err // where it would have been put says nothing about it
		}
		return nil, err
	}
	stats := []LinearStats{}
	for _, s := range job.stats { // in the items' order, whatever the file's
		stats = append(stats, s...)
	}
	b, err := json.Marshal(stats)
	if err != nil {
		return nil, fmt.Errorf("encode statistics: %w", err)
	}
	return consumed, env.Put(ctx, LinearsOutput, bytes.NewReader(b), int64(len(b)))
}

// inputError is an error of what is read, on its way through the store that was to
// take what is written.
type inputError struct{ err error }

func (e *inputError) Error() string { return e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// openSource opens the files of the spec's inputs where the message says they
// are. Their identity is the spec's: the message is not trusted with it.
func openSource(ctx context.Context, spec *task.Spec, env *Env) (*shard.Source, []task.Consumed, error) {
	if len(env.Message.Files) != len(spec.Inputs) {
		return nil, nil, fmt.Errorf("open source: %w: %d files for %d inputs", task.ErrInvalid, len(env.Message.Files), len(spec.Inputs))
	}
	var files []shard.File
	var consumed []task.Consumed
	for i, in := range spec.Inputs {
		if in.Source == nil {
			return nil, nil, fmt.Errorf("open source: %w: input %d is no source file", task.ErrInvalid, i)
		}
		f := env.Message.Files[i]
		files = append(files, shard.File{
			Name: f.Name, Size: f.Size, HeaderDigest: f.Header,
			Identity: shard.Identity{Kind: in.Source.Kind, Value: in.Source.Value},
		})
		consumed = append(consumed, task.Consumed{Source: in.Source})
	}
	if env.Sources == nil {
		return nil, nil, fmt.Errorf("open source: %w: this worker reads no checkpoints", task.ErrInvalid)
	}
	src, err := env.Sources.Source(ctx, env.Message.Location, files)
	if err != nil {
		return nil, nil, err
	}
	return src, consumed, nil
}

// ParseEncodeParams reads params and checks every index and range in them.
func ParseEncodeParams(raw json.RawMessage) (*EncodeParams, error) {
	var p EncodeParams
	if err := unmarshalStrict(raw, &p); err != nil {
		return nil, fmt.Errorf("parameters of %s: %w: %w", EncodeOp, task.ErrInvalid, err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("parameters of %s: %w: %w", EncodeOp, task.ErrInvalid, err)
	}
	return &p, nil
}

// maxDimension bounds rows and columns, so that products of two fit an int64.
const maxDimension = 1 << 31

// check refuses numbers that nothing may be computed from. Whether a linear lies
// inside its tensor is checked by whoever reads it.
func (p *EncodeParams) check() error {
	elements := map[string]int64{}
	for _, t := range p.Tensors {
		n, ok := shard.TensorSpec{Name: t.Name, DType: t.DType, Shape: t.Shape}.Bytes()
		if !ok || n != t.Length || t.Offset < 0 || t.Offset > math.MaxInt64-n || t.File < 0 {
			return fmt.Errorf("tensor %q: %s %v at %d+%d of file %d", t.Name, t.DType, t.Shape, t.Offset, t.Length, t.File)
		}
		if _, twice := elements[t.Name]; twice {
			return fmt.Errorf("tensor %q is listed twice", t.Name)
		}
		elements[t.Name] = n / t.DType.Size()
	}
	for _, l := range p.Linears {
		n, ok := elements[l.Tensor]
		if !ok || l.Rows < 1 || l.Cols < 1 || l.Rows > maxDimension || l.Cols > maxDimension || l.Rows*l.Cols > n {
			return fmt.Errorf("linear %q: %d × %d of tensor %q", l.Name, l.Rows, l.Cols, l.Tensor)
		}
	}
	return nil
}

// manifest is the part of the source's manifest that the task needs. Every item
// looks for its tensors by name.
func (p *EncodeParams) manifest() *shard.Manifest {
	m := &shard.Manifest{Tensors: p.Tensors, Linears: p.Linears}
	m.Index()
	return m
}

// tensorNamed finds a tensor that an item names.
func tensorNamed(m *shard.Manifest, name string) (shard.Tensor, error) {
	t, ok := m.Tensor(name)
	if !ok {
		return shard.Tensor{}, fmt.Errorf("parameters of %s: %w: no tensor %q", EncodeOp, task.ErrInvalid, name)
	}
	return t, nil
}

func (p *EncodeParams) linear(i int) (shard.Linear, error) {
	if i < 0 || i >= len(p.Linears) {
		return shard.Linear{}, fmt.Errorf("parameters of %s: %w: linear %d of %d", EncodeOp, task.ErrInvalid, i, len(p.Linears))
	}
	return p.Linears[i], nil
}

// method makes the method of e, refusing a version that this program does not have.
func (e *EncodeLinear) method() (compress.Method, error) {
	m, err := methodAt(e.Method, e.At, e.Params)
	if err != nil || e.Then == nil {
		return m, err
	}
	next, err := methodAt(e.Then.Method, e.Then.At, e.Then.Params)
	if err != nil {
		return nil, err
	}
	return recipe.Chain(m, next)
}

func methodAt(name string, at int, params json.RawMessage) (compress.Method, error) {
	m, err := recipe.NewMethod(name, params)
	if err != nil {
		return nil, err
	}
	if m.Version() != at {
		return nil, fmt.Errorf("method %s@%d: %w: this program has version %d", name, at, task.ErrInvalid, m.Version())
	}
	return m, nil
}

// AsLinear describes a linear of the source to the methods.
func AsLinear(m *shard.Manifest, l shard.Linear) (compress.Linear, error) {
	d, err := m.LinearDType(l)
	if err != nil {
		return compress.Linear{}, err
	}
	return compress.Linear{
		Name: l.Name, Rows: l.Rows, Cols: l.Cols, DType: string(d), Role: string(l.Role), Block: l.Block,
	}, nil
}
