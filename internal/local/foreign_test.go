package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/objstore"
)

// TestNothingOfSomebodyElseIsRemoved puts files of other people into results in
// every state: a run either leaves them alone or refuses the directory.
func TestNothingOfSomebodyElseIsRemoved(t *testing.T) {
	t.Parallel()
	model := writeSource(t, `{"model_type":"llama","hidden_size":64,"num_hidden_layers":1,"torch_dtype":"bfloat16"}`, llama("0"))
	for _, c := range []struct {
		name  string
		files map[string]string // beside UNFINISHED.json, as a killed run leaves it
		ok    bool
	}{
		{"own leftovers", map[string]string{"UNFINISHED.json": `{"files":["model-00009-of-00009.safetensors"]}`, "model-00009-of-00009.safetensors": "old"}, true},
		{"a note", map[string]string{"UNFINISHED.json": `{"files":["config.json"]}`, "notes.txt": "mine"}, false},
		{"a folder", map[string]string{"UNFINISHED.json": `{}`, "thesis/chapter.txt": "mine"}, false},
		{"no mark", map[string]string{"notes.txt": "mine"}, false},
		{"a damaged mark", map[string]string{"UNFINISHED.json": `{`, "model.safetensors": "mine"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			for name, text := range c.files {
				path := filepath.Join(out, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.files["UNFINISHED.json"] != "" { // a store's marker, as the killed run left it
				mark(t, out)
			}
			err := compressTo(t, model, out, "w4a16-rtn", "group=32")
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(out, "model-00009-of-00009.safetensors")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("what an abandoned attempt left is still there: %v", err)
				}
				return
			}
			if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), "--out") {
				t.Errorf("error %v", err)
			}
			for name, text := range c.files {
				if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(b) != text {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
}

// TestCompleteMeansThisVeryResult changes what is not weights between two runs of
// one command.
func TestCompleteMeansThisVeryResult(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, model, out string)
		want   string
	}{
		{"config of the source", func(t *testing.T, model, _ string) {
			write(t, model, "config.json", `{"model_type":"llama","hidden_size":64,"num_hidden_layers":1,"rope_theta":5,"torch_dtype":"bfloat16"}`)
		}, "config.json"},
		{"tokenizer of the source", func(t *testing.T, model, _ string) { write(t, model, "tokenizer.json", `{"a":2}`) }, "tokenizer.json"},
		{"a file more", func(t *testing.T, model, _ string) { write(t, model, "more.json", `{}`) }, "more.json"},
		{"a file less", func(t *testing.T, model, _ string) {
			if err := os.Remove(filepath.Join(model, "tokenizer.json")); err != nil {
				t.Fatal(err)
			}
		}, "other files"},
		{"a file of the result", func(t *testing.T, _, out string) {
			if err := os.Remove(filepath.Join(out, "tokenizer.json")); err != nil {
				t.Fatal(err)
			}
		}, "tokenizer.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			model := writeSource(t, `{"model_type":"llama","hidden_size":64,"num_hidden_layers":1,"torch_dtype":"bfloat16"}`, llama("0"))
			write(t, model, "tokenizer.json", `{"a":1}`)
			out := filepath.Join(t.TempDir(), "out")
			if err := compressTo(t, model, out, "w4a16-rtn", "group=32"); err != nil {
				t.Fatal(err)
			}
			c.change(t, model, out)
			err := compressTo(t, model, out, "w4a16-rtn", "group=32")
			if !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--overwrite") {
				t.Errorf("error %v, want one about %s", err, c.want)
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// mark makes a directory what a killed run leaves: a store.
func mark(t *testing.T, dir string) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "store")
	if _, err := objstore.CreateDir(empty); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(empty, ".objstore"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, ".objstore", string(b))
}
