package shard

import "testing"

func BenchmarkReadRows(b *testing.B) {
	const rows, cols = 4096, 4096
	c := checkpoint(b, "", bf16("model.layers.0.up_proj.weight", rows, cols))
	plain := c.Manifest.Linears[0]
	turned := plain
	turned.Transposed = true
	for name, l := range map[string]Linear{"rows": plain, "transposed": turned} {
		b.Run(name, func(b *testing.B) {
			const panel = 128
			dst := make([]byte, panel*cols*2)
			b.SetBytes(int64(len(dst)))
			row := int64(0)
			for b.Loop() {
				if _, err := c.Source().ReadRows(b.Context(), c.Manifest, l, row, panel, dst); err != nil {
					b.Fatal(err)
				}
				row = (row + panel) % rows
			}
		})
	}
}
