package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
)

// story is the bundled model, which takes a while; most tests do with a smaller one.
const story = "../../testdata/models/story"

func TestCompress(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	write(t, model, "tokenizer.json", []byte(`{"version":"1.0"}`))
	out, report := filepath.Join(root, "out"), filepath.Join(root, "report.json")
	args := []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out}

	said := mustCall(t, append(args, "--report", report)...)
	for _, want := range []string{
		"plan: 3 tasks", "recipe w4a16-rtn as pack-quantized", ": 3 tasks\n", "[1/3] model-0000", "[3/3] model-0000",
		"ratio ", "bits per weight", "4.125 where encoded", "worst linear model.layers.", "3 tasks: 3 run, 0 reused",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	first := contents(t, out)
	if got := slices.Sorted(maps.Keys(first)); fmt.Sprint(got) != "[MANIFEST.json config.json model-00001-of-00003.safetensors model-00002-of-00003.safetensors "+
		"model-00003-of-00003.safetensors model.safetensors.index.json report.json tokenizer.json]" {
		t.Errorf("the result holds %v", got)
	}
	var told coordinator.Record
	parse(t, report, &told)
	if n := told.Totals; n.Tasks != 3 || n.Run != 3 || n.Reused != 0 || n.Unfinished != 0 || n.Elapsed <= 0 || n.SourceBytes <= n.ResultBytes || n.ResultBytes <= 0 {
		t.Errorf("--report says %+v", n)
	}
	if r := told; r.Version != 1 || r.Run == "" || r.State != "done" || r.Error != "" || r.Model != model || r.Out != out || len(r.Workers) != 1 ||
		!strings.Contains(string(r.Recipe), `"group": 128`) || len(r.Tasks) != 3 {
		t.Errorf("--report says %+v", r)
	}
	for i, task := range told.Tasks {
		if len(task.Task) != 64 || task.File != fmt.Sprintf("model-%05d-of-00003.safetensors", i+1) || task.State != "run" || task.Worker != told.Workers[0] ||
			task.Attempt == "" || task.Elapsed <= 0 || task.SourceBytes <= 0 {
			t.Errorf("--report says of task %d %+v", i, task)
		}
	}
	var stored coordinator.Record
	runs := filepath.Join(root, ".shardpress", "runs", told.Run)
	parse(t, filepath.Join(runs, "state.json"), &stored)
	stored.Recipe, told.Recipe = nil, nil // indented there
	if !reflect.DeepEqual(stored, told) {
		t.Errorf("state.json holds %+v, --report %+v", stored, told)
	}
	var spec struct {
		Request struct{ Model, Out string }
		Recipe  struct{ Steps []any }
	}
	parse(t, filepath.Join(runs, "spec.json"), &spec)
	if spec.Request.Model != model || spec.Request.Out != out || len(spec.Recipe.Steps) != 1 {
		t.Errorf("spec.json holds %+v", spec)
	}

	t.Run("complete already", func(t *testing.T) { //nolint:paralleltest // in order
		if said := mustCall(t, args...); strings.Count(said, "\n") != 1 || !strings.Contains(said, out+" is complete already") {
			t.Errorf("%q", said)
		}
		if said := mustCall(t, append(args, "--json")...); said != fmt.Sprintf("{\"kind\":\"complete\",\"out\":%q}\n", out) {
			t.Errorf("%q", said)
		}
		same(t, out, first)
	})
	t.Run("overwrite", func(t *testing.T) { //nolint:paralleltest // in order
		if said := mustCall(t, append(args, "--overwrite")...); !strings.Contains(said, "3 of 3 tasks are in the store already, none left to do") ||
			!strings.Contains(said, "0 run, 3 reused") {
			t.Errorf("%q", said)
		}
		same(t, out, first)
	})
	t.Run("no reuse", func(t *testing.T) { //nolint:paralleltest // in order
		if said := mustCall(t, append(args, "--overwrite", "--no-reuse")...); !strings.Contains(said, "3 run, 0 reused") || strings.Contains(said, "in the store") {
			t.Errorf("%q", said)
		}
		same(t, out, first)
	})
	t.Run("resume", func(t *testing.T) { //nolint:paralleltest // in order
		remove(t, out)
		results, err := filepath.Glob(filepath.Join(root, ".shardpress", "tasks", "*", "*", "result.json"))
		if err != nil || len(results) != 3 {
			t.Fatal(results, err)
		}
		remove(t, results[0])
		if said := mustCall(t, args...); !strings.Contains(said, "2 of 3 tasks are in the store already, 1 left to do") || !strings.Contains(said, "1 run, 2 reused") {
			t.Errorf("%q", said)
		}
		same(t, out, first)
	})
	t.Run("another recipe", func(t *testing.T) { //nolint:paralleltest // in order
		other := append(slices.Clone(args), "--set", "group=32")
		refused(t, root, exitInvalid, []string{out, "another recipe", "--overwrite"}, other...)
		same(t, out, first)
		mustCall(t, append(other, "--overwrite")...)
		mustCall(t, "verify", "--model", model, out)
	})
}

