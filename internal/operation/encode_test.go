package operation

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

// TestFileIsWhatItsLayoutSays reads the output back as a checkpoint file.
func TestFileIsWhatItsLayoutSays(t *testing.T) {
	t.Parallel()
	ck := checkpoint(t, fixed())
	for _, format := range []string{FormatPack, FormatInt, FormatDense} {
		for _, params := range []string{`{"bits":4,"strategy":"channel"}`, `{"bits":3,"symmetric":false,"strategy":"channel"}`} {
			p := encodeAll(ck.Manifest, "rtn", 1, params, format)
			layout, err := p.Layout()
			if err != nil {
				t.Fatal(err)
			}
			out := must(t, ck, p, compress.KernelBest)
			file := out.data[ShardOutput]
			if int64(len(file)) != layout.Size() {
				t.Errorf("%s %s: file of %d bytes, layout says %d", format, params, len(file), layout.Size())
			}
			h, err := shard.ReadHeader(bytes.NewReader(file), "out", int64(len(file)))
			if err != nil {
				t.Fatalf("%s %s: %v", format, params, err)
			}
			want := 0
			for _, it := range layout.Items {
				want += len(it.Tensors)
			}
			if len(h.Tensors) != want {
				t.Errorf("%s %s: file holds %d tensors, layout says %d", format, params, len(h.Tensors), want)
			}
			var stats []LinearStats
			if err := json.Unmarshal(out.data[LinearsOutput], &stats); err != nil || len(stats) != len(p.Linears) {
				t.Errorf("%s %s: %d statistics of %d linears, %v", format, params, len(stats), len(p.Linears), err)
			}
			i := 0
			for _, it := range layout.Items {
				for _, x := range it.Encoded {
					if stats[i].Name != x.Linear.Name {
						t.Errorf("%s %s: statistics %d are of %s, not of %s", format, params, i, stats[i].Name, x.Linear.Name)
					}
					i++
				}
			}
		}
	}
}

// TestScaleBeforeCodes reaches the order in which a linear must be encoded twice:
// codes of a length that keeps nothing aligned stand at the file's end, after the
// scales.
func TestScaleBeforeCodes(t *testing.T) {
	t.Parallel()
	ck := checkpoint(t, fixed())
	odd := views()["odd"]
	p := &EncodeParams{Tensors: ck.Manifest.Tensors}
	p.Items = append(p.Items, Item{Encode: []EncodeLinear{p.encode(odd, "rtn", 1, `{"bits":8,"strategy":"channel"}`, FormatInt)}})
	layout, err := p.Layout()
	if err != nil {
		t.Fatal(err)
	}
	if first := layout.File.Tensors[0].Name; !strings.HasSuffix(first, "weight_scale") {
		t.Fatalf("first tensor is %s: the test no longer reaches what it is for", first)
	}
	out := must(t, ck, p, compress.KernelBest)
	var stats []LinearStats
	if err := json.Unmarshal(out.data[LinearsOutput], &stats); err != nil || len(stats) != 1 {
		t.Fatalf("%v, %v", stats, err)
	}
	if *stats[0].Error <= 0 || *stats[0].Error > 1e-4**stats[0].Power {
		t.Errorf("8 bits lost %v of %v", *stats[0].Error, *stats[0].Power)
	}
}

func TestWeightsThatAreNoNumbers(t *testing.T) {
	t.Parallel()
	ck := checkpoint(t, fixed())
	l := views()["bf16"]
	tn, _ := ck.Manifest.Tensor(l.Tensor)
	// An infinity in row 3, column 5, before the checkpoint is opened again.
	path := filepath.Join(ck.Location(), "model.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[tn.Offset+2*(3*128+5):], []byte{0x80, 0x7f})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := shard.Open(t.Context(), ck.Location(), shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, k := range kernels(t) {
		p := &EncodeParams{Tensors: again.Manifest.Tensors}
		p.Items = append(p.Items, Item{Encode: []EncodeLinear{p.encode(l, "rtn", 1, `{}`, FormatPack)}})
		_, err = run(t, again, p, k)
		if !errors.Is(err, compress.ErrInvalid) || Classify(err) != task.Invalid {
			t.Fatalf("kernel %s: %v", k, err)
		}
		for _, want := range []string{l.Name, "row 3", "column 5"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("kernel %s: error does not say %q: %v", k, want, err)
			}
		}
	}
	// The old handle must not read the new bytes.
	p := &EncodeParams{Tensors: ck.Manifest.Tensors, Items: []Item{{Copy: l.Tensor}}}
	if _, err := run(t, ck, p, compress.KernelBest); !errors.Is(err, shard.ErrSourceChanged) || Classify(err) != task.Changed {
		t.Errorf("changed source: %v", err)
	}
}

