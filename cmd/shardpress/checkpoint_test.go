package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// call runs the command line in this process and returns its exit code and what it
// printed.
func call(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

// mustCall runs a command line that must succeed and returns what it printed.
func mustCall(t *testing.T, args ...string) string {
	t.Helper()
	code, out, stderr := call(args...)
	if code != 0 || stderr != "" {
		t.Fatalf("shardpress %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, stderr)
	}
	return out
}

// array is a tensor of a test's checkpoint.
type array struct {
	name  string
	shape []int // row-major
	data  []byte
}

// weights makes a BF16 tensor of normal numbers that depend on its name only.
func weights(name string, shape ...int) array {
	var seed [32]byte
	copy(seed[:], name)
	r := rand.New(rand.NewChaCha8(seed))
	n := 1
	for _, d := range shape {
		n *= d
	}
	a := array{name: name, shape: shape, data: make([]byte, 2*n)}
	for i := range n {
		a.set(i, float32(r.NormFloat64()/16))
	}
	return a
}

// set changes an element, cutting off the bits that BF16 does not have.
func (a *array) set(i int, v float32) {
	binary.LittleEndian.PutUint16(a.data[2*i:], uint16(math.Float32bits(v)>>16))
}

// entry is the array's entry in a header.
func (a *array) entry(begin int) string {
	shape, err := json.Marshal(a.shape)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`%q:{"dtype":"BF16","shape":%s,"data_offsets":[%d,%d]}`, a.name, shape, begin, begin+len(a.data))
}

// safetensors encodes a weight file, without help from the packages under test.
func safetensors(arrays ...array) []byte {
	var entries []string
	var data []byte
	for _, a := range arrays {
		entries = append(entries, a.entry(len(data)))
		data = append(data, a.data...)
	}
	return withHeader("{"+strings.Join(entries, ",")+"}", data)
}

// withHeader puts any header before any data.
func withHeader(header string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

const (
	tinyHidden = 128
	tinyMLP    = 256
	tinyConfig = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":128,"intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":32,"tie_word_embeddings":false,"torch_dtype":"bfloat16"}`
)

// tiny returns the tensors of a Llama of two blocks.
func tiny() []array {
	all := []array{weights("model.embed_tokens.weight", 32, tinyHidden), weights("model.norm.weight", tinyHidden), weights("lm_head.weight", 32, tinyHidden)}
	for b := range 2 {
		p := fmt.Sprintf("model.layers.%d.", b)
		all = append(all, weights(p+"input_layernorm.weight", tinyHidden), weights(p+"post_attention_layernorm.weight", tinyHidden),
			weights(p+"self_attn.q_proj.weight", tinyHidden, tinyHidden), weights(p+"self_attn.k_proj.weight", tinyHidden/2, tinyHidden),
			weights(p+"self_attn.v_proj.weight", tinyHidden/2, tinyHidden), weights(p+"self_attn.o_proj.weight", tinyHidden, tinyHidden),
			weights(p+"mlp.gate_proj.weight", tinyMLP, tinyHidden), weights(p+"mlp.up_proj.weight", tinyMLP, tinyHidden),
			weights(p+"mlp.down_proj.weight", tinyHidden, tinyMLP))
	}
	return all
}

// named finds a tensor.
func named(t *testing.T, arrays []array, name string) *array {
	t.Helper()
	i := slices.IndexFunc(arrays, func(a array) bool { return a.name == name })
	if i < 0 {
		t.Fatalf("no tensor %s", name)
	}
	return &arrays[i]
}

// write writes a file below dir.
func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkpoint writes a checkpoint with one weight file below a fresh directory, in
// which there is room for results, and returns both.
func checkpoint(t *testing.T, file []byte) (root, model string) {
	t.Helper()
	root = t.TempDir()
	model = filepath.Join(root, "model")
	write(t, model, "model.safetensors", file)
	write(t, model, "config.json", []byte(tinyConfig))
	return root, model
}

// files lists the files below dir, sorted.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// contents reads all files below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range files(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}

// sparse writes a checkpoint of so many bytes of weights that are all a hole in the
// file, in tensors of 2 GiB.
func sparse(t *testing.T, size int64) (root, model string) {
	t.Helper()
	const rows, cols = 1 << 22, 256
	var entries []string
	for i := range size / (2 * rows * cols) {
		entries = append(entries, fmt.Sprintf(`"model.layers.%d.mlp.up_proj.weight":{"dtype":"BF16","shape":[%d,%d],"data_offsets":[%d,%d]}`,
			i, rows, cols, i*2*rows*cols, (i+1)*2*rows*cols))
	}
	file := withHeader("{"+strings.Join(entries, ",")+"}", nil)
	root, model = checkpoint(t, file)
	write(t, model, "config.json", []byte(strings.Replace(tinyConfig, `"num_hidden_layers":2`, fmt.Sprintf(`"num_hidden_layers":%d`, len(entries)), 1)))
	if err := os.Truncate(filepath.Join(model, "model.safetensors"), int64(len(file))+size); err != nil {
		t.Skipf("the file system has no files of that size: %v", err)
	}
	return root, model
}
