package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadRecipe(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	outside := t.TempDir() // of what must not change
	tests := []struct {
		name string
		yaml string
		want []string
	}{
		{"unknown key", "version: 1\nstepz:\n  - method: rtn\n", []string{"recipe.yaml:2:1:", `"stepz"`, "mean steps"}},
		{"unknown key of a step", "version: 1\nsteps:\n  - method: rtn\n    target: [Linear]\n", []string{"recipe.yaml:4:5:", `"target"`, "mean targets"}},
		{"unknown method", "version: 1\nsteps:\n  - method: rtm\n", []string{"recipe.yaml:3:13:", `"rtm"`, "mean rtn"}},
		{"unknown parameter", "version: 1\nsteps:\n  - method: rtn\n    gruop: 32\n", []string{"recipe.yaml:4:5:", `"gruop"`, "mean group"}},
		{"parameter out of range", "version: 1\nsteps:\n  - method: rtn\n    bits: 9\n", []string{"recipe.yaml:4:11:", "bits is 9", "from 2 to 8"}},
		{"parameter of another type", "version: 1\nsteps:\n  - method: rtn\n    bits: four\n", []string{"recipe.yaml:4:11:", "bits", "four", "from 2 to 8"}},
		{"duplicate key", "version: 1\nversion: 1\nsteps:\n  - method: rtn\n", []string{"recipe.yaml:2:1:", "version"}},
		{"unknown version", "version: 7\nsteps:\n  - method: rtn\n", []string{"recipe.yaml:1:1:", "version 7"}},
		{"no steps", "version: 1\nsteps: []\n", []string{"recipe.yaml:2:1:", "no steps"}},
		{"no YAML", "version: [1\n", []string{"recipe.yaml:"}},
		{"empty", "", []string{"recipe.yaml"}},
		{"unknown format", "version: 1\nsteps:\n  - method: rtn\noutput: {format: gguf}\n", []string{"recipe.yaml:4:18:", "gguf", "pack-quantized"}},
		{"target that matches nothing", "version: 1\nsteps:\n  - method: rtn\n    targets: [Linear, model.layers.0.mlp.gate]\n",
			[]string{"recipe.yaml:4:23:", `"model.layers.0.mlp.gate"`, "model.layers.0.mlp.gate_proj"}},
		{"glob that matches nothing", "version: 1\nsteps:\n  - method: rtn\n    targets: [\"*.w1\"]\n", []string{"recipe.yaml:4:15:", `"*.w1"`, "shardpress inspect --tensors"}},
		{"ignore that matches nothing", "version: 1\nsteps:\n  - method: rtn\n    targets: Linear\nignore: [lm_hed]\n", []string{"recipe.yaml:5:10:", `"lm_hed"`, "lm_head"}},
		{"malformed expression", "version: 1\nsteps:\n  - method: rtn\n    targets: [\"re:(\"]\n", []string{"recipe.yaml:4:15:"}},
		{"name that moves the cursor", "version: 1\nname: \"a\\e[2J\"\nsteps:\n  - method: rtn\n", []string{"recipe.yaml:2:", "name", `\x1b`}},
		{"name of two lines", "version: 1\nname: \"a\\nb\"\nsteps:\n  - method: rtn\n", []string{"recipe.yaml:2:", "name", `\n`}},
		{"name without end", "version: 1\nname: " + strings.Repeat("x", 101) + "\nsteps:\n  - method: rtn\n", []string{"recipe.yaml:2:", "name", "100"}},
		{"unknown key behind a byte order mark", "\ufeffversion: 1\nstepz:\n  - method: rtn\n", []string{"recipe.yaml:2:1:", `"stepz"`}},
		{"everything ignored", "version: 1\nsteps:\n  - method: rtn\n    targets: Linear\nignore: [\"*\"]\n", []string{"recipe", "none"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(outside, tt.name)
			write(t, dir, "recipe.yaml", []byte(tt.yaml))
			for _, command := range []string{"compress", "plan"} {
				args := []string{command, "--model", model, "--recipe", filepath.Join(dir, "recipe.yaml")}
				if command == "compress" {
					args = append(args, "--out", filepath.Join(root, "out"))
				}
				refused(t, root, exitInvalid, tt.want, args...)
			}
		})
	}
}

