package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The committed files are what the generator prints.
func TestCommitted(t *testing.T) {
	t.Parallel()
	for _, f := range files() {
		got, err := os.ReadFile(filepath.Join("..", "..", f.name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != f.text {
			t.Errorf("%s differs from what kerngen prints: run go generate ./internal/tensor", f.name)
		}
	}
}
