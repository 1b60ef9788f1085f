package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/shard"
)

// tinyModel is a checkpoint of blocks and what lies outside them, each a task of a
// millisecond, with an extra file.
func tinyModel(t *testing.T, blocks int) string {
	t.Helper()
	arrays := []array{{"model.embed_tokens.weight", shard.BF16, []int64{50, 64}}, {"model.norm.weight", shard.BF16, []int64{64}}}
	for b := range blocks {
		arrays = append(arrays, llama(fmt.Sprint(b))...)
	}
	config := fmt.Sprintf(`{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64,"num_hidden_layers":%d,"torch_dtype":"bfloat16"}`, blocks)
	model := writeSource(t, config, arrays)
	if err := os.WriteFile(filepath.Join(model, "tokenizer.json"), []byte(`{"version":"1.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return model
}

// newJob is the job of compressing model into out by groups of 32.
func newJob(model, out string) (*local.Job, error) {
	r, err := recipe.Preset("w4a16-rtn")
	if err != nil {
		return nil, err
	}
	if err := r.Set("group", "32"); err != nil {
		return nil, err
	}
	return &local.Job{
		Model: model, Recipe: r, Out: out, Workers: 1, Memory: 1 << 30, Salt: "test",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, nil
}

func mustJob(t *testing.T, model, out string) *local.Job {
	t.Helper()
	j, err := newJob(model, out)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// snapshot is every file below a directory by name, and every empty directory.
func snapshot(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			all[name+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(path)
		all[name] = string(b)
		return err
	})
	return all, err
}

// same says how a directory differs from what it should be.
func same(dir string, want map[string]string) error {
	got, err := snapshot(dir)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(got))
	if wanted := slices.Sorted(maps.Keys(want)); !slices.Equal(names, wanted) {
		return fmt.Errorf("files %q, want %q", names, wanted)
	}
	for _, name := range names {
		if got[name] != want[name] {
			return fmt.Errorf("bytes of %s differ", name)
		}
	}
	return nil
}

// calm is the result of an undisturbed run.
func calm(t *testing.T, model string) map[string]string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if _, err := local.Run(t.Context(), mustJob(t, model, out)); err != nil {
		t.Fatal(err)
	}
	want, err := snapshot(out)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// finish runs the job undisturbed and compares its result.
func finish(ctx context.Context, model, out string, want map[string]string) error {
	j, err := newJob(model, out)
	if err != nil {
		return err
	}
	if _, err := local.Run(ctx, j); err != nil && !errors.Is(err, local.ErrComplete) {
		return fmt.Errorf("run again: %w", err)
	}
	return same(out, want)
}