func TestHostileSpecs(t *testing.T) {
	t.Parallel()
	ck := checkpoint(t, fixed())
	good := func() *EncodeParams { return encodeAll(ck.Manifest, "rtn", 1, `{}`, FormatPack) }
	for name, change := range map[string]func(*EncodeParams){
		"length":          func(p *EncodeParams) { p.Tensors[0].Length++ },
		"shape":           func(p *EncodeParams) { p.Tensors[0].Shape = []int64{1 << 62, 1 << 62} },
		"offset":          func(p *EncodeParams) { p.Tensors[0].Offset = -1 },
		"file":            func(p *EncodeParams) { p.Tensors[0].File = 7 },
		"twice":           func(p *EncodeParams) { p.Tensors = append(p.Tensors, p.Tensors[0]) },
		"rows":            func(p *EncodeParams) { p.Linears[0].Rows = 1 << 40 },
		"outside":         func(p *EncodeParams) { p.Linears[0].Row = 1 },
		"linear index":    func(p *EncodeParams) { p.Items[0].Encode[0].Linear = 99 },
		"negative index":  func(p *EncodeParams) { p.Items[0].Encode[0].Linear = -1 },
		"method":          func(p *EncodeParams) { p.Items[0].Encode[0].Method = "nope" },
		"method version":  func(p *EncodeParams) { p.Items[0].Encode[0].At = 99 },
		"format":          func(p *EncodeParams) { p.Items[0].Encode[0].Format = "nope" },
		"empty item":      func(p *EncodeParams) { p.Items[0] = Item{} },
		"unknown tensor":  func(p *EncodeParams) { p.Items[0] = Item{Copy: "nope"} },
		"two things":      func(p *EncodeParams) { p.Items[0].Copy = p.Tensors[0].Name },
		"rebuilt of one":  func(p *EncodeParams) { p.Items[0] = Item{Rebuild: "model.layers.0.input_layernorm.weight"} },
		"same name twice": func(p *EncodeParams) { p.Items = append(p.Items, p.Items[0]) },
	} {
		p := good()
		p.Tensors = append([]shard.Tensor{}, p.Tensors...)
		change(p)
		if _, err := run(t, ck, p, compress.KernelBest); err == nil {
			t.Errorf("%s: accepted", name)
		} else if !Classify(err).Permanent() {
			t.Errorf("%s: would be tried again: %v", name, err)
		}
	}
}

func FuzzEncodeParams(f *testing.F) {
	for _, seed := range []string{
		`{"tensors":[],"linears":[],"items":[]}`,
		`{"tensors":[{"name":"a.weight","dtype":"BF16","shape":[2,32],"file":0,"offset":8,"length":128}],"linears":[{"name":"a","tensor":"a.weight","rows":2,"cols":32,"row":0,"row_step":1,"expert":-1,"block":0,"role":"linear"}],"items":[{"encode":[{"linear":0,"method":"rtn","at":1,"params":{"group":32},"format":"pack-quantized"}]},{"copy":"a.weight"},{"cast":0},{"rebuild":"a.weight","encode":[]}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseEncodeParams(b)
		if err != nil {
			return
		}
		layout, err := p.Layout()
		if err != nil {
			return
		}
		if layout.Size() < 8 || layout.Memory < overhead {
			t.Errorf("layout of %d bytes in %d bytes of memory", layout.Size(), layout.Memory)
		}
	})
}