// same checks that a directory holds what it did.
func same(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := contents(t, dir)
	if fmt.Sprint(slices.Sorted(maps.Keys(got))) != fmt.Sprint(slices.Sorted(maps.Keys(want))) {
		t.Errorf("%s holds %v", dir, slices.Sorted(maps.Keys(got)))
	}
	for name, b := range want {
		if got[name] != b {
			t.Errorf("%s is another", name)
		}
	}
}

func parse(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestReportOfARunThatFails reads what --report holds of runs that made no result.
func TestReportOfARunThatFails(t *testing.T) {
	t.Parallel()
	bad := tiny()
	named(t, bad, "model.layers.1.mlp.up_proj.weight").set(3, float32(math.NaN()))
	root, model := checkpoint(t, safetensors(bad...))
	out, report := filepath.Join(root, "out"), filepath.Join(root, "report.json")
	args := []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out, "--report", report}
	if code, _, stderr := call(args...); code != exitInvalid || !strings.Contains(stderr, "NaN") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	var r coordinator.Record
	parse(t, report, &r)
	if n := r.Totals; r.State != "failed" || !strings.Contains(r.Error, "NaN") || n.Unfinished == 0 || n.Run+n.Reused+n.Unfinished != n.Tasks || n.Failures != 1 {
		t.Errorf("--report says %+v", r)
	}

	// It does not even begin.
	if code, _, _ := call(append(args, "--memory", "1")...); code != exitInvalid {
		t.Errorf("exit code %d", code)
	}
	r = coordinator.Record{}
	parse(t, report, &r)
	if r.State != "failed" || !strings.Contains(r.Error, "--memory") || r.Run != "" || r.Model != model || r.Out != out || len(r.Recipe) == 0 || r.Tasks == nil {
		t.Errorf("--report says %+v", r)
	}

	// It is there already.
	root, model = checkpoint(t, safetensors(tiny()...))
	out, report = filepath.Join(root, "out"), filepath.Join(root, "report.json")
	args = []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out, "--report", report}
	mustCall(t, args...)
	mustCall(t, args...)
	r = coordinator.Record{}
	parse(t, report, &r)
	if r.State != "complete" || r.Error != "" {
		t.Errorf("--report says %+v", r)
	}
}

func TestJSONEvents(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	said := mustCall(t, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "out"), "--json")
	count := map[string]int{}
	var last map[string]any
	for line := range strings.Lines(said) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		kind, _ := event["kind"].(string)
		count[kind]++
		last = event
	}
	for kind, want := range map[string]int{"planned": 1, "started": 1, "done": 3, "placed": 3, "assemble": 1, "finished": 1, "report": 1, "failed": 0, "": 0} {
		if count[kind] != want {
			t.Errorf("%d events of kind %q, want %d", count[kind], kind, want)
		}
	}
	report, _ := last["report"].(map[string]any)
	if last["kind"] != "report" || report["format"] != "pack-quantized" {
		t.Errorf("the last line is %v", last)
	}
}

