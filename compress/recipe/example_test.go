package recipe_test

import (
	"fmt"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
)

func Example() {
	r, err := recipe.Preset("w4a16-rtn")
	if err != nil {
		fmt.Println(err)
		return
	}
	l := compress.Linear{Name: "model.layers.0.mlp.down_proj", Rows: 128, Cols: 352, DType: "F32", Role: compress.RoleLinear}
	for _, group := range []string{"128", "32"} {
		if err := r.Set("group", group); err != nil {
			fmt.Println(err)
			return
		}
		sel, ok, err := r.Select(l)
		if err != nil || !ok {
			fmt.Println("not selected", err)
			return
		}
		layout, err := sel.Method.Layout(l)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(string(sel.Params), layout.Bytes(), "bytes")
	}
	// Output:
	// encode model.layers.0.mlp.down_proj: its 352 columns do not divide into groups of 128: use group=16 or 32, or strategy=channel
	// {"bits":4,"group":32,"search":false,"strategy":"group","symmetric":true} 28160 bytes
}
