package prune_test

import (
	"fmt"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/methodtest"
	"github.com/shardpress/shardpress/compress/prune"
)

// BenchmarkMagnitude prunes a matrix in memory, reading it as often as it takes.
func BenchmarkMagnitude(b *testing.B) {
	const cols = 4096
	for _, dtype := range []string{"BF16", "F16", "F32"} {
		w := make([]float64, 256*cols)
		state := uint32(1)
		for i := range w {
			state = state*1664525 + 1013904223
			w[i] = float64(int32(state)>>8) * 0x1p-28
		}
		in := methodtest.NewInput("x", dtype, cols, w)
		weights, err := compress.NewWeights(in.Linear, in.Data)
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range []prune.MagnitudeParams{unstructured("tensor", 0.5), unstructured("row", 0.5), nm(2, 4)} {
			m := newMagnitude(b, p)
			b.Run(fmt.Sprintf("%s-%s%s", dtype, p.Pattern, p.Scope), func(b *testing.B) {
				b.SetBytes(int64(len(in.Data)))
				for b.Loop() {
					if err := compress.Encode(b.Context(), m, weights, compress.Options{}, func(*compress.Encoded) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