func TestBadCommandLine(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	out := filepath.Join(root, "out")
	write(t, root, "file", []byte("x"))
	job := func(more ...string) []string {
		return append([]string{"compress", "--model", model, "--out", out}, more...)
	}
	preset := func(more ...string) []string { return job(append([]string{"--recipe", "w4a16-rtn"}, more...)...) }
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"no recipe", job(), []string{"recipe"}},
		{"no model", []string{"plan", "--recipe", "w4a16-rtn"}, []string{"model"}},
		{"no out", []string{"compress", "--model", model, "--recipe", "w4a16-rtn"}, []string{"out"}},
		{"unknown preset", job("--recipe", "w4a16-rtm"), []string{`"w4a16-rtm"`, "mean w4a16-rtn"}},
		{"recipe file that is not there", job("--recipe", "./mine.yaml"), []string{"mine.yaml"}},
		{"recipe file that is a directory", job("--recipe", root), []string{root}},
		{"setting without a value", preset("--set", "group"), []string{"--set group", "key=value"}},
		{"unknown setting", preset("--set", "gruop=32"), []string{"--set gruop=32", "mean group"}},
		{"setting that is no number", preset("--set", "group=many"), []string{"--set group=many"}},
		{"setting out of range", preset("--set", "bits=1"), []string{"bits"}},
		{"unknown step", preset("--set", "steps.3.group=32"), []string{"--set steps.3.group=32"}},
		{"ignore that matches nothing", preset("--set", "ignore=lm_hed"), []string{"lm_hed", "lm_head"}},
		{"group that does not divide", preset("--set", "group=48"), []string{"model.layers.0.self_attn.q_proj", "48", "group=16 or 32 or 64 or 128"}},
		{"group of nothing", preset("--set", "group=0"), []string{"group"}},
		{"unknown format", preset("--set", "output.format=gguf"), []string{"gguf", "dense"}},
		{"no workers", preset("--workers", "0"), []string{"--workers 0"}},
		{"memory without a number", preset("--memory", "much"), []string{"--memory much", "512M"}},
		{"memory for no task", preset("--memory", "1M"), []string{"--memory", "MiB"}},
		{"empty out", []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", ""}, []string{"--out", "empty"}},
		{"empty model", []string{"compress", "--model=", "--recipe", "w4a16-rtn", "--out", out}, []string{"--model", "empty"}},
		{"empty model of a plan", []string{"plan", "--model", "", "--recipe", "w4a16-rtn"}, []string{"--model", "empty"}},
		{"empty recipe", job("--recipe", ""), []string{"--recipe", "empty"}},
		{"empty store", preset("--store", ""), []string{"--store", "empty"}},
		{"empty memory", preset("--memory", ""), []string{"--memory", "empty"}},
		{"empty report", preset("--report", ""), []string{"--report", "empty"}},
		{"gc of an empty store", []string{"gc", "--store", ""}, []string{"--store", "empty"}},
		{"demo in an empty directory", []string{"demo", "--keep", ""}, []string{"--keep", "empty"}},
		{"verify of an empty result", []string{"verify", ""}, []string{"empty"}},
		{"verify with an empty source", []string{"verify", "--model", "", out}, []string{"--model", "empty"}},
		{"unknown flag", preset("--grop", "3"), []string{"--grop", "--help"}},
		{"superfluous argument", preset("more"), []string{"more", "--help"}},
		{"unknown command", []string{"compres"}, []string{"compres", "compress", "--help"}},
		{"unknown command and flag", []string{"squeeze", "--model", "x"}, []string{`"squeeze"`, "--help"}},
		{"inspect without an argument", []string{"inspect"}, []string{"shardpress inspect --help"}},
		{"verify without an argument", []string{"verify"}, []string{"shardpress verify --help"}},
		{"out is the model", []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", model}, []string{"--out", "--model", "another"}},
		{"out within the model", []string{"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(model, "out")}, []string{"--out", "--model", "another"}},
		{"store is the model", preset("--store", model), []string{"--store", "--model", "another"}},
		{"store is out", preset("--store", out), []string{"--store", "--out", "another"}},
		{"report in no directory", preset("--report", filepath.Join(root, "none", "r.json")), []string{"--report", "none"}},
		{"report is a directory", preset("--report", root), []string{"--report", root}},
		{"gc of no store", []string{"gc", "--store", filepath.Join(root, "none")}, []string{"none", "does not exist"}},
		{"gc without a store", []string{"gc"}, []string{"does not exist", "--store"}},
		{"gc of the model", []string{"gc", "--store", model}, []string{model}},
		{"negative age", []string{"gc", "--store", model, "--older-than", "-1s"}, []string{"--older-than"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refused(t, root, exitInvalid, tt.want, tt.args...)
		})
	}
}

// testdata is the folder of real models, which is not part of the repository.
func testdata(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SHARDPRESS_TESTDATA")
	if dir == "" {
		t.Skip("SHARDPRESS_TESTDATA names no folder with real configurations and models")
	}
	return filepath.Join(dir, "models")
}

func TestGroupsOfRealModels(t *testing.T) {
	t.Parallel()
	models := testdata(t)
	for _, tt := range []struct {
		model, group string
		want         []string
		good         []string
	}{
		{"babyllama-105", "128", []string{"model.layers.0.", "group", "128", "32"}, []string{"--set", "group=32"}},
		{"stories260K", "32", []string{"model.layers.0.", "group", "32", "172", "strategy=channel"}, []string{"--set", "strategy=channel"}},
	} {
		t.Run(tt.model, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			out := filepath.Join(root, "out")
			args := []string{"compress", "--model", filepath.Join(models, tt.model), "--recipe", "w4a16-rtn", "--out", out}
			refused(t, root, exitInvalid, tt.want, append(args, "--set", "group="+tt.group)...)
			if testing.Short() {
				return
			}
			mustCall(t, append(args, tt.good...)...)
			mustCall(t, "verify", "--model", filepath.Join(models, tt.model), out)
		})
	}
}
