package recipe_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
)

// TestPruneThen holds which methods may encode what pruning leaves: those that decode a zero to a zero.
func TestPruneThen(t *testing.T) {
	t.Parallel()
	for then, want := range map[string]string{
		"rtn":                                   "",
		"rtn, symmetric: false":                 "",
		"rtn, strategy: tensor, bits: 2":        "",
		"rtn, search: true":                     "",
		"fp8":                                   "",
		"fp8, element: e5m2, strategy: block":   "",
		"mxfp4":                                 "",
		"mxfp8":                                 "",
		"nvfp4":                                 "",
		"nf4":                                   "",
		"fp4":                                   "",
		"llmint8":                               "",
		"hqq, zeros: int":                       "",
		"magnitude, sparsity: 0.75, scope: row": "",
		"hqq":                                   "magnitude then hqq: hqq has no exact zero",
		"bcq":                                   "magnitude then bcq: bcq has no exact zero",
		"olive":                                 "",
		"hqq, bits: 8":                          "magnitude then hqq: hqq has no exact zero",
		"svd":                                   "magnitude then svd: svd has no exact zero",
		"lplr":                                  "magnitude then lplr: lplr has no exact zero",
		"rtn, then: {method: rtn}":              `has no parameter "then"`,
		"nothing":                               `method "nothing" is not known`,
		"magnitude, pattern: \"n:m\", n: 5, m: 4": "n is 5, and takes a whole number from 1 to m, which is 4",
	} {
		text := fmt.Sprintf("steps: [{method: magnitude, targets: Linear, pattern: \"n:m\", then: {method: %s}}]", then)
		_, err := recipe.Parse("r.yaml", []byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !errors.Is(err, compress.ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", then, err, want)
		}
	}
}

// BenchmarkThen is what a linear of a plan costs when two methods are combined.
func BenchmarkThen(b *testing.B) {
	r, err := recipe.Preset("magnitude-2of4-w4a16")
	if err != nil {
		b.Fatal(err)
	}
	l := compress.Linear{Name: "model.layers.0.mlp.up_proj", Rows: 64, Cols: 256, DType: "BF16", Role: compress.RoleLinear}
	for b.Loop() {
		if _, ok, err := r.Select(l); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
