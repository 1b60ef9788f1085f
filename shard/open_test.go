package shard

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	a, b := fileBytes(t, bf16("a.weight", 2, 4)), fileBytes(t, bf16("b.weight", 2, 4))
	index := func(pairs ...string) []byte {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		out, err := MarshalIndex(m, 32)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tests := []struct {
		name  string
		files map[string][]byte
		path  string // below the directory
		want  error
		says  []string
		names []string // weight files
	}{
		{name: "one file", files: map[string][]byte{WeightsName: a}, names: []string{WeightsName}},
		{name: "one file of another name", files: map[string][]byte{"x.safetensors": a, ".y.safetensors": b}, names: []string{"x.safetensors"}},
		{name: "model.safetensors beside others", files: map[string][]byte{"x.safetensors": a, WeightsName: b}, names: []string{WeightsName}},
		{name: "path of a file", files: map[string][]byte{"x.safetensors": a, "y.safetensors": b}, path: "y.safetensors", names: []string{"y.safetensors"}},
		{name: "path of an index", files: map[string][]byte{"x.safetensors": a, IndexName: index("a.weight", "x.safetensors")}, path: IndexName,
			names: []string{"x.safetensors"}},
		{name: "index", files: map[string][]byte{"1.safetensors": a, "2.safetensors": b, "3.safetensors": b,
			IndexName: index("a.weight", "1.safetensors", "b.weight", "2.safetensors")}, names: []string{"1.safetensors", "2.safetensors"}},
		{name: "tensor that the index leaves out", files: map[string][]byte{"1.safetensors": fileBytes(t, bf16("a.weight", 2, 4), bf16("c", 2)),
			IndexName: index("a.weight", "1.safetensors")}, names: []string{"1.safetensors"}},
		{name: "missing shard", files: map[string][]byte{"1.safetensors": a, IndexName: index("a.weight", "1.safetensors", "b.weight", "2.safetensors")},
			want: ErrMissing, says: []string{"2.safetensors", "download"}},
		{name: "tensor in another file", files: map[string][]byte{"1.safetensors": a, "2.safetensors": b,
			IndexName: index("a.weight", "2.safetensors", "b.weight", "1.safetensors")}, want: ErrMalformed, says: []string{`"a.weight"`, "2.safetensors"}},
		{name: "tensor nowhere", files: map[string][]byte{"1.safetensors": a, IndexName: index("a.weight", "1.safetensors", "b.weight", "1.safetensors")},
			want: ErrMissing, says: []string{`"b.weight"`, "1.safetensors"}},
		{name: "tensor in two files", files: map[string][]byte{"1.safetensors": fileBytes(t, bf16("a.weight", 2, 4), bf16("c", 2)),
			"2.safetensors": fileBytes(t, bf16("b.weight", 2, 4), bf16("c", 2)), IndexName: index("a.weight", "1.safetensors", "b.weight", "2.safetensors")},
			want: ErrDuplicate, says: []string{`"c"`, "1.safetensors", "2.safetensors"}},
		{name: "two models", files: map[string][]byte{WeightsName: a, "1.safetensors": b, IndexName: index("b.weight", "1.safetensors")},
			want: ErrDuplicate, says: []string{WeightsName, IndexName}},
		{name: "several files without an index", files: map[string][]byte{"1.safetensors": a, "2.safetensors": b}, want: ErrMissing, says: []string{IndexName}},
		{name: "no weights", files: map[string][]byte{ConfigName: []byte("{}"), "pytorch_model.bin": {1}}, want: ErrMissing, says: []string{"safetensors"}},
		{name: "no such directory", path: "nowhere", want: fs.ErrNotExist, says: []string{"nowhere"}},
		{name: "other file", files: map[string][]byte{"m.gguf": {1}}, path: "m.gguf", want: ErrUnsupported, says: []string{"m.gguf"}},
		{name: "no tensor", files: map[string][]byte{WeightsName: fileBytes(t)}, want: ErrMissing, says: []string{WeightsName}},
		{name: "truncated", files: map[string][]byte{WeightsName: a[:len(a)-1]}, want: ErrMalformed, says: []string{WeightsName, "a.weight", "download"}},
		{name: "index leads out of the directory", files: map[string][]byte{IndexName: index("a.weight", "../x.safetensors")}, want: ErrMalformed, says: []string{"../x"}},
		{name: "index names a directory", files: map[string][]byte{IndexName: index("a.weight", "..")}, want: ErrMalformed},
		{name: "damaged index", files: map[string][]byte{IndexName: []byte(`{"weight_map":`)}, want: ErrMalformed, says: []string{IndexName}},
		{name: "damaged config", files: map[string][]byte{WeightsName: a, ConfigName: []byte(`{`)}, want: ErrMalformed, says: []string{ConfigName}},
		{name: "config with a wrong type", files: map[string][]byte{WeightsName: a, ConfigName: []byte(`{"hidden_size":"many"}`)},
			want: ErrMalformed, says: []string{ConfigName, "hidden_size"}},
		{name: "config with a key twice", files: map[string][]byte{WeightsName: a, ConfigName: []byte(`{"a":1,"a":2}`)}, want: ErrDuplicate, says: []string{ConfigName}},
		{name: "config of Python", files: map[string][]byte{WeightsName: a, ConfigName: []byte(`{"limit":[0.0,Infinity]}`)}, names: []string{WeightsName}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, b := range tt.files {
				writeFile(t, dir, name, b)
			}
			c, err := Open(t.Context(), filepath.Join(dir, tt.path), OpenOptions{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err != nil {
				for _, s := range tt.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("error %q does not say %q", err, s)
					}
				}
				return
			}
			defer c.Close()
			var names []string
			for _, f := range c.Manifest.Files {
				names = append(names, f.Name)
			}
			if !slices.Equal(names, tt.names) {
				t.Errorf("files %v, want %v", names, tt.names)
			}
			roundTrip(t, c.Manifest)
		})
	}
}

