package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// refused runs a command line that must be refused with one sentence, and before
// anything was written below root.
func refused(t *testing.T, root string, code int, want []string, args ...string) {
	t.Helper()
	before := files(t, root)
	got, stdout, stderr := call(args...)
	t.Logf("%s", stderr)
	if got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	sentence(t, stderr, want)
	if stdout != "" {
		t.Errorf("printed %q before it refused", stdout)
	}
	if after := files(t, root); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("left behind %v", after)
	}
}

// sentence checks that an error is one line with everything in it.
func sentence(t *testing.T, stderr string, want []string) {
	t.Helper()
	if !strings.HasPrefix(stderr, "shardpress: ") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("want one line that begins with the program's name, got %q", stderr)
	}
	for _, w := range want {
		if !strings.Contains(stderr, w) {
			t.Errorf("%q is not in %q", w, stderr)
		}
	}
}

func TestBadSource(t *testing.T) {
	t.Parallel()
	good := safetensors(tiny()...)
	q := weights("model.layers.0.self_attn.q_proj.weight", 8, 8)
	k := weights("model.layers.0.self_attn.k_proj.weight", 8, 8)
	entry := func(name, shape string, begin, end int) string {
		return fmt.Sprintf(`%q:{"dtype":"BF16","shape":%s,"data_offsets":[%d,%d]}`, name, shape, begin, end)
	}
	tests := []struct {
		name string
		file []byte
		want []string
	}{
		{"empty", nil, []string{"model.safetensors", "download"}},
		{"truncated length", good[:5], []string{"model.safetensors", "5 bytes", "download"}},
		{"truncated header", good[:100], []string{"model.safetensors", "truncated", "download"}},
		{"truncated data", good[:len(good)-1], []string{"model.safetensors", "tensor", "truncated", "download"}},
		{"bytes behind the end", append(append([]byte{}, good...), 0), []string{"model.safetensors", "1 bytes after the last tensor", "download"}},
		{"lying header length", withLength(good, 1<<62), []string{"model.safetensors", "header length", "download"}},
		{"negative header length", withLength(good, math.MaxUint64), []string{"model.safetensors", "header length", "download"}},
		{"overlap", withHeader("{"+q.entry(0)+","+k.entry(64)+"}", append(q.data, k.data[:64]...)), []string{"model.safetensors", k.name, q.name, "overlaps"}},
		{"gap", withHeader("{"+q.entry(0)+","+k.entry(136)+"}", append(q.data, make([]byte, 136)...)), []string{"model.safetensors", k.name, "gap"}},
		{"huge offset", withHeader("{"+entry(q.name, "[8,8]", math.MaxInt64-128, math.MaxInt64)+"}", q.data), []string{"model.safetensors", q.name}},
		{"offset beyond int64", withHeader(`{"w":{"dtype":"BF16","shape":[8,8],"data_offsets":[0,18446744073709551744]}}`, q.data), []string{"model.safetensors"}},
		{"negative offset", withHeader(`{"w":{"dtype":"BF16","shape":[8,8],"data_offsets":[-128,0]}}`, q.data), []string{"model.safetensors"}},
		{"huge shape", withHeader("{"+entry(q.name, "[4294967296,4294967296]", 0, 128)+"}", q.data), []string{"model.safetensors", q.name, "shape"}},
		{"shape and size differ", withHeader("{"+entry(q.name, "[8,9]", 0, 128)+"}", q.data), []string{"model.safetensors", q.name, "144 bytes", "128"}},
		{"duplicate key", withHeader("{"+q.entry(0)+","+q.entry(128)+"}", append(q.data, q.data...)), []string{"model.safetensors", q.name, "duplicate"}},
		{"unknown dtype", withHeader(`{"w":{"dtype":"Q4_K","shape":[8,8],"data_offsets":[0,128]}}`, q.data), []string{"model.safetensors", "w", "Q4_K"}},
		{"no JSON", withHeader("{nonsense", q.data), []string{"model.safetensors"}},
		{"no tensor", withHeader("{}", nil), []string{"model.safetensors", "no tensor"}},
		{"control characters in a name", withHeader("{"+entry("a\u001b[31m", "[8,8]", 0, 128)+"}", q.data), []string{"model.safetensors"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, model := checkpoint(t, tt.file)
			for _, args := range [][]string{
				{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "out")},
				{"plan", "--model", model, "--recipe", "w4a16-rtn"},
				{"inspect", model},
			} {
				refused(t, root, exitInvalid, tt.want, args...)
			}
		})
	}
}

