// Command kerngen prints the amd64 assembly of package tensor, and its Go
// declarations, into the directory of that package:
//
//	go generate ./internal/tensor
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	for _, f := range files() {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "kerngen:", err)
			os.Exit(1)
		}
	}
}

// file is one generated file.
type file struct{ name, text string }

// files returns everything the command writes.
func files() []file {
	return []file{
		scaleFile(),
		encodeFile(avx2),
		encodeFile(avx512),
		widenFile(),
		gemmFile(avx2, "gemm_avx2_amd64.s"),
		gemmFile(avx512, "gemm_avx512_amd64.s"),
		dotFile(),
		gridErrorFile(avx2, "griderror_avx2_amd64.s"),
		gridErrorFile(avx512, "griderror_avx512_amd64.s"),
		tableFile(avx2, "table_avx2_amd64.s"),
		tableFile(avx512, "table_avx512_amd64.s"),
		float8File(avx2, "float8_avx2_amd64.s"),
		float8File(avx512, "float8_avx512_amd64.s"),
		keepFile(avx2, "keep_avx2_amd64.s"),
		keepFile(avx512, "keep_avx512_amd64.s"),
		fp4File(avx2, "fp4_avx2_amd64.s"),
		fp4File(avx512, "fp4_avx512_amd64.s"),
		declarations(),
	}
}