// roundTrip checks that a manifest survives its canonical bytes.
func roundTrip(t *testing.T, m *Manifest) {
	t.Helper()
	b, err := m.MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := again.MarshalCanonical()
	if err != nil || string(b) != string(c) {
		t.Errorf("bytes differ after a round trip: %v", err)
	}
}

func TestOpenUnreadableDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A link to itself cannot be opened by anybody, the superuser included.
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Skip("no symbolic links here")
	}
	if _, err := Open(t.Context(), loop, OpenOptions{}); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("error %v", err)
	}
	// The same for a shard.
	if err := os.Symlink(WeightsName, filepath.Join(dir, WeightsName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, OpenOptions{}); err == nil || !strings.Contains(err.Error(), WeightsName) {
		t.Errorf("error %v", err)
	}
}

func TestOpenExtras(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, WeightsName, fileBytes(t, bf16("a.weight", 2, 4)))
	for _, name := range []string{"tokenizer.json", "generation_config.json", "chat_template.jinja", "modeling.py", "README.md", ConfigName,
		".gitattributes", "pytorch_model.bin", "pytorch_model.bin.index.json", "old.safetensors", "model.gguf", "MANIFEST.json", "Report.json",
		"UNFINISHED.json", "hf_quant_config.json"} {
		writeFile(t, dir, name, []byte("{}"))
	}
	if err := os.Mkdir(filepath.Join(dir, "original"), 0o700); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(filepath.Join(dir, "video.mp4"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(big.Truncate(MaxExtra+1), big.Close()); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var names, skipped []string
	sum := sha256.Sum256([]byte("{}"))
	for _, e := range c.Manifest.Extras {
		names = append(names, e.Name)
		if e.Size != 2 || e.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("extra %+v", e)
		}
	}
	for _, s := range c.Manifest.Skipped {
		skipped = append(skipped, s.Name)
		if s.Reason == "" {
			t.Errorf("no reason for %s", s.Name)
		}
	}
	if want := []string{"README.md", "chat_template.jinja", "generation_config.json", "modeling.py", "tokenizer.json"}; !slices.Equal(names, want) {
		t.Errorf("extras %v, want %v", names, want)
	}
	if want := []string{".gitattributes", "MANIFEST.json", "Report.json", "UNFINISHED.json", "hf_quant_config.json", "model.gguf", "old.safetensors", "original", "pytorch_model.bin",
		"pytorch_model.bin.index.json", "video.mp4"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
	if b, err := c.Source().ReadExtra(t.Context(), c.Manifest.Extras[0]); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	writeFile(t, dir, "README.md", []byte("[]"))
	if _, err := c.Source().ReadExtra(t.Context(), c.Manifest.Extras[0]); !errors.Is(err, ErrSourceChanged) {
		t.Errorf("error %v", err)
	}
	roundTrip(t, c.Manifest)
}