// withLength overwrites the header's length.
func withLength(file []byte, n uint64) []byte {
	file = append([]byte{}, file...)
	for i := range 8 {
		file[i] = byte(n >> (8 * i))
	}
	return file
}

func TestBadDirectory(t *testing.T) {
	t.Parallel()
	q, k := weights("model.layers.0.self_attn.q_proj.weight", 128, 128), weights("model.layers.0.self_attn.k_proj.weight", 128, 128)
	const index = "model.safetensors.index.json"
	const first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	both := []byte(fmt.Sprintf(`{"weight_map":{%q:%q,%q:%q}}`, q.name, first, k.name, second))
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
		code int
		want []string
	}{
		{"nothing there", func(t *testing.T, dir string) { remove(t, dir) }, exitInvalid, []string{"model"}},
		{"no weights", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "model.safetensors")) }, exitInvalid, []string{"model.safetensors", "missing", "download"}},
		{"a shard is missing", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, index, both)
			write(t, dir, first, safetensors(q))
		}, exitInvalid, []string{"missing", second, index, "download"}},
		{"a tensor is in no shard", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, index, both)
			write(t, dir, first, safetensors(q))
			write(t, dir, second, safetensors(weights("other", 8, 8)))
		}, exitInvalid, []string{"missing", k.name, second, index}},
		{"a tensor is in two shards", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, index, both)
			write(t, dir, first, safetensors(q))
			write(t, dir, second, safetensors(k, q))
		}, exitInvalid, []string{"duplicate", q.name, first, second}},
		{"a tensor is in another shard than the index says", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, index, both)
			write(t, dir, first, safetensors(k))
			write(t, dir, second, safetensors(q))
		}, exitInvalid, []string{first, second, index}},
		{"the index names a tensor twice", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, index, []byte(fmt.Sprintf(`{"weight_map":{%q:%q,%q:%q}}`, q.name, first, q.name, second)))
			write(t, dir, first, safetensors(q))
			write(t, dir, second, safetensors(k))
		}, exitInvalid, []string{"duplicate", q.name, index}},
		{"the index leads out of the directory", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, index, []byte(fmt.Sprintf(`{"weight_map":{%q:"../model.safetensors"}}`, q.name)))
		}, exitInvalid, []string{index, "../model.safetensors"}},
		{"the index is no JSON", func(t *testing.T, dir string) {
			write(t, dir, index, []byte(`{"weight_map"`))
		}, exitInvalid, []string{index}},
		{"two files and no index", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			write(t, dir, first, safetensors(q))
			write(t, dir, second, safetensors(k))
		}, exitInvalid, []string{first, second, index}},
		{"a directory in place of the weights", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "model.safetensors"))
			mkdir(t, filepath.Join(dir, "model.safetensors"))
		}, exitInvalid, []string{"model.safetensors"}},
		{"config.json is no JSON", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte(`{"architectures":`))
		}, exitInvalid, []string{"config.json"}},
		{"config.json is no object", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte(`[]`))
		}, exitInvalid, []string{"config.json"}},
		{"a directory in place of config.json", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "config.json"))
			mkdir(t, filepath.Join(dir, "config.json"))
		}, exitInvalid, []string{"config.json"}},
		{"already quantized", func(t *testing.T, dir string) {
			write(t, dir, "config.json", []byte(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","quantization_config":{"quant_method":"gptq","bits":4}}`))
			codes := weights("model.layers.0.self_attn.q_proj.qweight", 16, 256)
			write(t, dir, "model.safetensors", []byte(strings.Replace(string(safetensors(codes)), `"BF16","shape":[16,256]`, `"I32" ,"shape":[16,128]`, 1)))
		}, exitInvalid, []string{"gptq", "quantized"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, model := checkpoint(t, safetensors(tiny()...))
			tt.make(t, model)
			refused(t, root, tt.code, tt.want, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "out"))
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableSource needs a user whom permissions bind.
func TestUnreadableSource(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("permissions do not bind the superuser")
	}
	for _, name := range []string{"model.safetensors", "config.json", "."} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, model := checkpoint(t, safetensors(tiny()...))
			path := filepath.Join(model, name)
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(path, 0o700) }) // lets the directory be removed
			code, _, stderr := call("compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "out"))
			if code != exitFailed {
				t.Errorf("exit code %d", code)
			}
			sentence(t, stderr, []string{name, "permission"})
		})
	}
}
