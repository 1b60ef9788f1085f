package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unfinished checks that a run that failed left nothing under a final name: a
// result that was begun has its own mark, and no document that makes it look like a
// checkpoint.
func unfinished(t *testing.T, out string) {
	t.Helper()
	if _, err := os.Stat(out); os.IsNotExist(err) {
		return
	}
	left := files(t, out)
	if !slices.Contains(left, "UNFINISHED.json") {
		t.Errorf("nothing says that the result is unfinished: %v", left)
	}
	for _, name := range []string{"MANIFEST.json", "config.json", "report.json", "model.safetensors.index.json"} {
		if slices.Contains(left, name) {
			t.Errorf("left behind %s", name)
		}
	}
}

func TestBadWeights(t *testing.T) {
	t.Parallel()
	for _, recipe := range [][]string{
		{"w4a16-rtn"}, {"w8a8-rtn"}, {"w4a16-rtn-asym"}, {"w4a16-rtn-search"},
		{"w4a16-rtn", "--set", "strategy=tensor"}, {"w4a16-rtn", "--set", "output.format=dense"},
	} {
		for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			name := fmt.Sprint(strings.Join(recipe, " "), " ", v)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if testing.Short() && (v > 0 || recipe[0] != "w4a16-rtn") {
					t.Skip("a few of them will do")
				}
				all := tiny()
				named(t, all, "model.layers.1.mlp.down_proj.weight").set(77*tinyMLP+201, v)
				root, model := checkpoint(t, safetensors(all...))
				out := filepath.Join(root, "out")
				code, _, stderr := call(append([]string{"compress", "--model", model, "--out", out, "--recipe"}, recipe...)...)
				t.Log(stderr)
				if code != exitInvalid {
					t.Errorf("exit code %d, want %d", code, exitInvalid)
				}
				sentence(t, stderr, []string{"model.layers.1.mlp.down_proj", "row 77", "column 201", fmt.Sprint(v)})
				unfinished(t, out)
			})
		}
	}
}

// TestUnusedWeights carries over weights that are not encoded whatever they are.
func TestUnusedWeights(t *testing.T) {
	t.Parallel()
	all := tiny()
	named(t, all, "model.norm.weight").set(3, float32(math.NaN()))
	root, model := checkpoint(t, safetensors(all...))
	out := filepath.Join(root, "out")
	mustCall(t, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out)
	mustCall(t, "verify", "--model", model, out)
}

// TestRewrittenSource changes weights between two runs: same header, same size.
func TestRewrittenSource(t *testing.T) {
	t.Parallel()
	all := tiny()
	root, model := checkpoint(t, safetensors(all...))
	out := filepath.Join(root, "out")
	args := []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out}
	mustCall(t, args...)
	before := contents(t, out)
	if said := mustCall(t, args...); !strings.Contains(said, "complete already") {
		t.Errorf("the second run says %q", said)
	}

	named(t, all, "model.layers.0.mlp.up_proj.weight").set(5, 7)
	write(t, model, "model.safetensors", safetensors(all...))
	later := time.Now().Add(time.Second) // also where the clock of the file system is coarse
	if err := os.Chtimes(filepath.Join(model, "model.safetensors"), later, later); err != nil {
		t.Fatal(err)
	}
	refused(t, root, exitInvalid, []string{out, "other source bytes", "--overwrite"}, args...)
	mustCall(t, append(args, "--overwrite")...)
	mustCall(t, "verify", "--model", model, out)
	after := contents(t, out)
	if before["model-00002-of-00003.safetensors"] == after["model-00002-of-00003.safetensors"] {
		t.Error("the result is still that of the old weights")
	}
	if before["model-00003-of-00003.safetensors"] != after["model-00003-of-00003.safetensors"] {
		t.Error("a block whose weights are the same became another")
	}
}
