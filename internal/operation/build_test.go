package operation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// noise is a fixed stream of numbers that look like weights. Its values must never
// change: the lock file's digests are of what is made from them.
type noise struct{ state uint64 }

func (n *noise) next() float32 {
	n.state += 0x9e3779b97f4a7c15 // splitmix64 (Steele et al. 2014)
	z := n.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	// The sum of four uniform 16-bit numbers is near enough to a bell. Integers up to
	// 2^18 and a power of two: exact in float32.
	sum := int64(z&0xffff) + int64(z>>16&0xffff) + int64(z>>32&0xffff) + int64(z>>48) - 2*0xffff
	return float32(sum) * 0x1p-21
}

// testTensor is a tensor of the fixed checkpoint.
type testTensor struct {
	name  string
	dtype shard.DType
	shape []int64
}

// checkpoint writes a fixed checkpoint and opens it. Linears are views given by hand.
func checkpoint(t *testing.T, tensors []testTensor) *shard.Checkpoint {
	t.Helper()
	specs := make([]shard.TensorSpec, len(tensors))
	for i, x := range tensors {
		specs[i] = shard.TensorSpec{Name: x.name, DType: x.dtype, Shape: x.shape}
	}
	shard.SortSpecs(specs)
	layout, err := shard.NewLayout(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := shard.NewWriter(&file, layout)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		if err := w.Begin(s.Name); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(weightBytes(t, s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ck, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	return ck
}

func weightBytes(t *testing.T, s shard.TensorSpec) []byte {
	t.Helper()
	n := 1
	for _, d := range s.Shape {
		n *= int(d)
	}
	seed := sha256.Sum256([]byte(s.Name))
	src := &noise{state: uint64(seed[0]) | uint64(seed[1])<<8 | uint64(seed[2])<<16}
	values := make([]float32, n)
	for i := range values {
		values[i] = src.next()
	}
	d, err := tensor.ParseDType(string(s.DType))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, n*d.Size())
	switch d {
	case tensor.F64:
		for i, v := range values {
			for b := range 8 {
				out[8*i+b] = byte(math.Float64bits(float64(v)) >> (8 * b))
			}
		}
	case tensor.F8E4M3:
		for i, v := range values {
			out[i] = byte(int(v*0x1p10)) & 0x77 // any finite number
		}
	default:
		tensor.FromFloat32(out, values, d)
	}
	return out
}

// collector is where an operation's outputs go in tests.
type collector struct {
	names []string
	data  map[string][]byte
}

func (c *collector) put(_ context.Context, name string, r io.Reader, size int64) error {
	var b bytes.Buffer
	n, err := io.Copy(&b, r)
	if err != nil {
		return err
	}
	if size >= 0 && n != size {
		return io.ErrShortWrite
	}
	if c.data == nil {
		c.data = map[string][]byte{}
	}
	c.names = append(c.names, name)
	c.data[name] = b.Bytes()
	return nil
}

// digest is of all outputs in their order.
func (c *collector) digest() string {
	h := sha256.New()
	for _, name := range c.names {
		h.Write([]byte(name))
		h.Write(c.data[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// run runs the operation on all of a checkpoint's files.
func run(t *testing.T, ck *shard.Checkpoint, p *EncodeParams, k compress.Kernel) (*collector, error) {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	spec := &task.Spec{Op: EncodeOp, Class: ClassF32, Params: raw}
	m := &task.Message{Location: source.File(ck.Location())}
	for _, f := range ck.Manifest.Files {
		spec.Inputs = append(spec.Inputs, task.Input{Source: &task.Source{Kind: f.Identity.Kind, Value: f.Identity.Value}})
		m.Files = append(m.Files, task.File{Name: f.Name, Size: f.Size, Header: f.HeaderDigest})
	}
	out := &collector{}
	_, err = All()[EncodeOp].Run(t.Context(), spec, &Env{Message: m, Sources: &source.Opener{AnyDir: true}, Kernel: k, Progress: func(int64) {}, Put: out.put})
	return out, err
}

// must is run without an error.
func must(t *testing.T, ck *shard.Checkpoint, p *EncodeParams, k compress.Kernel) *collector {
	t.Helper()
	out, err := run(t, ck, p, k)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kernels are those that this machine can run.
func kernels(t *testing.T) []compress.Kernel {
	t.Helper()
	var list []compress.Kernel
	for _, k := range []compress.Kernel{compress.KernelScalar, compress.KernelAVX2, compress.KernelAVX512} {
		if _, err := tensor.ForName(string(k)); err == nil {
			list = append(list, k)
		}
	}
	return list
}

// fixed is the checkpoint of the lock file: every element type and every kind of view.
func fixed() []testTensor {
	return []testTensor{
		{"model.embed_tokens.weight", shard.BF16, []int64{24, 128}},
		{"model.layers.0.input_layernorm.weight", shard.BF16, []int64{128}},
		{"model.layers.0.self_attn.q_proj.weight", shard.BF16, []int64{64, 128}},
		{"model.layers.0.self_attn.k_proj.weight", shard.F16, []int64{32, 128}},
		{"model.layers.0.self_attn.v_proj.weight", shard.F32, []int64{32, 128}},
		{"model.layers.0.self_attn.o_proj.weight", shard.F64, []int64{16, 128}},
		{"model.layers.0.mlp.down_proj.weight", shard.F8E4M3, []int64{160, 256}},
		{"model.layers.0.mlp.down_proj.weight_scale_inv", shard.F32, []int64{2, 2}},
		{"model.layers.0.mlp.odd.weight", shard.BF16, []int64{5, 33}},
		{"model.layers.0.mlp.conv.weight", shard.BF16, []int64{128, 48}},
		{"model.layers.0.mlp.stacked", shard.BF16, []int64{2, 64, 128}},
	}
}

// views are the linears of the fixed checkpoint.
func views() map[string]shard.Linear {
	plain := func(name string, rows, cols int64) shard.Linear {
		return shard.Linear{Name: name, Tensor: name + ".weight", Rows: rows, Cols: cols, RowStep: 1, Expert: -1, Role: shard.RoleLinear}
	}
	v := map[string]shard.Linear{
		"bf16": plain("model.layers.0.self_attn.q_proj", 64, 128),
		"f16":  plain("model.layers.0.self_attn.k_proj", 32, 128),
		"f32":  plain("model.layers.0.self_attn.v_proj", 32, 128),
		"f64":  plain("model.layers.0.self_attn.o_proj", 16, 128),
		"fp8":  plain("model.layers.0.mlp.down_proj", 160, 256),
		"odd":  plain("model.layers.0.mlp.odd", 5, 33),
		"conv": plain("model.layers.0.mlp.conv", 48, 128),
	}
	fp8 := v["fp8"]
	fp8.Scale, fp8.ScaleBlock = "model.layers.0.mlp.down_proj.weight_scale_inv", [2]int64{128, 128}
	v["fp8"] = fp8
	conv := v["conv"]
	conv.Transposed = true
	v["conv"] = conv
	for e, name := range []string{"gate0", "gate1"} {
		v[name] = shard.Linear{
			Name:   strings.Replace("model.layers.0.mlp.experts.E.gate_proj", "E", string(rune('0'+e)), 1),
			Tensor: "model.layers.0.mlp.stacked", Rows: 32, Cols: 128, Row: 32 * int64(e), RowStep: 1, Expert: e, Role: shard.RoleLinear,
		}
	}
	return v
}
