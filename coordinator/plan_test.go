package coordinator

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

// sparse makes a checkpoint whose weights are a hole in the file: planning must
// not read them, and shapes of any size cost nothing.
func sparse(t *testing.T, config string, specs []shard.TensorSpec) *shard.Checkpoint {
	t.Helper()
	dir := t.TempDir()
	specs = append([]shard.TensorSpec{}, specs...)
	shard.SortSpecs(specs)
	layout, err := shard.NewLayout(specs, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	if err := os.WriteFile(path, layout.Header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, layout.Total); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ck, err := shard.Open(t.Context(), dir, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	return ck
}

const llamaConfig = `{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":1024,"num_hidden_layers":2,"torch_dtype":"bfloat16"}`

// llama is a decoder of two blocks whose embedding of vocab rows is the largest tensor.
func llama(vocab int64) []shard.TensorSpec {
	specs := []shard.TensorSpec{
		{Name: "model.embed_tokens.weight", DType: shard.BF16, Shape: []int64{vocab, 1024}},
		{Name: "lm_head.weight", DType: shard.BF16, Shape: []int64{vocab, 1024}},
		{Name: "model.norm.weight", DType: shard.BF16, Shape: []int64{1024}},
	}
	for _, p := range []string{"model.layers.0.", "model.layers.1."} {
		specs = append(specs,
			shard.TensorSpec{Name: p + "input_layernorm.weight", DType: shard.BF16, Shape: []int64{1024}},
			shard.TensorSpec{Name: p + "self_attn.q_proj.weight", DType: shard.BF16, Shape: []int64{1024, 1024}},
			shard.TensorSpec{Name: p + "self_attn.k_proj.weight", DType: shard.BF16, Shape: []int64{256, 1024}},
			shard.TensorSpec{Name: p + "self_attn.v_proj.weight", DType: shard.BF16, Shape: []int64{256, 1024}},
			shard.TensorSpec{Name: p + "mlp.down_proj.weight", DType: shard.BF16, Shape: []int64{1024, 2048}},
		)
	}
	return specs
}

func preset(t testing.TB, name string, set ...string) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range set {
		k, v, _ := strings.Cut(s, "=")
		if err := r.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func plan(t *testing.T, ck *shard.Checkpoint, r *recipe.Recipe, salt string) *Plan {
	t.Helper()
	p, err := NewPlan(ck.Manifest, r, PlanOptions{Config: ck.Config, Salt: salt})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ids(p *Plan) map[task.ID]bool {
	m := map[task.ID]bool{}
	for _, id := range p.IDs() {
		m[id] = true
	}
	return m
}

func shared(a, b *Plan) int {
	n, in := 0, ids(a)
	for _, id := range b.IDs() {
		if in[id] {
			n++
		}
	}
	return n
}

func TestPlanIsAFunctionOfItsInputs(t *testing.T) {
	t.Parallel()
	ck := sparse(t, llamaConfig, llama(1000))
	a := plan(t, ck, preset(t, "w4a16-rtn"), "s")
	if len(a.Units) != 3 {
		t.Fatalf("%d units, want one for each block and one for the rest", len(a.Units))
	}
	for range 5 {
		b := plan(t, ck, preset(t, "w4a16-rtn"), "s")
		if shared(a, b) != len(a.Units) || !bytes.Equal(a.Config, b.Config) || !bytes.Equal(a.Index, b.Index) {
			t.Fatal("planning twice gives two plans")
		}
		for i := range a.Units {
			if !bytes.Equal(a.Units[i].Spec, b.Units[i].Spec) {
				t.Fatal("planning twice gives two specs")
			}
		}
	}
	for _, c := range []struct {
		name   string
		recipe *recipe.Recipe
		salt   string
		want   int // tasks in common with a
	}{
		{"other bits", preset(t, "w8a16-rtn"), "s", 1},
		{"other group", preset(t, "w4a16-rtn", "group=64"), "s", 1},
		{"other format", preset(t, "w4a16-rtn", "output.format=dense"), "s", 1},
		{"ignored in block 1", preset(t, "w4a16-rtn", "ignore=model.layers.1.mlp.down_proj"), "s", 2},
		{"other build", preset(t, "w4a16-rtn"), "s2", 0},
	} {
		if got := shared(a, plan(t, ck, c.recipe, c.salt)); got != c.want {
			t.Errorf("%s: %d tasks in common, want %d", c.name, got, c.want)
		}
	}
	// Touching the file makes it another source.
	path := filepath.Join(ck.Location(), "model.safetensors")
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, fi.ModTime(), fi.ModTime().Add(1)); err != nil {
		t.Fatal(err)
	}
	again, err := shard.Open(t.Context(), ck.Location(), shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := shared(a, plan(t, again, preset(t, "w4a16-rtn"), "s")); got != 0 {
		t.Errorf("source of another time: %d tasks in common", got)
	}
}

func TestPlanCutsWhatIsLarge(t *testing.T) {
	t.Parallel()
	ck := sparse(t, llamaConfig, llama(600_000)) // embedding and head of 1.2 GB each
	p := plan(t, ck, preset(t, "w4a16-rtn"), "")
	if len(p.Units) != 5 {
		t.Fatalf("%d units, want embedding, head, norm and two blocks", len(p.Units))
	}
	for _, u := range p.Units {
		_, layout, err := u.Work()
		if err != nil {
			t.Fatal(err)
		}
		if u.Layout.SourceBytes > maxUnit && len(layout.Items) > 1 {
			t.Errorf("%s reads %d bytes in %d items", u.File, u.Layout.SourceBytes, len(layout.Items))
		}
		if u.Layout.Memory > 64<<20 {
			t.Errorf("%s needs %d bytes of memory: tensors do not stream", u.File, u.Layout.Memory)
		}
	}
	var index struct {
		Metadata struct {
			Size int64 `json:"total_size"`
		} `json:"metadata"`
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(p.Index, &index); err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, u := range p.Units {
		_, layout, err := u.Work()
		if err != nil {
			t.Fatal(err)
		}
		total += layout.File.Data
		for _, tensor := range layout.File.Tensors {
			if index.Map[tensor.Name] != u.File {
				t.Errorf("index has %s in %q, it is in %s", tensor.Name, index.Map[tensor.Name], u.File)
			}
		}
	}
	if index.Metadata.Size != total {
		t.Errorf("index says %d bytes, tensors have %d", index.Metadata.Size, total)
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	ck := sparse(t, llamaConfig, llama(1000))
	tied := sparse(t, strings.Replace(llamaConfig, "{", `{"tie_word_embeddings":true,`, 1), llama(1000)[:1])
	for _, c := range []struct {
		name   string
		ck     *shard.Checkpoint
		recipe *recipe.Recipe
		want   []string
	}{
		{"group that does not divide", ck, preset(t, "w4a16-rtn", "group=96"), []string{"model.layers.0.", "columns", "96", "strategy=channel"}},
		{"target that matches nothing", ck, preset(t, "w4a16-rtn", "steps.0.targets=model.layers.7.*"), []string{"model.layers.7.*"}},
		{"nothing to encode", tied, preset(t, "w4a16-rtn"), []string{"linear"}},
		{"everything ignored", ck, preset(t, "w4a16-rtn", "ignore=model.layers.*"), []string{"none of"}},
		{"fused layers unlike", ck, preset(t, "w4a16-rtn", "ignore=model.layers.0.self_attn.q_proj"), []string{"q_proj", "k_proj"}},
	} {
		_, err := NewPlan(c.ck.Manifest, c.recipe, PlanOptions{Config: c.ck.Config})
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", c.name, err, w)
			}
		}
		if !errors.Is(err, compress.ErrInvalid) && !errors.Is(err, shard.ErrFused) && !errors.Is(err, shard.ErrMissing) {
			t.Errorf("%s: %v is of no kind that exits with 2", c.name, err)
		}
	}
}

func TestResultsConfig(t *testing.T) {
	t.Parallel()
	ck := sparse(t, llamaConfig, llama(1000))
	for _, c := range []struct {
		recipe *recipe.Recipe
		want   []string
	}{
		{preset(t, "w4a16-rtn"), []string{`"pack-quantized"`, `"group_size": 128`, `"lm_head"`}},
		{preset(t, "w8a8-rtn"), []string{`"int-quantized"`, `"strategy": "channel"`, `"strategy": "token"`}},
	} {
		p := plan(t, ck, c.recipe, "")
		var indented bytes.Buffer
		if err := json.Indent(&indented, p.Config, "", " "); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(indented.String(), w) {
				t.Errorf("%s: config has no %s:\n%s", c.recipe.Name, w, indented.String())
			}
		}
	}
	dense := plan(t, ck, preset(t, "w4a16-rtn", "output.format=dense"), "")
	if string(dense.Config) != llamaConfig {
		t.Errorf("config of a dense result: %s", dense.Config)
	}
}
