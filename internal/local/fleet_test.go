package local_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/tensor"
)

const storyModel = "../../testdata/models/story"

// storyJob compresses the bundled model by a preset, as it stands.
func storyJob(t *testing.T, out, format string) *local.Job {
	t.Helper()
	j := mustJob(t, storyModel, out)
	if err := j.Recipe.Set("group", "128"); err != nil {
		t.Fatal(err)
	}
	if err := j.Recipe.Set("output.format", format); err != nil {
		t.Fatal(err)
	}
	return j
}

// TestFleetDoesNotChangeTheBytes runs one job with other numbers of workers and
// with every set of instructions that this machine has.
func TestFleetDoesNotChangeTheBytes(t *testing.T) {
	t.Parallel()
	var want [2]map[string]string
	formats := []string{"pack-quantized", "dense"}
	for i, format := range formats {
		out := filepath.Join(t.TempDir(), "out")
		j := storyJob(t, out, format)
		j.Kernel = compress.KernelScalar
		if _, err := local.Run(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		var err error
		if want[i], err = snapshot(out); err != nil {
			t.Fatal(err)
		}
	}
	for _, workers := range []int{1, 2, 4} {
		for _, kernel := range []compress.Kernel{compress.KernelScalar, compress.KernelAVX2, compress.KernelAVX512} {
			t.Run(fmt.Sprintf("%d workers %s", workers, kernel), func(t *testing.T) {
				t.Parallel()
				if _, err := tensor.ForName(string(kernel)); err != nil {
					t.Skipf("this machine has other instructions: %v", err)
				}
				for i, format := range formats {
					out := filepath.Join(t.TempDir(), "out")
					j := storyJob(t, out, format)
					j.Workers, j.Kernel = workers, kernel
					outcome, err := local.Run(t.Context(), j)
					if err != nil {
						t.Fatal(err)
					}
					if outcome.Reused != 0 || outcome.Executed != outcome.Tasks {
						t.Errorf("%+v: not all tasks were run", outcome)
					}
					if err := same(out, want[i]); err != nil {
						t.Errorf("%s: %v", format, err)
					}
				}
			})
		}
	}
}

// TestBuildsDoNotChangeTheBytes compares programs for the oldest and for a newer
// level of the architecture: with the newer one the compiler fuses and vectorises
// where it may.
func TestBuildsDoNotChangeTheBytes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the program twice")
	}
	if _, err := tensor.ForName("avx2"); err != nil {
		t.Skipf("this machine does not run GOAMD64=v3: %v", err)
	}
	results := map[string]map[string]string{}
	dir := t.TempDir()
	for _, level := range []string{"v1", "v3"} {
		program := filepath.Join(dir, "shardpress-"+level)
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/shardpress")
		build.Env = append(os.Environ(), "GOAMD64="+level)
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build for %s: %v\n%s", level, err, text)
		}
		for _, kernel := range []string{"scalar", ""} {
			for _, set := range []string{"symmetric=true", "symmetric=false"} {
				out := filepath.Join(dir, level+kernel+set, "out")
				run := exec.CommandContext(t.Context(), program, "compress", "--model", storyModel, "--recipe", "w4a16-rtn", "--set", set, "--out", out, "--workers", "2")
				run.Env = append(os.Environ(), "SHARDPRESS_KERNEL="+kernel)
				if text, err := run.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", level, err, text)
				}
				got, err := snapshot(out)
				if err != nil {
					t.Fatal(err)
				}
				if first := results[set]; first == nil {
					results[set] = got
				} else if !maps.Equal(first, got) {
					t.Errorf("%s, kernel %q, %s: other bytes than the first build", level, kernel, set)
				}
			}
		}
	}
}

