package source_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// writeModel makes a small Llama of two weight files, an index, a configuration and an extra file.
func writeModel(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model") // alone in its parent
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	weightMap := map[string]string{}
	for i := range 2 {
		p := fmt.Sprintf("model.layers.%d.", i)
		specs := []shard.TensorSpec{
			{Name: p + "input_layernorm.weight", DType: shard.BF16, Shape: []int64{64}},
			{Name: p + "self_attn.q_proj.weight", DType: shard.BF16, Shape: []int64{64, 64}},
			{Name: p + "self_attn.o_proj.weight", DType: shard.BF16, Shape: []int64{64, 64}},
			{Name: p + "mlp.down_proj.weight", DType: shard.BF16, Shape: []int64{64, 128}},
		}
		if i == 0 {
			specs = append(specs, shard.TensorSpec{Name: "model.embed_tokens.weight", DType: shard.BF16, Shape: []int64{50, 64}})
		}
		file := fmt.Sprintf("model-%d.safetensors", i)
		shard.SortSpecs(specs)
		layout, err := shard.NewLayout(specs, nil)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w, err := shard.NewWriter(&b, layout)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range specs {
			weightMap[s.Name] = file
			n, _ := s.Bytes()
			raw := make([]byte, n)
			for k := 0; k < len(raw); k += 2 {
				binary.LittleEndian.PutUint16(raw[k:], uint16(r.Uint32())&0xbfff) // finite
			}
			if err := w.Begin(s.Name); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(raw); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, dir, file, b.Bytes())
	}
	index, err := shard.MarshalIndex(weightMap, 0)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, shard.IndexName, index)
	write(t, dir, shard.ConfigName, []byte(`{"model_type":"llama","num_hidden_layers":2,"hidden_size":64,"torch_dtype":"bfloat16"}`))
	write(t, dir, "tokenizer.json", []byte(strings.Repeat(`{"a":1}`, 1000)))
	return dir
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hubFiles is what a hub keeps of a directory.
func hubFiles(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// copyTo copies the files of a directory below a prefix of a bucket.
func copyTo(t testing.TB, b objstore.Bucket, prefix, dir string) {
	t.Helper()
	from, err := objstore.OpenDirReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range from.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := objstore.Copy(t.Context(), b, prefix+"/"+info.Key, from, info.Key); err != nil {
			t.Fatal(err)
		}
	}
}

// sameWeights reads all tensors from both sources.
func sameWeights(t testing.TB, m *shard.Manifest, got, want *shard.Source) {
	t.Helper()
	for _, x := range m.Tensors {
		a, b := make([]byte, x.Length), make([]byte, x.Length)
		err1, err2 := got.ReadAt(t.Context(), x.File, a, x.Offset), want.ReadAt(t.Context(), x.File, b, x.Offset)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: errors %v, %v, bytes equal: %v", x.Name, err1, err2, bytes.Equal(a, b))
		}
	}
}
