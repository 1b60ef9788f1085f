package verify_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/verify"
)

// matrix is a tensor of a test's checkpoint, BF16, rows × cols, row-major.
type matrix struct {
	name       string
	rows, cols int
	at         func(i int) float32 // element i; nil for normal numbers
}

// source writes a checkpoint of one block.
func source(t *testing.T, matrices ...matrix) string {
	t.Helper()
	var entries []string
	var data []byte
	r := rand.New(rand.NewPCG(1, 2))
	for _, m := range matrices {
		begin := len(data)
		for i := range m.rows * m.cols {
			v := float32(r.NormFloat64() / 16)
			if m.at != nil {
				v = m.at(i)
			}
			data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(v)>>16))
		}
		entries = append(entries, fmt.Sprintf(`%q:{"dtype":"BF16","shape":[%d,%d],"data_offsets":[%d,%d]}`, m.name, m.rows, m.cols, begin, len(data)))
	}
	header := "{" + strings.Join(entries, ",") + "}"
	dir := t.TempDir()
	write(t, dir, "model.safetensors", append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), data...))
	write(t, dir, "config.json", []byte(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","num_hidden_layers":1}`))
	return dir
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// result compresses a checkpoint.
func result(t *testing.T, model, preset string, set ...string) string {
	t.Helper()
	r, err := recipe.Preset(preset)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range set {
		key, value, _ := strings.Cut(kv, "=")
		if err := r.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err = local.Run(t.Context(), &local.Job{
		Model: model, Recipe: r, Out: out, Workers: 2, Memory: 1 << 30, Kernel: compress.KernelBest, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// verified runs a verification that must be possible.
func verified(t *testing.T, dir, model string) *verify.Report {
	t.Helper()
	r, err := verify.Run(t.Context(), dir, model, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("the report cannot be written: %v", err)
	}
	return r
}

// TestWideRow verifies a row whose error squares are added up in one float32 sum: its
// last digits in the report are those of the additions.
func TestWideRow(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("encodes and decodes 20 million weights")
	}
	const name = "model.layers.0.mlp.down_proj"
	model := source(t, matrix{name: name + ".weight", rows: 1, cols: 20_000_000})
	for _, strategy := range []string{"channel", "tensor"} {
		out := result(t, model, "w4a16-rtn", "strategy="+strategy)
		r := verified(t, out, model)
		if len(r.Problems) > 0 || len(r.Linears) != 1 {
			t.Errorf("%s: %+v", strategy, r)
		}
	}
}

// TestFilesBesideWeights holds what is carried over against the source; what tells of
// an earlier result there is none of it.
func TestFilesBesideWeights(t *testing.T) {
	t.Parallel()
	model := source(t, matrix{name: "model.layers.0.mlp.down_proj.weight", rows: 8, cols: 128})
	for _, name := range []string{"tokenizer.json", "README.md", "UNFINISHED.json", "Manifest.json", "REPORT.json"} {
		write(t, model, name, []byte("{}"))
	}
	out := result(t, model, "w4a16-rtn")
	if r := verified(t, out, model); len(r.Problems) > 0 || r.Files != 5 {
		t.Errorf("%+v", r)
	}
	write(t, model, "tokenizer.json", []byte("[]"))
	write(t, model, "merges.txt", []byte("a b"))
	want := []string{"file merges.txt of the source is missing", "file tokenizer.json is not what the source holds"}
	if r := verified(t, out, model); !slices.Equal(r.Problems, want) {
		t.Errorf("found %q, want %q", r.Problems, want)
	}
	if r := verified(t, out, ""); len(r.Problems) > 0 {
		t.Errorf("without the source: %q", r.Problems)
	}
}

func TestFormatsAndSchemes(t *testing.T) {
	t.Parallel()
	const p = "model.layers.0."
	dense := source(t, matrix{name: "model.embed_tokens.weight", rows: 8, cols: 96}, matrix{name: p + "self_attn.q_proj.weight", rows: 40, cols: 96},
		matrix{name: p + "mlp.down_proj.weight", rows: 96, cols: 160})
	tests := []struct {
		preset string
		set    []string
		scales int
	}{
		{"w4a16-rtn", []string{"group=32"}, 2},
		{"w4a16-rtn", []string{"strategy=channel"}, 2},
		{"w4a16-rtn", []string{"strategy=tensor"}, 2},
		{"w4a16-rtn-asym", []string{"group=16"}, 2},
		{"w4a16-rtn-asym", []string{"strategy=channel"}, 2},
		{"w4a16-rtn", []string{"group=32", "bits=3"}, 2},
		{"w4a16-rtn", []string{"group=32", "bits=5", "symmetric=false"}, 2},
		{"w8a16-rtn", []string{"strategy=channel", "output.format=int-quantized"}, 2},
		{"w8a16-rtn", []string{"strategy=channel", "output.format=int-quantized", "symmetric=false"}, 2},
		{"w4a16-rtn", []string{"group=32", "output.format=dense"}, 0},
		{"w8a16-rtn", []string{"group=32", "output.format=dense"}, 0}, // the rounding to BF16 is a good part of the error
		{"w4a16-rtn", []string{"strategy=tensor", "symmetric=false", "output.format=dense"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.preset+" "+strings.Join(tt.set, " "), func(t *testing.T) {
			t.Parallel()
			r := verified(t, result(t, dense, tt.preset, tt.set...), dense)
			if len(r.Problems) > 0 || len(r.Linears) != 2 || r.Scales != tt.scales || r.Files < 3 || r.Tensors < 3 || !r.Source {
				t.Errorf("%+v", r)
			}
			for _, l := range r.Linears {
				if l.RelativeError == nil || l.Reported == nil || *l.RelativeError <= 0 {
					t.Errorf("%s has no error", l.Name)
				}
			}
		})
	}
}

func TestExperts(t *testing.T) {
	t.Parallel()
	const model = "../../testdata/models/story-moe"
	for _, set := range [][]string{{"group=64"}, {"group=64", "output.format=dense"}} {
		t.Run(strings.Join(set, " "), func(t *testing.T) {
			t.Parallel()
			r := verified(t, result(t, model, "w4a16-rtn-asym", set...), model)
			if len(r.Problems) > 0 || len(r.Linears) != 4*(4+3*8) {
				t.Errorf("%d linears, %v", len(r.Linears), r.Problems)
			}
		})
	}
}

// TestOddWeights verifies what has no relative error: zeros, and weights whose
// squares are beyond float32.
func TestOddWeights(t *testing.T) {
	t.Parallel()
	const p = "model.layers.0."
	model := source(t,
		matrix{p + "self_attn.q_proj.weight", 32, 64, func(int) float32 { return 0 }},
		matrix{p + "self_attn.o_proj.weight", 32, 64, func(i int) float32 { return float32(i%7-3) * 0x1p80 }},
		matrix{p + "mlp.up_proj.weight", 32, 64, func(i int) float32 { return float32(i%7-3) * 0x1p-120 }},
		matrix{p + "mlp.down_proj.weight", 32, 64, func(i int) float32 { return float32(i % 2) }},
	)
	for _, set := range [][]string{{"group=32"}, {"group=32", "symmetric=false"}, {"strategy=tensor"}, {"group=32", "output.format=dense"}} {
		t.Run(strings.Join(set, " "), func(t *testing.T) {
			t.Parallel()
			out := result(t, model, "w4a16-rtn", set...)
			if r := verified(t, out, model); len(r.Problems) > 0 || len(r.Linears) != 4 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestHostileResult changes any bytes of a result and lets any length lie. All of
// it has to be found, and nothing may break or be believed.
func TestHostileResult(t *testing.T) {
	t.Parallel()
	const p = "model.layers.0."
	model := source(t, matrix{name: p + "self_attn.q_proj.weight", rows: 32, cols: 64}, matrix{name: p + "mlp.down_proj.weight", rows: 64, cols: 32})
	whole := result(t, model, "w4a16-rtn-asym", "group=32")
	read := func(dir, name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	number := func(old, with string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, with, 1)) }
	}
	size := fmt.Sprintf(`"size": %d`, len(read(whole, "model.safetensors")))
	tests := []struct {
		name, file string
		change     func([]byte) []byte
	}{
		{"huge size in the manifest", "MANIFEST.json", number(size, `"size": 9223372036854775807`)},
		{"negative size", "MANIFEST.json", number(size, `"size": -1`)},
		{"size beyond int64", "MANIFEST.json", number(size, `"size": 1e300`)},
		{"hash that is none", "MANIFEST.json", number(`"sha256": "`, `"sha256": "zz`)},
		{"absolute name", "MANIFEST.json", number(`"name": "config.json"`, `"name": "/etc/passwd"`)},
		{"no recipe", "MANIFEST.json", number(`"recipe": {`, `"recipe": null, "x": {`)},
		{"a recipe that is none", "MANIFEST.json", number(`"recipe": {`, `"recipe": {"steps": 5, "x": 3}, "x": {`)},
		{"no source", "MANIFEST.json", number(`"source": [`, `"source": null, "y": [`)},
		{"manifest of null", "MANIFEST.json", func([]byte) []byte { return []byte("null") }},
		{"deep manifest", "MANIFEST.json", func([]byte) []byte { return []byte(strings.Repeat("[", 100_000)) }},
		{"report of null", "report.json", func([]byte) []byte { return []byte("null") }},
		{"report without linears", "report.json", number(`"linears": [`, `"linears": [], "x": [`)},
		{"report with a huge number", "report.json", number(`"bits": 4`, `"bits": 99999999999999999999`)},
		{"huge shape in the header", "model.safetensors", number(`"shape":[32,8]`, `"shape":[32,8000000000]`)},
		{"huge offset in the header", "model.safetensors", number(`"data_offsets":[0,`, `"data_offsets":[0,9223372036854775807],"x":[`)},
		{"empty weights", "model.safetensors", func([]byte) []byte { return nil }},
	}
	for _, forge := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprint(tt.name, " ", forge), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
					t.Fatal(err)
				}
				old := read(dir, tt.file)
				b := tt.change(slices.Clone(old))
				if string(b) == string(old) {
					t.Fatal("nothing was changed")
				}
				write(t, dir, tt.file, b)
				if forge && tt.file != "MANIFEST.json" {
					agree(t, dir, tt.file, b)
				}
				r := verified(t, dir, model)
				if len(r.Problems) == 0 {
					t.Error("nothing was found")
				}
			})
		}
	}
	t.Run("any byte", func(t *testing.T) {
		t.Parallel()
		r := rand.New(rand.NewPCG(3, 4))
		for _, name := range []string{"MANIFEST.json", "report.json", "config.json", "model.safetensors"} {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			b := read(dir, name)
			for range 40 {
				c := slices.Clone(b)
				at := r.IntN(len(c))
				c[at] ^= byte(1 + r.IntN(255))
				write(t, dir, name, c)
				agreed := name != "MANIFEST.json" && r.IntN(2) == 0
				if agreed {
					agree(t, dir, name, c)
				}
				if got := verified(t, dir, model); len(got.Problems) == 0 && !blank(b[at], c[at]) {
					t.Errorf("%s: byte %d changed from %q to %q, forged %v: nothing was found", name, at, b[at], c[at], agreed)
				}
			}
		}
	})
}
