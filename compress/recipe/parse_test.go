package recipe_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
)

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const step = "steps:\n- method: rtn\n  targets: Linear\n"
	tests := map[string]struct{ text, want string }{
		"empty":                  {"", "f.yaml:1:1: recipe is empty"},
		"only a comment":         {"# nothing\n", "recipe is empty"},
		"a list":                 {"[1, 2]", "f.yaml:1:1: the recipe needs a map of keys and values, and has a list"},
		"no steps":               {"name: a\n", "f.yaml:1:1: recipe has no steps"},
		"empty steps":            {"steps: []\n", "f.yaml:1:1: recipe has no steps"},
		"syntax":                 {"steps: [", "f.yaml:1:8: "},
		"tab":                    {"steps:\n\t- a", "f.yaml:2:"},
		"unknown key":            {"stepz: 1", `f.yaml:1:1: key "stepz" is not known: did you mean steps?`},
		"far from all":           {"quux: 1", "known are version, name,"},
		"second document":        {step + "---\n" + step, "f.yaml:5:1: a recipe is one document"},
		"key twice":              {"name: a\nname: b\n" + step, "f.yaml:2:1: "},
		"key twice in a step":    {step + "  bits: 4\n  bits: 4\n", "f.yaml:5:3: "},
		"version":                {"version: 2\n" + step, "f.yaml:1:1: recipe version 2 is not known"},
		"version is text":        {"version: one\n" + step, "f.yaml:1:10: version needs a whole number, and has one"},
		"no method":              {"steps:\n- targets: Linear\n", "f.yaml:2:3: step 0 names no method, known are "},
		"unknown method":         {"steps:\n- targets: Linear\n  method: rtm\n", `f.yaml:3:11: method "rtm" is not known: did you mean rtn?`},
		"no targets":             {"steps:\n- method: rtn\n", "f.yaml:2:3: step 0 has no targets"},
		"no list of targets":     {"steps:\n- method: rtn\n  targets: []\n", "f.yaml:3:12: step 0 has no targets"},
		"unknown parameter":      {step + "  gruop: 32\n", `f.yaml:4:3: step 0 has a key "gruop" that method rtn does not know: did you mean group?`},
		"parameter out of range": {step + "  bits: 9\n", "f.yaml:4:9: bits is 9, and takes a whole number from 2 to 8"},
		"parameter is text":      {step + "  bits: four\n", `f.yaml:4:9: bits is "four", and takes a whole number`},
		"parameter is a float":   {step + "  bits: 4.0\n", "f.yaml:4:9: bits is 4.0, and takes a whole number"},
		"parameter is a list":    {step + "  bits: [4]\n", "f.yaml:4:9: bits needs one value, and has a list"},
		"parameter is missing":   {step + "  bits:\n", "f.yaml:4:"},
		"bool is a word":         {step + "  symmetric: yes\n", `f.yaml:4:14: symmetric is "yes", and takes true or false`},
		"choice":                 {step + "  strategy: row\n", `f.yaml:4:13: strategy is "row", and takes tensor, channel, group`},
		"without meaning":        {step + "  strategy: channel\n  group: 32\n", "f.yaml:5:10: group has a meaning only with strategy=group"},
		"target is a number":     {"steps:\n- method: rtn\n  targets: [Linear, 4]\n", "f.yaml:3:21: steps.0.targets needs text"},
		"target is empty":        {"steps:\n- method: rtn\n  targets: ['']\n", "f.yaml:3:13: target is empty"},
		"expression":             {"steps:\n- method: rtn\n  targets: [a, 're:(']\n", `f.yaml:3:16: target "re:(" is not a regular expression`},
		"glob":                   {"ignore: ['a[']\n" + step, `f.yaml:1:10: ignore pattern "a[" is not a glob`},
		"format":                 {step + "output:\n  format: dnese\n", "f.yaml:5:11: output format \"dnese\" is not known: did you mean dense?"},
		"key of output":          {step + "output: {fromat: dense}\n", "f.yaml:4:10: key \"fromat\" of output is not known: did you mean format?"},
		"numerics":               {step + "numerics: bf16\n", `f.yaml:4:1: numeric class "bf16" is not known`},
		"seed":                   {step + "seed: -1\n", "f.yaml:4:7: seed needs a whole number from 0"},
		"seed is a float":        {step + "seed: 1e30\n", "f.yaml:4:7: seed needs"},
		"activations":            {step + "  activations: {bits: 9}\n", "f.yaml:4:23: activations.bits is 9"},
		"key of activations":     {step + "  activations: {bit: 8}\n", "did you mean bits?"},
		"dynamic":                {step + "  activations: {dynamic: tensor}\n", `f.yaml:4:26: activations.dynamic is "tensor"`},
		"alias":                  {"steps:\n- method: rtn\n  targets: *x\n", "in quotes"},
		"anchor":                 {"steps: &a []\n", "an anchor or alias"},
		"merge":                  {"<<: {}\n" + step, "plain names"},
		"tag":                    {"name: !!str a\n" + step, "a tag"},
		"nothing to chain": {
			step + "  then: {method: rtn, bits: 8}\n",
			"makes codes that no other method can encode",
		},
		"format without room": {step + "output: {format: nvfp4-pack-quantized}\n", "cannot hold what step 0 makes with method rtn"},
		"too long":            {strings.Repeat("#", 1<<16) + "\n" + step, "more than"},
		"many brackets":       {"steps: " + strings.Repeat("[", 10000), "deep"},
		"many dashes":         {"steps:\n" + strings.Repeat("- ", 10000), "f.yaml:2:"},
		"bytes of no text":    {"\x00\xff\xfe", "f.yaml:"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := recipe.Parse("f.yaml", []byte(test.text))
			if err == nil {
				t.Fatalf("read as %s", canonical(t, r))
			}
			var place *recipe.Error
			if !strings.Contains(err.Error(), test.want) || !errors.Is(err, compress.ErrInvalid) || !errors.As(err, &place) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestParseNamesAfterTheFile(t *testing.T) {
	t.Parallel()
	r, err := recipe.Parse("some/where/mine.yaml", []byte("steps: [{method: rtn, targets: Linear}]"))
	if err != nil || r.Name != "mine" {
		t.Errorf("name %q, error %v", r.Name, err)
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/mixed.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range []string{
		"", "a", "steps:\n- method: rtn\n  targets: *x\n  bits: 0x4\n", "{steps: [{method: rtn, targets: [Linear, 're:(a|b)'], group: 1_0}]}",
		"steps: |\n  a\n---\n? b\n: - c\n", "&a [*a]", "<<: !!binary x\n", "steps: [{method: rtn, targets: 'a*', activations: {bits: 8}}]",
		"name: \"\\x41\\u0042\"\nseed: 18446744073709551615\nsteps: [{method: rtn, targets: a}]", "- - - x", "%YAML 1.2\n---\na: .inf\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := recipe.Parse("f.yaml", text)
		if err != nil {
			if !errors.Is(err, compress.ErrInvalid) {
				t.Errorf("error %v does not match ErrInvalid", err)
			}
			return
		}
		a, err := r.Canonical()
		if err != nil {
			t.Fatalf("canonical of a recipe that was read: %v", err)
		}
		again, err := recipe.Parse("f.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		b, err := again.Canonical()
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("canonical %s, then %s, %v", a, b, err)
		}
		for _, l := range llama() {
			if _, _, err := r.Select(l); err != nil {
				t.Errorf("select %s: %v", l.Name, err)
			}
		}
		r.Unmatched(llama())
	})
}
