package operation

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/shard"
)

// TestRaggedComponents prunes a matrix whose first rows keep everything and whose last ones nothing, and reads mask and values back: with
// few values the mask is what streams, and the values wait.
func TestRaggedComponents(t *testing.T) {
	t.Parallel()
	const rows, cols = 700, 900 // several panels
	weight := func(row, col int) float32 {
		return float32(math.Ldexp(1+float64((row*31+col*17)%128)/128, -(row / 70)))
	}
	for _, sparsity := range []string{"0.1", "0.5", "0.95", "0", "1"} {
		row := 0
		ck := sparse(t, rows, cols, func(b []byte) {
			for col := range cols {
				binary.LittleEndian.PutUint16(b[2*col:], uint16(math.Float32bits(weight(row, col))>>16))
			}
			row++
		})
		p := &EncodeParams{Tensors: ck.Manifest.Tensors}
		p.Items = []Item{{Encode: []EncodeLinear{p.encode(ck.Manifest.Linears[0], "magnitude", 1, `{"sparsity":`+sparsity+`}`, string(shard.FormatShardpress))}}}
		layout, err := p.Layout()
		if err != nil {
			t.Fatal(err)
		}
		file := must(t, ck, p, compress.KernelBest).data[ShardOutput]
		if int64(len(file)) != layout.Size() {
			t.Fatalf("file of %d bytes, layout says %d", len(file), layout.Size())
		}
		h, err := shard.ReadHeader(bytes.NewReader(file), "out", int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		e := &compress.Encoded{Rows: rows, Data: make([][]byte, 2)}
		for _, x := range h.Tensors {
			e.Data[bit(strings.HasSuffix(x.Name, ".values"))] = file[x.Offset:][:x.Length]
		}
		got := make([]float32, rows*cols)
		if err := layout.Items[0].Encoded[0].Layout.Scheme.Decode(got, cols, e); err != nil {
			t.Fatal(err)
		}
		var pruned, kept []float32
		for i, v := range got {
			w := weight(i/cols, i%cols)
			switch v {
			case 0:
				pruned = append(pruned, w)
			case w:
				kept = append(kept, w)
			default:
				t.Fatalf("sparsity %s: weight %d is %v, not %v", sparsity, i, v, w)
			}
		}
		if len(pruned) > 0 && len(kept) > 0 && slices.Max(pruned) > slices.Min(kept) {
			t.Errorf("sparsity %s: %v is pruned and %v kept", sparsity, slices.Max(pruned), slices.Min(kept))
		}
		if want := len(kept)*2 + rows*((cols+7)/8); int64(want) != layout.Items[0].Encoded[0].Layout.Bytes() {
			t.Errorf("sparsity %s: %d bytes, the layout says %d", sparsity, want, layout.Items[0].Encoded[0].Layout.Bytes())
		}
	}
}
