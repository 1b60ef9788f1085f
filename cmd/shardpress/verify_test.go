package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	vfy "github.com/shardpress/shardpress/internal/verify"
)

// tensorAt finds the bytes of a tensor in a weight file.
func tensorAt(t *testing.T, file []byte, name string) []byte {
	t.Helper()
	n := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Offsets [2]int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	e, ok := header[name]
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	return file[8+n:][e.Offsets[0]:e.Offsets[1]]
}

// edit changes a file of a result. forge makes the table of contents agree.
func edit(t *testing.T, dir, name string, forge bool, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	b = change(b)
	write(t, dir, name, b)
	if !forge {
		return
	}
	var m coordinator.Manifest
	parse(t, filepath.Join(dir, "MANIFEST.json"), &m)
	for i := range m.Files {
		if m.Files[i].Name == name {
			sum := sha256.Sum256(b)
			m.Files[i].SHA256, m.Files[i].Size = hex.EncodeToString(sum[:]), int64(len(b))
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "MANIFEST.json", text)
}

func TestVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	write(t, model, "tokenizer.json", []byte(`{"version":"1.0"}`))
	whole := filepath.Join(root, "whole")
	mustCall(t, "compress", "--model", model, "--recipe", "w4a16-rtn-asym", "--out", whole)
	const file, linear = "model-00002-of-00003.safetensors", "model.layers.0.mlp.up_proj"
	tensor := func(name string, forge bool, change func(b []byte)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, dir, file, forge, func(b []byte) []byte { change(tensorAt(t, b, name)); return b })
		}
	}
	flip := func(b []byte) { b[len(b)/2] ^= 0x10 }
	scale := func(v float32) func(b []byte) {
		return func(b []byte) { binary.LittleEndian.PutUint16(b[6:], uint16(math.Float32bits(v)>>16)) }
	}
	replace := func(name, old, with string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, dir, name, true, func(b []byte) []byte {
				if !bytes.Contains(b, []byte(old)) {
					t.Fatalf("%s does not hold %q", name, old)
				}
				return bytes.Replace(b, []byte(old), []byte(with), 1)
			})
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string // part of a problem
		source bool   // found only with the source
	}{
		{"none", func(*testing.T, string) {}, "", false},
		{"codes", tensor(linear+".weight_packed", false, flip), file + " is damaged", false},
		{"scales", tensor(linear+".weight_scale", false, flip), file + " is damaged", false},
		{"a file is gone", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, file)) }, "file " + file + " is missing", false},
		{"a file is cut off", func(t *testing.T, dir string) {
			edit(t, dir, file, false, func(b []byte) []byte { return b[:len(b)-1] })
		}, file + " holds", false},
		{"the tokenizer is gone", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "tokenizer.json")) }, "file tokenizer.json is missing", false},
		{"a directory in place of a file", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, file))
			mkdir(t, filepath.Join(dir, file))
		}, file + " is not a file", false},
		{"a weight file more", func(t *testing.T, dir string) { write(t, dir, "more.safetensors", safetensors(weights("w", 8, 8))) }, "more.safetensors is no part", false},
		{"config edited", func(t *testing.T, dir string) {
			edit(t, dir, "config.json", false, func(b []byte) []byte { return append(b, ' ') })
		}, "config.json holds", false},
		{"report edited", func(t *testing.T, dir string) {
			edit(t, dir, "report.json", false, func(b []byte) []byte { b[30] ^= 1; return b })
		}, "report.json is damaged", false},
		{"no manifest", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "MANIFEST.json")) }, "MANIFEST.json is missing: the result is unfinished", false},
		{"a manifest that is no JSON", func(t *testing.T, dir string) { write(t, dir, "MANIFEST.json", []byte("{")) }, "read MANIFEST.json", false},
		{"a manifest of another version", replace("MANIFEST.json", `"version": 1`, `"version": 9`), "version 9", false},
		{"a manifest that leads out of the directory", replace("MANIFEST.json", `"name": "config.json"`, `"name": "../config.json"`), "malformed", false},
		{"a manifest without the report", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, "report.json"))
			replace("MANIFEST.json", `"name": "report.json"`, `"name": "config.json"`)(t, dir)
		}, "does not list report.json", false},

		// From here on the table of contents agrees with the damage.
		{"forged scale of zero", tensor(linear+".weight_scale", true, scale(0)), linear + ".weight_scale: scale 3 is 0", false},
		{"forged scale that is not a number", tensor(linear+".weight_scale", true, scale(float32(math.NaN()))), linear + ".weight_scale: scale 3 is NaN", false},
		{"forged infinite scale", tensor(linear+".weight_scale", true, scale(float32(math.Inf(-1)))), linear + ".weight_scale: scale 3 is -Inf", false},
		{"forged negative scale", tensor(linear+".weight_scale", true, func(b []byte) { b[7] ^= 0x80 }), linear + ".weight_scale: scale 3 is -", false},
		{"forged codes", tensor(linear+".weight_packed", true, func(b []byte) { clear(b[:256]) }), linear + ": its relative error is", true},
		{"forged scales", tensor(linear+".weight_scale", true, scale(100)), linear + ": its relative error is", true},
		{"forged zero points", tensor(linear+".weight_zero_point", true, func(b []byte) { b[0] ^= 0x77 }), linear + ": its relative error is", true},
		{"forged shape", tensor(linear+".weight_shape", true, func(b []byte) { b[0] ^= 1 }), "weight_shape", true},
		{"forged norm", tensor("model.layers.0.input_layernorm.weight", true, flip), "tensor model.layers.0.input_layernorm.weight is not what the source holds", true},
		{"forged tokenizer", replace("tokenizer.json", "1.0", "9.9"), "file tokenizer.json is not what the source holds", true},
		{"forged config", replace("config.json", `"num_bits":4`, `"num_bits":8`), "config.json is not what the recipe makes", true},
		{"forged ratio", replace("report.json", `"compression_ratio": `, `"compression_ratio": 1`), "report.json:", true},
		{"forged error", replace("report.json", `"relative_error": 0.1`, `"relative_error": 0.01`), "the report says 0.01", true},
		{"forged signal-to-noise ratio", replace("report.json", `"snr_db": 1`, `"snr_db": 11`), "signal-to-noise", true},
		{"forged dtype", func(t *testing.T, dir string) {
			replace(file, `"`+linear+`.weight_scale":{"dtype":"BF16"`, `"`+linear+`.weight_scale":{"dtype":"F16" `)(t, dir)
		}, linear + ".weight_scale is F16 [256 1], not BF16", true},
		{"forged header", func(t *testing.T, dir string) {
			edit(t, dir, file, true, func(b []byte) []byte { binary.LittleEndian.PutUint64(b, 1<<60); return b })
		}, "does not open as a checkpoint", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "result")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, dir)
			for _, args := range [][]string{{"verify", dir}, {"verify", "--model", model, dir}} {
				code, stdout, stderr := call(args...)
				var found vfy.Report
				_, asJSON, _ := call(append(args, "--json")...)
				if err := json.Unmarshal([]byte(asJSON), &found); err != nil {
					t.Errorf("--json prints %q: %v", asJSON, err)
				}
				if tt.want == "" || tt.source && len(args) == 2 {
					if code != 0 || stderr != "" || len(found.Problems) > 0 {
						t.Errorf("%v: exit code %d: %s%s", args, code, stdout, stderr)
					}
					continue
				}
				t.Log(found.Problems)
				if code != exitUnverified || len(found.Problems) == 0 {
					t.Errorf("%v: exit code %d, want %d: %s", args, code, exitUnverified, stdout)
				}
				sentence(t, stderr, []string{dir, "verification failed", "problem"})
				if !strings.Contains(stdout, "problem: ") || !strings.Contains(stdout, tt.want) {
					t.Errorf("%q is not in %q", tt.want, stdout)
				}
			}
		})
	}
}

// TestVerifyAnotherSource holds a result against what it was not made of.
func TestVerifyAnotherSource(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	out := filepath.Join(root, "out")
	mustCall(t, "compress", "--model", model, "--recipe", "w8a16-rtn", "--out", out)
	code, stdout, _ := call("verify", "--model", story, out)
	if code != exitUnverified || !strings.Contains(stdout, "is not the source that the result was made of: model.safetensors differs") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	// The same header and other weights, which only the errors tell.
	all := tiny()
	for i := range 64 {
		named(t, all, "model.layers.1.mlp.gate_proj.weight").set(i, 2)
	}
	_, other := checkpoint(t, safetensors(all...))
	code, stdout, _ = call("verify", "--model", other, out)
	if code != exitUnverified || !strings.Contains(stdout, "model.layers.1.mlp.gate_proj: its relative error is") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	refused(t, root, exitInvalid, []string{"none", "no such directory"}, "verify", filepath.Join(root, "none"))
	refused(t, root, exitInvalid, []string{"none", "missing"}, "verify", "--model", filepath.Join(root, "none"), out)
	if code, stdout, _ := call("verify", model); code != exitUnverified || !strings.Contains(stdout, "MANIFEST.json is missing") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}
