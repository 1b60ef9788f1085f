package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBadOutput(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		make func(t *testing.T, root, out string) // what stands there
		code int
		want []string
	}{
		{"files of somebody else", func(t *testing.T, _, out string) { write(t, out, "thesis.tex", []byte("x")) },
			exitInvalid, []string{"out is not empty", "new or empty directory", "--out"}},
		{"another checkpoint", func(t *testing.T, _, out string) { write(t, out, "model.safetensors", safetensors(tiny()...)) },
			exitInvalid, []string{"out is not empty", "--out"}},
		{"a manifest of something else", func(t *testing.T, _, out string) {
			write(t, out, "MANIFEST.json", []byte(`{"version":1,"files":[{}]}`))
		},
			exitInvalid, []string{"out is not empty", "--out"}},
		{"a file", func(t *testing.T, root, _ string) { write(t, root, "out", []byte("x")) },
			exitInvalid, []string{"out is not a directory", "--out"}},
		{"below a file", func(t *testing.T, root, _ string) { write(t, filepath.Dir(root), filepath.Base(root)+"/out", nil) },
			exitInvalid, []string{"out is not a directory", "--out"}},
		{"a link to nothing", func(t *testing.T, root, out string) {
			if err := os.Symlink(filepath.Join(root, "nothing"), out); err != nil {
				t.Fatal(err)
			}
		}, exitInvalid, []string{"out", "--out"}},
		{"another store", func(t *testing.T, root, _ string) { write(t, filepath.Join(root, ".shardpress"), "mine", []byte("x")) },
			exitInvalid, []string{".shardpress is not empty", "mine"}},
		{"a file in place of the store", func(t *testing.T, root, _ string) { write(t, root, ".shardpress", []byte("x")) },
			exitInvalid, []string{".shardpress is not a directory"}},
		{"no permission", func(t *testing.T, _, out string) {
			if os.Geteuid() == 0 {
				t.Skip("permissions do not bind the superuser")
			}
			if err := os.Mkdir(out, 0o500); err != nil {
				t.Fatal(err)
			}
		}, exitFailed, []string{"out", "permission", "choose another place"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, model := checkpoint(t, safetensors(tiny()...))
			out := filepath.Join(root, "out")
			tt.make(t, root, out)
			refused(t, root, tt.code, tt.want, "compress", "--model", model, "--recipe", "w4a16-rtn", "--out", out)
		})
	}
}

// TestBelowFile puts the output where there cannot be a directory.
func TestBelowFile(t *testing.T) {
	t.Parallel()
	root, model := checkpoint(t, safetensors(tiny()...))
	write(t, root, "file", []byte("x"))
	refused(t, root, exitInvalid, []string{"file", "directory"},
		"compress", "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "file", "out"))
}

// TestFullDisk asks for a result that no disk has room for. The checkpoint is a
// hole: nothing reads its weights before the run is refused.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	root, model := sparse(t, 14<<40)
	refused(t, root, exitFailed, []string{"is full", "MiB free", "make room", "--out", "--store"},
		"compress", "--model", model, "--recipe", "w8a16-rtn", "--out", filepath.Join(root, "out"), "--memory", "64G")
}
