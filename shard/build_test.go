package shard

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// testTensor is a tensor of a checkpoint that a test builds. Without data it gets random finite numbers.
type testTensor struct {
	name  string
	dtype DType
	shape []int64
	data  []byte
}

func bf16(name string, shape ...int64) testTensor {
	return testTensor{name: name, dtype: BF16, shape: shape}
}

// fileBytes encodes a safetensors file without help from the package under test.
func fileBytes(t testing.TB, tensors ...testTensor) []byte {
	t.Helper()
	var header, data []byte
	header = append(header, `{"__metadata__":{"format":"pt"}`...)
	for _, x := range tensors {
		n, ok := byteLength(x.dtype, x.shape)
		if !ok {
			t.Fatalf("tensor %q is too large", x.name)
		}
		if x.data == nil {
			x.data = randomData(x, n)
		}
		name, err := json.Marshal(x.name)
		if err != nil {
			t.Fatal(err)
		}
		if x.shape == nil {
			x.shape = []int64{}
		}
		shape, err := json.Marshal(x.shape)
		if err != nil {
			t.Fatal(err)
		}
		header = append(header, ',')
		header = append(header, name...)
		header = append(header, `:{"dtype":"`+string(x.dtype)+`","shape":`...)
		header = append(header, shape...)
		header = append(header, `,"data_offsets":[`...)
		header = append(header, jsonInt(t, len(data))+","+jsonInt(t, len(data)+len(x.data))+"]}"...)
		data = append(data, x.data...)
	}
	header = append(header, '}')
	return withLength(header, data)
}

func jsonInt(t testing.TB, n int) string {
	t.Helper()
	b, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// withLength pads a header and puts its length in front.
func withLength(header, data []byte) []byte {
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...)
}

// randomData fills a tensor with bytes that depend on its name only. Exponents stay small, so that all floats are finite.
func randomData(x testTensor, n int64) []byte {
	var seed [32]byte
	copy(seed[:], x.name)
	r := rand.New(rand.NewChaCha8(seed))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
		if int64(i)%x.dtype.Size() == x.dtype.Size()-1 {
			b[i] &= 0xbf // clears the top bit of the exponent in every float type
		}
	}
	return b
}

func writeFile(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkpoint opens a directory with one file of the given tensors.
func checkpoint(t testing.TB, config string, tensors ...testTensor) *Checkpoint {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, WeightsName, fileBytes(t, tensors...))
	if config != "" {
		writeFile(t, dir, ConfigName, []byte(config))
	}
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// llama returns the tensors of a tiny Llama.
func llama(blocks int) []testTensor {
	ts := []testTensor{bf16("model.embed_tokens.weight", 48, 32), bf16("model.norm.weight", 32), bf16("lm_head.weight", 48, 32)}
	for b := range blocks {
		p := "model.layers." + string(rune('0'+b)) + "."
		ts = append(ts, bf16(p+"input_layernorm.weight", 32), bf16(p+"post_attention_layernorm.weight", 32),
			bf16(p+"self_attn.q_proj.weight", 32, 32), bf16(p+"self_attn.k_proj.weight", 16, 32), bf16(p+"self_attn.v_proj.weight", 16, 32),
			bf16(p+"self_attn.o_proj.weight", 32, 32), bf16(p+"mlp.gate_proj.weight", 64, 32), bf16(p+"mlp.up_proj.weight", 64, 32),
			bf16(p+"mlp.down_proj.weight", 32, 64))
	}
	return ts
}
