package shard

import (
	"errors"
	"strings"
	"testing"
)

func TestManifestIsCanonical(t *testing.T) {
	t.Parallel()
	config := `{"num_hidden_layers":2,"hidden_size":32}`
	a, b := checkpoint(t, config, llama(2)...), checkpoint(t, config, llama(2)...)
	// Only identities differ between two copies.
	for i := range a.Manifest.Files {
		b.Manifest.Files[i].Identity = a.Manifest.Files[i].Identity
	}
	x, err := a.Manifest.MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Manifest.MarshalCanonical()
	if err != nil || string(x) != string(y) {
		t.Errorf("manifests differ: %v", err)
	}
	for name, text := range map[string]string{
		"space":         " " + string(x),
		"no newline":    strings.TrimSpace(string(x)),
		"text after":    string(x) + "{}",
		"unknown field": strings.Replace(string(x), `"version":1`, `"version":1,"x":1`, 1),
		"key twice":     strings.Replace(string(x), `"version":1`, `"version":1,"version":1`, 1),
		"other case":    strings.Replace(string(x), `"version":1`, `"Version":1`, 1),
		"null":          strings.Replace(string(x), `"extras":[]`, `"extras":null`, 1),
		"left out":      strings.Replace(string(x), `"extras":[],`, ``, 1),
		"escape":        strings.Replace(string(x), `"lm_head.weight"`, `"lm\u005fhead.weight"`, 1),
		"number":        strings.Replace(string(x), `"version":1`, `"version":1.0`, 1),
		"empty":         "",
	} {
		if text == string(x) {
			t.Errorf("%s: the test changes nothing", name)
		}
		if _, err := ParseManifest([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestParseManifestRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(m *Manifest)
	}{
		{"version", func(m *Manifest) { m.Version = 2 }},
		{"file path", func(m *Manifest) { m.Files[0].Name = "../x" }},
		{"file size", func(m *Manifest) { m.Files[0].Size = 7 }},
		{"file cut", func(m *Manifest) { m.Files[0].Size-- }},
		{"digest", func(m *Manifest) { m.Files[0].HeaderDigest = "00" }},
		{"identity kind", func(m *Manifest) { m.Files[0].Identity.Kind = "mood" }},
		{"identity value", func(m *Manifest) { m.Files[0].Identity.Value = strings.Repeat("Z", 64) }},
		{"tensor file", func(m *Manifest) { m.Tensors[0].File = 1 }},
		{"negative tensor file", func(m *Manifest) { m.Tensors[0].File = -1 }},
		{"tensor offset", func(m *Manifest) { m.Tensors[0].Offset = -8 }},
		{"tensor overlap", func(m *Manifest) { m.Tensors[1].Offset-- }},
		{"tensor length", func(m *Manifest) { m.Tensors[0].Length++ }},
		{"tensor shape", func(m *Manifest) { m.Tensors[0].Shape = []int64{1 << 62, 1 << 62} }},
		{"tensor type", func(m *Manifest) { m.Tensors[0].DType = "BF17" }},
		{"tensor name", func(m *Manifest) { m.Tensors[0].Name = m.Tensors[1].Name }},
		{"tensor order", func(m *Manifest) { m.Tensors[0], m.Tensors[1] = m.Tensors[1], m.Tensors[0] }},
		{"linear tensor", func(m *Manifest) { m.Linears[0].Tensor = "x" }},
		{"linear name", func(m *Manifest) { m.Linears[1].Name = m.Linears[0].Name }},
		{"linear rows", func(m *Manifest) { m.Linears[0].Rows++ }},
		{"linear rows far beyond", func(m *Manifest) { m.Linears[0].Rows = 1<<63 - 1 }},
		{"linear row", func(m *Manifest) { m.Linears[0].Row = 1 }},
		{"linear step", func(m *Manifest) { m.Linears[0].RowStep = 0 }},
		{"linear expert", func(m *Manifest) { m.Linears[0].Expert = 0 }},
		{"linear block", func(m *Manifest) { m.Linears[0].Block = 2 }},
		{"linear role", func(m *Manifest) { m.Linears[0].Role = "king" }},
		{"linear scale", func(m *Manifest) { m.Linears[0].Scale = "x" }},
		{"linear order", func(m *Manifest) { m.Linears[0], m.Linears[1] = m.Linears[1], m.Linears[0] }},
		{"place tensor", func(m *Manifest) { m.Places[0].Tensor = "x" }},
		{"place twice", func(m *Manifest) { m.Places[1] = m.Places[0] }},
		{"place block", func(m *Manifest) { m.Places[0].Block = -2 }},
		{"place role", func(m *Manifest) { m.Places[0].Role = "" }},
		{"blocks", func(m *Manifest) { m.Model.Blocks = maxBlocks + 1 }},
		{"model type", func(m *Manifest) { m.Model.DType = "X" }},
		{"extra path", func(m *Manifest) { m.Extras[0].Name = "a/b" }},
		{"extra size", func(m *Manifest) { m.Extras[0].Size = -1 }},
		{"extra digest", func(m *Manifest) { m.Extras[0].SHA256 = "" }},
		{"extra twice", func(m *Manifest) { m.Extras = append(m.Extras, m.Extras[0]) }},
	}
	dir := t.TempDir()
	writeFile(t, dir, WeightsName, fileBytes(t, llama(2)...))
	writeFile(t, dir, "tokenizer.json", []byte("{}"))
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := c.Manifest.MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := ParseManifest(good)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(m)
			b, err := m.MarshalCanonical()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseManifest(b); err == nil {
				t.Error("no error")
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, tensors := range [][]testTensor{llama(1),
		{bf16("l.0.experts.gate_up_proj", 2, 12, 8), bf16("l.0.experts.down_proj", 2, 8, 6)},
		{{name: "l.0.a.weight", dtype: F8E4M3, shape: []int64{4, 4}}, {name: "l.0.a.weight_scale_inv", dtype: F32, shape: []int64{1, 1}}}} {
		m, err := classified(f, "", tensors...)
		if err != nil {
			f.Fatal(err)
		}
		b, err := m.MarshalCanonical()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		// Whatever parses can be used without leaving a file.
		for _, l := range m.Linears {
			x, ok := m.Tensor(l.Tensor)
			if !ok || l.Rows < 0 || l.Cols < 0 {
				t.Fatalf("linear %+v", l)
			}
			if n, err := m.RowBytes(l); err != nil || l.Rows > 0 && (n > 2*x.Length || n*l.Rows > 2*x.Length) {
				t.Fatalf("linear %+v of %+v has %d bytes a row, %v", l, x, n, err)
			}
		}
		for _, x := range m.Tensors {
			if x.Offset < 8 || x.Offset+x.Length > m.Files[x.File].Size {
				t.Fatalf("tensor %+v", x)
			}
		}
	})
}