// TestStoreAndOutputHaveOneUser starts a second run while a first one, in another
// process, holds the store or the output.
func TestStoreAndOutputHaveOneUser(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	want := calm(t, model)
	out := filepath.Join(t.TempDir(), "a", "out")
	c := &child{Model: model, Out: out, Workers: 1, Tell: true}
	cmd, err := c.command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// While nobody reads on, the process blocks in telling what it does.
	lines := bufio.NewReaderSize(pipe, 16)
	for line := ""; !strings.HasPrefix(line, "step store and output are locked"); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(cmd); err != nil {
		t.Fatal(err)
	}
	_, err = local.Run(t.Context(), mustJob(t, model, filepath.Join(filepath.Dir(out), "other")))
	if err == nil || !strings.Contains(err.Error(), "in use by another shardpress process") || !strings.Contains(err.Error(), local.DefaultStore(out)) {
		t.Errorf("the same store: %v", err)
	}
	if _, err := local.Collect(t.Context(), local.DefaultStore(out), 0, false); err == nil || !strings.Contains(err.Error(), "in use by another shardpress process") {
		t.Errorf("collecting the same store: %v", err)
	}
	j := mustJob(t, model, out)
	j.Store = filepath.Join(t.TempDir(), "store")
	if _, err := local.Run(t.Context(), j); err == nil || !strings.Contains(err.Error(), "another shardpress process is making a result in "+out) {
		t.Errorf("the same output: %v", err)
	}
	if err := resume(cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := lines.WriteTo(discard{}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := same(out, want); err != nil {
		t.Error(err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// TestInterrupted cancels a run after some of its operations, again and again: it
// ends soon, leaves no attempt behind, and the next one goes on.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 4)
	want := calm(t, model)
	for _, at := range []int64{5, 15, 25, 33, 41, 49, 57, 65, 80} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			j := mustJob(t, model, out)
			j.Workers = 2
			var n atomic.Int64
			j.Wrap = tapped(func(_ *call, do func() error) error {
				if n.Add(1) == at {
					cancel(errInjected)
				}
				return do()
			})
			if _, err := local.Run(ctx, j); err == nil {
				t.Fatalf("the run was not interrupted in %d operations", n.Load())
			}
			shards, err := filepath.Glob(filepath.Join(local.DefaultStore(out), "tasks/*/*/*/shard.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range shards {
				task := filepath.Dir(filepath.Dir(s))
				if _, err := os.Stat(filepath.Join(task, "result.json")); err != nil {
					t.Errorf("an attempt without a result was left: %s", s)
				}
			}
			if err := finish(t.Context(), model, out, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoReuse runs every task although results are there.
func TestNoReuse(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	want := calm(t, model)
	dir := t.TempDir()
	for i, reuse := range []bool{true, true, false} {
		out := filepath.Join(dir, fmt.Sprint(i))
		j := mustJob(t, model, out)
		j.NoReuse = !reuse
		outcome, err := local.Run(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		if fresh := i == 0 || !reuse; fresh != (outcome.Executed == 2) || fresh != (outcome.Reused == 0) {
			t.Errorf("run %d: %+v", i, outcome)
		}
		if err := same(out, want); err != nil {
			t.Error(err)
		}
	}
}

// TestUpdatesTellTheStory checks what watchers are told.
func TestUpdatesTellTheStory(t *testing.T) {
	t.Parallel()
	j := mustJob(t, tinyModel(t, 1), filepath.Join(t.TempDir(), "out"))
	var kinds []string
	j.Watch = func(u coordinator.Update) {
		if u.Kind != coordinator.UpdateProgress {
			kinds = append(kinds, u.Kind)
		}
	}
	outcome, err := local.Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if outcome.Elapsed <= 0 || outcome.Elapsed > time.Hour {
		t.Errorf("elapsed %v", outcome.Elapsed)
	}
	if kinds[0] != coordinator.UpdateStarted || !slices.Equal(kinds[len(kinds)-2:], []string{coordinator.UpdateAssemble, coordinator.UpdateFinished}) {
		t.Errorf("updates %q", kinds)
	}
	slices.Sort(kinds)
	if want := []string{"assemble", "done", "done", "finished", "placed", "placed", "started"}; !slices.Equal(kinds, want) {
		t.Errorf("updates %q, want %q", kinds, want)
	}
}
