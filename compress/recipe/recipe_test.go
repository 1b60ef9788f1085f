package recipe_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
)

func mixed(t *testing.T) *recipe.Recipe {
	t.Helper()
	file := filepath.Join("testdata", "mixed.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func preset(t *testing.T, name string) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func canonical(t *testing.T, r *recipe.Recipe) string {
	t.Helper()
	b, err := r.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// llama gives the linears of a small model with a head, a router and a tower beside the decoder.
func llama() []compress.Linear {
	in := func(name, role string, block int) compress.Linear {
		return compress.Linear{Name: name, Rows: 64, Cols: 256, DType: "BF16", Role: role, Block: block}
	}
	return []compress.Linear{
		in("model.layers.0.self_attn.q_proj", compress.RoleLinear, 0),
		in("model.layers.0.mlp.gate", compress.RoleRouter, 0),
		in("model.layers.0.mlp.down_proj", compress.RoleLinear, 0),
		in("model.layers.1.self_attn.q_proj", compress.RoleLinear, 1),
		in("model.layers.1.self_attn.v_proj", compress.RoleLinear, 1),
		in("model.layers.1.mlp.down_proj", compress.RoleLinear, 1),
		in("visual.blocks.0.mlp.down_proj", "other", -1),
		in("lm_head", compress.RoleHead, -1),
		in("model.embed_tokens", compress.RoleEmbedding, -1),
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	got := canonical(t, mixed(t))
	want := `{"ignore":["model.layers.1.self_attn.v_proj"],"name":"mixed","numerics":"f32",` +
		`"output":{"format":"pack-quantized"},"seed":"7","steps":[` +
		`{"method":"rtn","params":{"bits":4,"group":128,"search":false,"strategy":"group","symmetric":true},"targets":["Linear"]},` +
		`{"method":"rtn","params":{"bits":8,"search":false,"strategy":"channel","symmetric":true},"targets":["*.down_proj","re:model\\.layers\\.0\\."]}],` +
		`"version":1}`
	if got != want {
		t.Errorf("canonical\n%s, want\n%s", got, want)
	}
	// Defaults written out, in another order and style, are the same recipe.
	long, err := recipe.Parse("mixed.yaml", []byte(`{seed: 7, output: {format: pack-quantized}, ignore: model.layers.1.self_attn.v_proj, steps: [
		{symmetric: true, strategy: group, targets: [Linear], search: false, method: rtn},
		{bits: 8, strategy: channel, method: rtn, targets: ["*.down_proj", 're:model\.layers\.0\.']}], numerics: f32, name: "mixed"}`))
	if err != nil {
		t.Fatal(err)
	}
	if other := canonical(t, long); other != want {
		t.Errorf("the same recipe in other words gives\n%s, want\n%s", other, want)
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	r := mixed(t)
	exact := mixed(t)
	if err := exact.Set("steps.1.targets", "lm_head,model.layers.0.mlp.gate"); err != nil {
		t.Fatal(err)
	}
	everything := mixed(t)
	if err := everything.Set("steps.0.targets", "*"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		r    *recipe.Recipe
		step []int // for each of llama(), -1: left alone
	}{
		"last step wins":      {r, []int{1, -1, 1, 0, -1, 1, -1, -1, -1}},
		"named exactly":       {exact, []int{0, 1, 0, 0, -1, 0, -1, 1, -1}},
		"globs spare routers": {everything, []int{1, -1, 1, 0, -1, 1, -1, -1, -1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, l := range llama() {
				sel, ok, err := test.r.Select(l)
				if err != nil {
					t.Fatal(err)
				}
				got := -1
				if ok {
					got = sel.Step
					if sel.Method == nil || !strings.Contains(string(sel.Params), `"bits":`) {
						t.Errorf("%s: selection %+v is not complete", l.Name, sel)
					}
				}
				if got != test.step[i] {
					t.Errorf("%s: step %d, want %d", l.Name, got, test.step[i])
				}
			}
		})
	}
}

func TestSelectActivationsLeaveTheWeightsAlone(t *testing.T) {
	t.Parallel()
	l := llama()[0]
	with, ok, err := preset(t, "w8a8-rtn").Select(l)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	without, _, err := preset(t, "w8a16-rtn-channel").Select(l)
	if err != nil {
		t.Fatal(err)
	}
	if string(with.Params) != string(without.Params) {
		t.Errorf("params %s and %s: the same weights are encoded twice", with.Params, without.Params)
	}
	if with.Activations == nil || *with.Activations != (recipe.Activations{Bits: 8, Dynamic: "token"}) || without.Activations != nil {
		t.Errorf("activations %v and %v", with.Activations, without.Activations)
	}
}

func TestUnmatched(t *testing.T) {
	t.Parallel()
	r := mixed(t)
	if miss := r.Unmatched(llama()); len(miss) != 0 {
		t.Errorf("misses %v", miss)
	}
	for _, kv := range [][2]string{
		{"steps.0.targets", "Linear,model.layers.0.self_attn.q_porj,*.gate"},
		{"ignore", "lm_head,nothing*"},
	} {
		if err := r.Set(kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := []struct{ path, nearest, sentence string }{
		{"steps.0.targets.1", "model.layers.0.self_attn.q_proj", "did you mean model.layers.0.self_attn.q_proj?"},
		{"steps.0.targets.2", "model.layers.0.mlp.gate", "by exact name, such as model.layers.0.mlp.gate"},
		{"ignore.1", "", `"nothing*" matches no linear`},
	}
	got := r.Unmatched(llama())
	if len(got) != len(want) {
		t.Fatalf("misses %v", got)
	}
	for i, w := range want {
		g := got[i]
		if g.Path != w.path || g.Nearest != w.nearest || !strings.Contains(g.Err.Error(), w.sentence) || !errors.Is(g.Err, compress.ErrInvalid) {
			t.Errorf("miss %+v, want %+v", g, w)
		}
	}
	// What stands in a file is found there.
	file := mixed(t)
	miss := file.Unmatched(llama()[3:4])
	if len(miss) != 3 || !strings.HasPrefix(miss[0].Err.Error(), filepath.Join("testdata", "mixed.yaml")+":12:9: ") {
		t.Errorf("misses %v", miss)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	tests := []struct {
		preset string
		set    []string
		want   string // part of the canonical recipe, or of the error
		bad    bool
	}{
		{preset: "w4a16-rtn", set: []string{"group=32"}, want: `"group":32`},
		{preset: "w4a16-rtn", set: []string{"steps.0.group=32"}, want: `"group":32`},
		{preset: "w4a16-rtn", set: []string{"strategy=channel"}, want: `"params":{"bits":4,"search":false,"strategy":"channel"`},
		{preset: "w8a16-rtn-channel", set: []string{"strategy=group", "group=64"}, want: `"group":64`},
		{preset: "w4a16-rtn", set: []string{"output.format=dense"}, want: `"format":"dense"`},
		{preset: "w4a16-rtn", set: []string{"ignore=a, b"}, want: `"ignore":["a","b"]`},
		{preset: "w4a16-rtn", set: []string{`ignore=["re:a{1,2}", b]`}, want: `"ignore":["re:a{1,2}","b"]`},
		{preset: "w4a16-rtn", set: []string{"ignore=a", "ignore="}, want: `"ignore":[]`},
		{preset: "w4a16-rtn", set: []string{"seed=18446744073709551615"}, want: `"seed":"18446744073709551615"`},
		{preset: "w8a16-rtn-channel", set: []string{"steps.0.activations.bits=8"}, want: `"output":{"format":"int-quantized"}`},
		{preset: "w4a16-rtn", set: []string{"symmetric=false", "search=true"}, want: `"search":true,"strategy":"group","symmetric":false`},

		{bad: true, preset: "w4a16-rtn", set: []string{"gruop=32"}, want: "did you mean group?"},
		{bad: true, preset: "w4a16-rtn", set: []string{"group=0"}, want: "group is 0, and takes a whole number from 1 to 1048576"},
		{bad: true, preset: "w4a16-rtn", set: []string{"group=x"}, want: `group is "x", and takes a whole number`},
		{bad: true, preset: "w4a16-rtn", set: []string{"bits=9"}, want: "from 2 to 8"},
		{bad: true, preset: "w4a16-rtn", set: []string{"symmetric=yes"}, want: "true or false"},
		{bad: true, preset: "w8a16-rtn-channel", set: []string{"group=32"}, want: "only with strategy=group"},
		{bad: true, preset: "w4a16-rtn", set: []string{"steps.1.bits=4"}, want: "numbered from 0 to 0"},
		{bad: true, preset: "w4a16-rtn", set: []string{"steps.0.method=rtm"}, want: "did you mean rtn?"},
		{bad: true, preset: "w4a16-rtn", set: []string{"steps.0.targets="}, want: "has no targets"},
		{bad: true, preset: "w4a16-rtn", set: []string{"output.format=dens"}, want: "did you mean dense?"},
		{bad: true, preset: "w4a16-rtn", set: []string{"numerics=bf32"}, want: "did you mean f32?"},
		{bad: true, preset: "w4a16-rtn", set: []string{"seed=-1"}, want: "2^64-1"},
		{bad: true, preset: "w4a16-rtn", set: []string{"ignore=[a"}, want: "--set ignore:1:"},
		{bad: true, preset: "w4a16-rtn", set: []string{"steps=1"}, want: "not a single value"},
	}
	for _, test := range tests {
		t.Run(test.preset+" "+strings.Join(test.set, " "), func(t *testing.T) {
			t.Parallel()
			r := preset(t, test.preset)
			before := canonical(t, r)
			var err error
			for _, s := range test.set {
				key, value, _ := strings.Cut(s, "=")
				if err = r.Set(key, value); err != nil {
					break
				}
			}
			switch after := canonical(t, r); {
			case !test.bad && err != nil:
				t.Fatal(err)
			case !test.bad && !strings.Contains(after, test.want):
				t.Errorf("recipe %s lacks %s", after, test.want)
			case test.bad && (err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, compress.ErrInvalid)):
				t.Errorf("error %v, want %q", err, test.want)
			case test.bad && after != before:
				t.Errorf("a refused override changed %s to %s", before, after)
			}
		})
	}
}

func TestPresets(t *testing.T) {
	t.Parallel()
	all, err := recipe.Presets()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	seen := map[string]string{}
	for _, r := range all {
		names = append(names, r.Name)
		if r.Description == "" || strings.Contains(r.Description, "\n") {
			t.Errorf("preset %s has the description %q", r.Name, r.Description)
		}
		l := compress.Linear{Name: "l", Rows: 8, Cols: 256, DType: "BF16", Role: compress.RoleLinear}
		sel, ok, err := r.Select(l)
		if err != nil || !ok {
			t.Fatalf("preset %s: %v %v", r.Name, ok, err)
		}
		if _, err := sel.Method.Layout(l); err != nil {
			t.Errorf("preset %s: %v", r.Name, err)
		}
		key := fmt.Sprintf("%s %s %s", sel.First.Name(), string(sel.Params)+string(sel.ThenParams), r.Format())
		if sel.Activations != nil {
			key += fmt.Sprintf("%+v", *sel.Activations)
		}
		if seen[key] != "" {
			t.Errorf("presets %s and %s are the same", seen[key], r.Name)
		}
		seen[key] = r.Name
		one := preset(t, r.Name)
		if canonical(t, one) != canonical(t, r) {
			t.Errorf("preset %s differs alone and in the list", r.Name)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("presets %v are not sorted", names)
	}
	if _, err := recipe.Preset("w4a16-rnt"); err == nil || !strings.Contains(err.Error(), "did you mean w4a16-rtn?") || !errors.Is(err, compress.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	all, err := recipe.Methods()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(all, func(a, b recipe.MethodInfo) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("methods %v are not sorted", all)
	}
	for _, m := range all {
		if m.Description == "" || m.Version < 1 || len(m.Formats) == 0 {
			t.Errorf("method %+v is not described", m)
		}
		for _, p := range m.Parameters {
			if v, err := p.Check(p.Default); err != nil || v != p.Default || p.Doc == "" {
				t.Errorf("method %s: parameter %+v: default %v, %v", m.Name, p, v, err)
			}
			if slices.Contains([]string{"method", "targets", "activations"}, p.Name) {
				t.Errorf("method %s: parameter %s hides a key of the step", m.Name, p.Name)
			}
		}
	}
}

func TestNewMethod(t *testing.T) {
	t.Parallel()
	for params, want := range map[string]string{
		``:                                 "",
		`{}`:                               "",
		`{"bits":8}`:                       "",
		`{"bits":1}`:                       "from 2 to 8",
		`{"bits":"4"}`:                     `bits is "4"`,
		`{"bits":4.5}`:                     "bits is 4.5",
		`{"bits":1e999}`:                   "no number that fits",
		`{"bist":4}`:                       "did you mean bits?",
		`{"bits":4}{}`:                     "more than one",
		`[]`:                               "read parameters",
		`{"strategy":"channel","group":4}`: "only with strategy=group",
	} {
		m, err := recipe.NewMethod("rtn", []byte(params))
		if want == "" && (err != nil || m.Name() != "rtn") {
			t.Errorf("%s: %v", params, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, compress.ErrInvalid)) {
			t.Errorf("%s: error %v, want %q", params, err, want)
		}
	}
	if _, err := recipe.NewMethod("rnt", nil); err == nil || !strings.Contains(err.Error(), "did you mean rtn?") {
		t.Errorf("error %v", err)
	}
}

func TestValidateRecipesMadeByHand(t *testing.T) {
	t.Parallel()
	step := recipe.Step{Method: "rtn", Targets: []string{"Linear"}}
	for name, r := range map[string]recipe.Recipe{
		"no version":       {Steps: []recipe.Step{step}},
		"no steps":         {Version: 1},
		"method":           {Version: 1, Steps: []recipe.Step{{Method: "x", Targets: []string{"Linear"}}}},
		"int, not int64":   {Version: 1, Steps: []recipe.Step{{Method: "rtn", Targets: []string{"Linear"}, Params: map[string]any{"bits": 4}}}},
		"activations":      {Version: 1, Steps: []recipe.Step{{Method: "rtn", Targets: []string{"Linear"}, Activations: &recipe.Activations{Bits: 8}}}},
		"empty ignore":     {Version: 1, Steps: []recipe.Step{step}, Ignore: []string{""}},
		"glob":             {Version: 1, Steps: []recipe.Step{step}, Ignore: []string{"a["}},
		"nothing to chain": {Version: 1, Steps: []recipe.Step{{Method: "rtn", Targets: []string{"a"}, Then: &recipe.Next{Method: "rtn"}}}},
	} {
		if err := r.Validate(); !errors.Is(err, compress.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := r.Canonical(); err == nil {
			t.Errorf("%s: has a canonical form", name)
		}
	}
	good := recipe.Recipe{Version: 1, Steps: []recipe.Step{step}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if err := good.Set("bits", "8"); err != nil || step.Params != nil {
		t.Errorf("error %v, the caller's step has %v", err, step.Params)
	}
}