// TestRecipeFile compresses by a file of one's own, from a path to a single weight
// file, and by the canonical recipe of another result.
func TestRecipeFile(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	outside := t.TempDir()
	write(t, outside, "mine.yaml", []byte("version: 1\nname: mine\nsteps:\n  - method: rtn\n    targets: [\"*.mlp.*\"]\n    bits: 8\n    strategy: channel\n"+
		"  - method: rtn\n    targets: [model.layers.0.self_attn.q_proj]\n    bits: 3\n    group: 64\noutput: {format: dense}\n"))
	out := filepath.Join(root, "out")
	mustCall(t, "compress", "--model", filepath.Join(model, "model.safetensors"), "--recipe", filepath.Join(outside, "mine.yaml"), "--out", out)
	mustCall(t, "verify", "--model", model, out)
	var r coordinator.Report
	parse(t, filepath.Join(out, "report.json"), &r)
	if len(r.Linears) != 7 || r.Format != "dense" {
		t.Errorf("%d linears as %s", len(r.Linears), r.Format)
	}
}

// hook calls back before a text is written for the first time.
type hook struct {
	io.Writer
	text string
	once sync.Once
	then func()
}

func (h *hook) Write(b []byte) (int, error) {
	if strings.Contains(string(b), h.text) {
		h.once.Do(h.then)
	}
	return h.Writer.Write(b)
}

// TestSourceChangesDuringRun rewrites files once the plan has been made.
func TestSourceChangesDuringRun(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"model.safetensors", "tokenizer.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, model := checkpoint(t, safetensors(tiny()...))
			write(t, model, "tokenizer.json", []byte(`{"version":"1.0"}`))
			out := filepath.Join(root, "out")
			var stderr strings.Builder
			code := run([]string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out}, &hook{Writer: io.Discard, text: "plan:", then: func() {
				b, err := os.ReadFile(filepath.Join(model, name))
				if err != nil {
					t.Error(err)
				}
				b[len(b)-3] ^= 1
				remove(t, filepath.Join(model, name)) // another inode, whatever the file system's clock
				write(t, model, name, b)
			}}, &stderr)
			if code != exitFailed {
				t.Errorf("exit code %d", code)
			}
			sentence(t, stderr.String(), []string{filepath.Join(model, name), "changed", "run"})
			unfinished(t, out)
		})
	}
}

