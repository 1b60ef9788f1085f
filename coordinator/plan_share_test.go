package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/shard"
)

// shares lists, for each encoded linear, the linears that it is prepared with, and the weight files that encode them.
func shares(t *testing.T, p *Plan) (with map[string]string, files map[string]string) {
	t.Helper()
	with, files = map[string]string{}, map[string]string{}
	for _, u := range p.Units {
		params, layout, err := u.Work()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, tensor := range params.Tensors {
			have[tensor.Name] = true
		}
		for _, it := range layout.Items {
			for _, x := range it.Encoded {
				var names []string
				for _, peer := range x.Share {
					names = append(names, leaf(peer.Name))
					if !have[peer.Tensor] {
						t.Errorf("%s: %s is prepared with %s, whose tensor the task has not", u.File, x.Linear.Name, peer.Name)
					}
				}
				if len(names) > 0 && names[x.At] != leaf(x.Linear.Name) {
					t.Errorf("%s: %s takes itself for %s", u.File, x.Linear.Name, names[x.At])
				}
				with[x.Linear.Name], files[x.Linear.Name] = strings.Join(names, " "), u.File
			}
		}
	}
	return with, files
}

func leaf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func parsed(t *testing.T, text string) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Parse("r.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlanShares(t *testing.T) {
	t.Parallel()
	ck := sparse(t, llamaConfig, llama(1000))
	const q, k, v, down = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj"
	all, two := "k_proj q_proj v_proj", "k_proj v_proj"
	for _, c := range []struct {
		name   string
		recipe *recipe.Recipe
		want   map[string]string
	}{
		{"all", preset(t, "nvfp4a16"), map[string]string{q: all, k: all, v: all, down: ""}},
		{"dense", preset(t, "nvfp4a16", "output.format=dense"), map[string]string{q: all, k: all, v: all, down: ""}},
		{"one ignored", preset(t, "nvfp4a16", "output.format=dense", "ignore="+q), map[string]string{k: two, v: two}},
		{"two ignored", preset(t, "nvfp4a16", "output.format=dense", "ignore="+q+","+k), map[string]string{v: ""}},
		{"in two steps", parsed(t, "steps:\n- {method: nvfp4, targets: Linear}\n- {method: nvfp4, targets: '*.q_proj'}\n"), map[string]string{q: all, k: all, v: all}},
		{"another method", parsed(t, "steps:\n- {method: nvfp4, targets: Linear}\n- {method: mxfp4, targets: '*.q_proj'}\noutput: {format: dense}\n"), map[string]string{q: "", k: two, v: two}},
		{"nothing to share", preset(t, "mxfp4a16"), map[string]string{q: "", k: "", v: ""}},
	} {
		got, _ := shares(t, plan(t, ck, c.recipe, ""))
		for name, want := range c.want {
			if have, ok := got[name]; !ok || have != want {
				t.Errorf("%s: %s shares with %q, want %q", c.name, name, have, want)
			}
		}
	}
	for name, r := range map[string]*recipe.Recipe{
		"one ignored":    preset(t, "nvfp4a16", "ignore="+q),
		"another method": parsed(t, "steps:\n- {method: nvfp4, targets: Linear}\n- {method: mxfp4, targets: '*.q_proj'}\n"),
	} {
		_, err := NewPlan(ck.Manifest, r, PlanOptions{Config: ck.Config})
		if !errors.Is(err, shard.ErrFused) || !strings.Contains(err.Error(), "q_proj") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// A group whose parts are in two weight files is read whole for each of them.
func TestPlanSharesOverFiles(t *testing.T) {
	t.Parallel()
	specs := llama(1000)
	for i := range specs {
		if strings.Contains(specs[i].Name, ".self_attn.") {
			specs[i].Shape = []int64{400_000, 1024} // 0.8 GB each
		}
	}
	p := plan(t, sparse(t, llamaConfig, specs), preset(t, "nvfp4a16"), "")
	with, files := shares(t, p)
	in := map[string]bool{}
	for _, part := range []string{"q_proj", "k_proj", "v_proj"} {
		name := "model.layers.1.self_attn." + part
		if in[files[name]] = true; with[name] != "k_proj q_proj v_proj" {
			t.Errorf("%s shares with %q", name, with[name])
		}
	}
	if len(in) < 2 {
		t.Fatalf("the group is in %d weight file: the test no longer reaches what it is for", len(in))
	}
	for _, u := range p.Units {
		if u.Layout.Memory > 128<<20 {
			t.Errorf("%s needs %d bytes of memory", u.File, u.Layout.Memory)
		}
	}
}

// Experts in stacks are split, and each has a pair of its own.
func TestPlanSharesExperts(t *testing.T) {
	t.Parallel()
	config := strings.Replace(llamaConfig, `"model_type":"llama"`, `"model_type":"qwen3_moe","num_experts":3`, 1)
	specs := append(llama(1000),
		shard.TensorSpec{Name: "model.layers.0.mlp.experts.gate_up_proj", DType: shard.BF16, Shape: []int64{3, 512, 1024}},
		shard.TensorSpec{Name: "model.layers.0.mlp.experts.down_proj", DType: shard.BF16, Shape: []int64{3, 1024, 256}})
	for _, format := range []string{"nvfp4-pack-quantized", operation.FormatDense} {
		with, _ := shares(t, plan(t, sparse(t, config, specs), preset(t, "nvfp4a16", "output.format="+format), ""))
		for e := range 3 {
			name := fmt.Sprintf("model.layers.0.mlp.experts.%d.", e)
			if with[name+"gate_proj"] != "gate_proj up_proj" || with[name+"up_proj"] != "gate_proj up_proj" || with[name+"down_proj"] != "" {
				t.Errorf("%s: expert %d: gate shares with %q, up with %q, down with %q", format, e, with[name+"gate_proj"], with[name+"up_proj"], with[name+"down_proj"])
			}
		}
		if !slices.Contains([]string{"", "k_proj q_proj v_proj"}, with["model.layers.0.self_attn.q_proj"]) {
			t.Errorf("%s: q_proj shares with %q", format, with["model.layers.0.self_attn.q_proj"])
		}
	}
}
