package shard

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
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

// fuzzManifests returns the bytes of some small manifests with all kinds of linears.
func fuzzManifests(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	for _, tensors := range [][]testTensor{llama(1),
		{bf16("l.0.experts.gate_up_proj", 2, 12, 8), bf16("l.0.experts.down_proj", 2, 8, 6)},
		{bf16("l.0.experts.gate_up_proj", 2, 8, 12), bf16("l.0.experts.down_proj", 2, 6, 8), bf16("l.0.attn.c_attn.weight", 8, 24)},
		{{name: "l.0.a.weight", dtype: F8E4M3, shape: []int64{4, 4}}, {name: "l.0.a.weight_scale_inv", dtype: F32, shape: []int64{1, 1}}}} {
		m, err := classified(f, "", tensors...)
		if err != nil {
			f.Fatal(err)
		}
		b, err := m.MarshalCanonical()
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// checkUsable fails when something that parsed could lead out of a file.
func checkUsable(t *testing.T, b []byte) {
	t.Helper()
	m, err := ParseManifest(b)
	if err != nil {
		return
	}
	for _, x := range m.Tensors {
		if x.Offset < 8 || x.Length < 0 || x.Offset+x.Length > m.Files[x.File].Size {
			t.Fatalf("tensor %+v", x)
		}
	}
	for _, l := range m.Linears {
		x, ok := m.Tensor(l.Tensor)
		if !ok || l.Rows < 1 || l.Cols < 1 || l.Block >= maxBlocks {
			t.Fatalf("linear %+v", l)
		}
		if n, err := m.RowBytes(l); err != nil || n > 2*x.Length || n*l.Rows > 2*x.Length {
			t.Fatalf("linear %+v of %+v has %d bytes a row, %v", l, x, n, err)
		}
		// The element with the highest offset, by the definition of a view.
		shape, base := x.Shape, int64(0)
		if l.Expert >= 0 {
			shape = shape[1:]
			base = int64(l.Expert) * shape[0] * shape[1]
		}
		r, c := l.Row+(l.Rows-1)*l.RowStep, l.Cols-1
		if l.Transposed {
			r, c = c, r
		}
		if r < 0 || r >= shape[0] || c < 0 || c >= shape[1] || (base+r*shape[1]+c+1)*x.DType.Size() > x.Length {
			t.Fatalf("linear %+v leaves %+v", l, x)
		}
		if l.Scale != "" {
			s, _ := m.Tensor(l.Scale)
			at := (l.Row+l.Rows-1)/l.ScaleBlock[0]*ceilDiv(l.Cols, l.ScaleBlock[1]) + (l.Cols-1)/l.ScaleBlock[1]
			if (at+1)*s.DType.Size() > s.Length {
				t.Fatalf("linear %+v leaves its scales %+v", l, s)
			}
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, b := range fuzzManifests(f) {
		f.Add(b)
	}
	f.Fuzz(checkUsable)
}

// FuzzManifestNumbers puts hostile numbers into manifests that are good otherwise, which mutation of the text hardly ever does.
func FuzzManifestNumbers(f *testing.F) {
	manifests := fuzzManifests(f)
	number := regexp.MustCompile(`[:\[,](-?[0-9]+)`)
	for i := range manifests {
		f.Add(uint8(i), uint16(3*i), int64(1)<<62, uint16(40), int64(-1))
	}
	f.Fuzz(func(t *testing.T, which uint8, first uint16, a int64, second uint16, b int64) {
		text := manifests[int(which)%len(manifests)]
		for _, change := range []struct {
			at uint16
			to int64
		}{{first, a}, {second, b}} {
			places := number.FindAllSubmatchIndex(text, -1)
			p := places[int(change.at)%len(places)]
			text = slices.Concat(text[:p[2]], strconv.AppendInt(nil, change.to, 10), text[p[3]:])
		}
		checkUsable(t, text)
	})
}