// TestPlan reads headers only: the weights of this checkpoint are a hole of a
// terabyte.
func TestPlan(t *testing.T) {
	t.Parallel()
	_, model := sparse(t, 1<<40)
	said := mustCall(t, "plan", "--model", model, "--recipe", "w4a16-rtn")
	for _, want := range []string{"TASK", "MEMORY", "512 tensors", "512 tasks encode 512 linears", "reads 1.00 TiB", "writes 264"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in the plan's end %q", want, said[max(0, len(said)-400):])
		}
	}
	var plan struct {
		Tasks []struct {
			Task, File string
			Memory     int64 `json:"memory"`
		} `json:"tasks"`
		Source int64  `json:"source_bytes"`
		Format string `json:"format"`
	}
	if err := json.Unmarshal([]byte(mustCall(t, "plan", "--model", model, "--recipe", "w4a16-rtn", "--json")), &plan); err != nil {
		t.Fatal(err)
	}
	if len(plan.Tasks) != 512 || plan.Source != 1<<40 || plan.Format != "pack-quantized" || plan.Tasks[0].Memory <= 0 {
		t.Errorf("%d tasks, %d bytes, %s, %+v", len(plan.Tasks), plan.Source, plan.Format, plan.Tasks[0])
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	said := mustCall(t, "inspect", story, "--tensors")
	for _, want := range []string{"LlamaForCausalLM (llama)", "blocks", "model.layers.", "tied embedding  true", "linear", "model.layers.2.mlp.down_proj.weight", "[256, 512]"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	var manifest map[string]any
	if err := json.Unmarshal([]byte(mustCall(t, "inspect", filepath.Join(story, "model.safetensors"), "--json")), &manifest); err != nil {
		t.Fatal(err)
	}
	if tensors, _ := manifest["tensors"].([]any); len(tensors) != 29 {
		t.Errorf("%d tensors", len(tensors))
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	out, store := filepath.Join(root, "out"), filepath.Join(root, "store")
	mustCall(t, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out, "--store", store)
	first := contents(t, out)
	if said := mustCall(t, "gc", "--store", store); !strings.Contains(said, "removed 0 tasks") || !strings.Contains(said, "kept 3 tasks") {
		t.Errorf("young results: %q", said)
	}
	if said := mustCall(t, "gc", "--store", store, "--older-than", "0s", "--dry-run"); !strings.Contains(said, "would remove 3 tasks") {
		t.Errorf("dry run: %q", said)
	}
	var got coordinator.Collected
	if err := json.Unmarshal([]byte(mustCall(t, "gc", "--store", store, "--older-than", "0s", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Tasks != 3 || got.Kept != 0 {
		t.Errorf("%+v", got)
	}
	same(t, out, first)
	mustCall(t, "verify", "--model", model, out)
}

func TestRecipesAndVersion(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"w4a16-rtn ", "METHOD rtn@1", "group=128"} {
		if said := mustCall(t, "recipes"); !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	var list struct {
		Presets []struct{ Name string }
		Methods []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(mustCall(t, "recipes", "--json")), &list); err != nil || len(list.Presets) == 0 || len(list.Methods) == 0 {
		t.Errorf("%v, %v", list, err)
	}
	if said := mustCall(t, "version"); !strings.HasPrefix(said, "shardpress ") || !strings.Contains(said, "task salt ") {
		t.Errorf("%q", said)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compresses the bundled model with every recipe of the demo")
	}
	keep := filepath.Join(t.TempDir(), "demo")
	said := mustCall(t, "demo", "--keep", keep)
	for _, d := range demoRecipes() {
		if !strings.Contains(said, "\n"+d.name+" ") {
			t.Errorf("no line of %s in %q", d.name, said)
		}
		mustCall(t, "verify", "--model", filepath.Join(keep, "story"), filepath.Join(keep, d.name))
	}
	// Again, with one result missing: the same table.
	remove(t, filepath.Join(keep, demoRecipes()[1].name))
	again := mustCall(t, "demo", "--keep", keep)
	if n := strings.Count(again, "is complete already"); n != len(demoRecipes())-1 {
		t.Errorf("%d results were complete: %q", n, again)
	}
	if table := said[strings.Index(said, "\nRECIPE "):]; !strings.HasSuffix(again, table) {
		t.Errorf("the demo again says %q, want %q", again, table)
	}
}

// TestDryCollectionOfAReadOnlyStore needs a user whom modes bind.
func TestDryCollectionOfAReadOnlyStore(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("modes do not bind the superuser")
	}
	root, model := checkpoint(t, safetensors(tiny()...))
	store := filepath.Join(root, "store")
	mustCall(t, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "out"), "--store", store)
	tmp := filepath.Join(store, ".tmp")
	for _, dir := range []string{store, tmp} {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(dir, 0o700) })
	}
	if said := mustCall(t, "gc", "--store", store, "--older-than", "0s", "--dry-run"); !strings.Contains(said, "would remove 3 tasks") {
		t.Errorf("dry run: %q", said)
	}
	if code, _, said := call("gc", "--store", store); code != exitFailed || !strings.Contains(said, store) {
		t.Errorf("exit code %d: %q", code, said)
	}
}
