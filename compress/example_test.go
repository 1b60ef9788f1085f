package compress_test

import (
	"context"
	"fmt"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/quantize"
)

// Encode a matrix in memory, and decode it again.
func Example() {
	linear := compress.Linear{Name: "model.layers.0.mlp.up_proj", Rows: 1, Cols: 4, DType: "BF16", Role: compress.RoleLinear}
	weights, err := compress.NewWeights(linear, []byte{0xf0, 0x40, 0x80, 0x3f, 0x00, 0xc0, 0x40, 0x40}) // 7.5, 1, -2, 3
	if err != nil {
		fmt.Println(err)
		return
	}
	method, err := quantize.NewRTN(quantize.RTNParams{Bits: 4, Symmetric: true, Strategy: compress.StrategyChannel})
	if err != nil {
		fmt.Println(err)
		return
	}
	layout, err := method.Layout(linear)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("bytes:", layout.Bytes())
	err = compress.Encode(context.Background(), method, weights, compress.Options{}, func(e *compress.Encoded) error {
		decoded := make([]float32, e.Rows*int(linear.Cols))
		if err := layout.Scheme.Decode(decoded, int(linear.Cols), e); err != nil {
			return err
		}
		fmt.Println("decoded:", decoded, "squared error:", compress.Sum(0, e.Error))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// bytes: 6
	// decoded: [7 1 -2 3] squared error: 0.25
}
