package recipe_test

import (
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress/recipe"
)

// TestMixedFormatAsked asks for mixed-precision by name: every step takes the first of its formats that can be in such a result, and what has none is refused
// rather than written as something else.
func TestMixedFormatAsked(t *testing.T) {
	t.Parallel()
	for steps, refused := range map[string]string{
		"[{method: nvfp4, targets: Linear}]":                                                            "",
		"[{method: hqq, targets: Linear, zeros: int}]":                                                  "",
		"[{method: rtn, targets: Linear}, {method: magnitude, targets: '*.down_proj'}]":                 "",
		"[{method: magnitude, targets: Linear, then: {method: fp8}}]":                                   "",
		"[{method: nf4, targets: Linear}]":                                                              "bitsandbytes or shardpress or dense",
		"[{method: rtn, targets: Linear}, {method: svd, targets: '*.down_proj'}]":                       "step 1 makes with method svd: choose shardpress or dense",
		"[{method: magnitude, targets: Linear}]":                                                        "no step",
		"[{method: magnitude, targets: Linear, then: {method: nf4}}]":                                   "bitsandbytes",
		"[{method: rtn, targets: Linear}, {method: svd, targets: '*.o_proj', then: {method: llmint8}}]": "method svd",
	} {
		_, err := recipe.Parse("f.yaml", []byte("version: 1\nname: m\noutput: {format: mixed-precision}\nsteps: "+steps+"\n"))
		switch {
		case refused == "" && err != nil:
			t.Errorf("%s: %v", steps, err)
		case refused != "" && (err == nil || !strings.Contains(err.Error(), refused)):
			t.Errorf("%s: %v, want %q", steps, err, refused)
		}
	}
}
