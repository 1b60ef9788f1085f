package operation

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// The fixed inputs of the self-test and of the lock file. They must never change: the
// digests are of what is made from them.

// noise is a fixed stream of numbers that look like weights.
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

// fixedTensor is a tensor of a fixed checkpoint.
type fixedTensor struct {
	name  string
	dtype shard.DType
	shape []int64
}

// fixedFile is the weight file of a checkpoint of those tensors.
func fixedFile(tensors []fixedTensor) ([]byte, error) {
	specs := make([]shard.TensorSpec, len(tensors))
	for i, x := range tensors {
		specs[i] = shard.TensorSpec{Name: x.name, DType: x.dtype, Shape: x.shape}
	}
	shard.SortSpecs(specs)
	layout, err := shard.NewLayout(specs, nil)
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	w, err := shard.NewWriter(&file, layout)
	if err != nil {
		return nil, err
	}
	for _, s := range specs {
		raw, err := fixedWeights(s)
		if err != nil {
			return nil, err
		}
		if err := w.Begin(s.Name); err != nil {
			return nil, err
		}
		if _, err := w.Write(raw); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return file.Bytes(), nil
}

// fixedWeights are the stored elements of a tensor, which its name decides.
func fixedWeights(s shard.TensorSpec) ([]byte, error) {
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
		return nil, err
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
	return out, nil
}

// fixed is the checkpoint of the lock file: every element type and every kind of view.
func fixed() []fixedTensor {
	return []fixedTensor{
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

// fixedPlain has the operation alone: copies and casts, and the layout of the file.
func fixedPlain(m *shard.Manifest) *EncodeParams {
	v := views()
	p := &EncodeParams{Tensors: m.Tensors}
	for _, name := range []string{"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.mlp.odd.weight"} {
		p.Items = append(p.Items, Item{Copy: name})
	}
	for _, name := range []string{"fp8", "gate0", "gate1", "conv"} {
		n := len(p.Linears)
		p.Linears = append(p.Linears, v[name])
		p.Items = append(p.Items, Item{Cast: &n})
	}
	return p
}

// fixedMethod has the operation use a method in all ways, nil if there are none here.
func fixedMethod(m *shard.Manifest, method string, version int) []*EncodeParams {
	var cases []*EncodeParams
	for _, params := range variants(method) {
		for _, format := range lockedFormats(method, params) {
			cases = append(cases, encodeAll(m, method, version, params, format))
		}
	}
	return cases
}

// lockedFormats are formats that hold what the method makes.
func lockedFormats(method, params string) []string {
	switch {
	case method == "bcq", method == "olive", method == "hqq" && !strings.Contains(params, `"int"`):
		return []string{string(shard.FormatShardpress), FormatDense}
	case method == "hqq":
		return []string{FormatPack, string(shard.FormatShardpress), FormatDense}
	case strings.Contains(params, "e5m2"):
		return []string{string(shard.FormatShardpress), FormatDense}
	case method == "fp8":
		return []string{string(shard.FormatFloatQuantized), FormatDense}
	case method == "mxfp4":
		return []string{string(shard.FormatMXFP4), string(shard.FormatShardpress), FormatDense}
	case method == "mxfp8":
		return []string{string(shard.FormatMXFP8), FormatDense}
	case method == "lorc", method == "lplr", method == "magnitude", method == "svd":
		return []string{string(shard.FormatShardpress), FormatDense}
	case method == "nf4" || method == "fp4" || method == "llmint8":
		return []string{string(shard.FormatBitsAndBytes), string(shard.FormatShardpress), FormatDense}
	case method == "nvfp4":
		return []string{string(shard.FormatNVFP4), string(shard.FormatShardpress), FormatDense}
	}
	return []string{FormatPack, FormatInt, FormatDense}
}

// lockedThen are parameters of a method whose result another one encodes.
const lockedThen = `{"by":"rank","rank":7}`

// next is the second method of a case, nil if it has none.
func next(method, params string) *NextMethod {
	if method != "lorc" && params != lockedThen {
		return nil
	}
	return &NextMethod{Method: "rtn", At: 1, Params: json.RawMessage(`{"bits":4,"strategy":"channel"}`)}
}

// lockedChain has a method encode what another leaves of the weights.
func lockedChain(m *shard.Manifest, version map[string]int) fixedJob {
	next := &NextMethod{Method: "rtn", At: version["rtn"], Params: json.RawMessage(`{"bits":4,"group":16}`)}
	job := fixedJob{name: fmt.Sprintf("%s+magnitude@%d+rtn@%d", EncodeOp, version["magnitude"], next.At)}
	for _, params := range []string{`{"sparsity":0.4}`, `{"pattern":"n:m","n":2,"m":4}`} {
		for _, format := range []string{FormatPack, FormatDense} {
			p := encodeAll(m, "magnitude", version["magnitude"], params, format)
			for i := range p.Items {
				for k := range p.Items[i].Encode {
					p.Items[i].Encode[k].Then = next
				}
			}
			job.cases = append(job.cases, p)
		}
	}
	return job
}

// variants are parameters of a method that together reach all of its code.
func variants(method string) []string {
	switch method {
	case "nf4", "fp4":
		return []string{`{}`, `{"double_quant":false}`, `{"block":32}`, `{"block":4096}`, `{"block":256,"double_quant":false}`}
	case "llmint8":
		return []string{`{}`}
	case "fp8":
		return []string{
			`{"strategy":"channel"}`, `{"strategy":"tensor"}`, `{"strategy":"block","block_rows":48,"block_cols":64}`, `{"strategy":"block"}`,
			`{"element":"e5m2","strategy":"channel"}`,
		}
	case "lorc":
		return []string{`{"rank":3}`}
	case "lplr", "svd":
		return []string{`{"by":"ratio","ratio":0.3}`, lockedThen}
	case "mxfp4", "mxfp8", "nvfp4":
		return []string{`{}`}
	case "bcq":
		return []string{
			`{"bits":1,"group":32}`, `{"bits":3,"rounds":0,"strategy":"channel"}`, `{"bits":4,"group":128}`, `{"bits":3,"group":128,"offset":true}`,
			`{"bits":8,"group":128}`,
		}
	case "hqq":
		return []string{
			`{"bits":2,"group":32}`, `{"bits":3,"strategy":"channel"}`, `{"bits":4}`, `{"bits":8}`, `{"bits":4,"zeros":"int"}`,
			`{"bits":3,"norm":0.5,"beta":100000}`, `{"bits":4,"iterations":1,"norm":1,"beta":1000}`,
		}
	case "olive":
		return []string{`{"bits":4,"strategy":"group","group":32}`, `{"bits":4}`, `{"bits":8}`}
	case "magnitude":
		return []string{
			`{"sparsity":0.3,"scope":"tensor"}`, `{"sparsity":0.7,"scope":"row"}`,
			`{"pattern":"n:m","n":2,"m":4}`, `{"pattern":"n:m","n":3,"m":8}`, `{"pattern":"n:m","n":5,"m":16}`,
		}
	case "rtn":
	default:
		return nil
	}
	var list []string
	for bits := 2; bits <= 8; bits++ {
		for _, symmetric := range []bool{true, false} {
			for _, strategy := range []string{`"group","group":32`, `"group","group":128`, `"channel"`} {
				list = append(list, fmt.Sprintf(`{"bits":%d,"symmetric":%v,"strategy":%s}`, bits, symmetric, strategy))
			}
		}
		list = append(list, fmt.Sprintf(`{"bits":%d,"strategy":"tensor"}`, bits))
	}
	return append(list,
		`{"bits":4,"strategy":"group","group":128,"search":true}`,
		`{"bits":3,"symmetric":false,"strategy":"channel","search":true}`,
		`{"bits":4,"strategy":"tensor","search":true}`)
}

// encodeAll encodes every linear of the fixed checkpoint that the format can hold.
func encodeAll(m *shard.Manifest, method string, version int, params, format string) *EncodeParams {
	v := views()
	p := &EncodeParams{Tensors: m.Tensors}
	names := []string{"bf16", "f16", "f32", "f64", "fp8", "gate0", "gate1"}
	if strings.Contains(params, `"channel"`) || strings.Contains(params, `"tensor"`) || method == "nf4" || method == "fp4" || method == "llmint8" {
		names = append(names, "odd") // groups do not divide it
	}
	slices.Sort(names)
	for _, name := range names {
		l := v[name]
		if format == FormatDense && l.Expert >= 0 {
			continue // rebuilt below
		}
		p.Items = append(p.Items, Item{Encode: []EncodeLinear{p.encode(l, method, version, params, format)}})
	}
	if format == FormatDense {
		stack := Item{Rebuild: "model.layers.0.mlp.stacked"}
		for _, name := range []string{"gate0", "gate1"} {
			stack.Encode = append(stack.Encode, p.encode(v[name], method, version, params, format))
		}
		conv := Item{Rebuild: "model.layers.0.mlp.conv.weight", Encode: []EncodeLinear{p.encode(v["conv"], method, version, params, format)}}
		p.Items = append(p.Items, stack, conv)
	}
	if method == "nvfp4" {
		p.share(v, "bf16", "f16", "f32")
		p.share(v, "gate0", "gate1")
	}
	return p
}

// share has linears prepared together.
func (p *EncodeParams) share(v map[string]shard.Linear, names ...string) {
	var with []int
	for _, name := range names {
		with = append(with, slices.IndexFunc(p.Linears, func(l shard.Linear) bool { return l.Name == v[name].Name }))
	}
	for _, it := range p.Items {
		for i := range it.Encode {
			if slices.Contains(with, it.Encode[i].Linear) {
				it.Encode[i].Share = with
			}
		}
	}
}

func (p *EncodeParams) encode(l shard.Linear, method string, version int, params, format string) EncodeLinear {
	p.Linears = append(p.Linears, l)
	return EncodeLinear{Linear: len(p.Linears) - 1, Method: method, At: version, Params: json.RawMessage(params), Format: format, Then: next(method, params)}
}
