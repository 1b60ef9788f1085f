package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/fleet"
	"github.com/shardpress/shardpress/internal/task"
)

// TestFleet has unlike workers, two coordinators, a broker and an S3 server, each a
// process of its own, make what one process makes.
func TestFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.mustCall("doctor", "--create")
	f.coordinator("c1")
	f.coordinator("c2")
	for i, memory := range []string{"128M", "192M", "256M", "512M", "1G"} {
		f.worker(fmt.Sprintf("w%d", i+1), memory, 1+i%2)
	}
	want := alone(t, story)
	out := filepath.Join(f.dir, "out")
	f.mustCall("compress", "--nats", f.nats, "--model", story, "--recipe", "w4a16-rtn", "--out", out)
	alike(t, "the bundled model, fetched", contents(t, out), want)
	f.mustCall("verify", "--model", story, out)
}

// TestFleetSynthetic is the same with a checkpoint of eight layers, in files of
// their own, which lies in the store.
func TestFleetSynthetic(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("TestFleet does the same with the bundled model")
	}
	model := llama(t, 8, 512)
	f := newFleet(t)
	f.coordinator("c1")
	f.coordinator("c2")
	for i, memory := range []string{"128M", "192M", "256M", "512M", "1G"} {
		f.worker(fmt.Sprintf("w%d", i+1), memory, 1+i%2)
	}
	run := f.submit(model, "results/synthetic")
	f.ends(f.bucket(), run)
	if s := f.status(run); s.State != coordinator.StateDone {
		t.Fatalf("%+v", s.Record)
	}
	alike(t, "the synthetic checkpoint", f.stored("results/synthetic"), alone(t, model))
}

// llama writes a checkpoint of so many layers, each in a file of its own, with an
// index.
func llama(t *testing.T, layers, hidden int) (model string) {
	t.Helper()
	model = filepath.Join(t.TempDir(), "model")
	where := map[string]string{}
	file := func(name string, arrays ...array) {
		for _, a := range arrays {
			where[a.name] = name
		}
		write(t, model, name, safetensors(arrays...))
	}
	file("outside.safetensors", weights("model.embed_tokens.weight", 64, hidden), weights("model.norm.weight", hidden), weights("lm_head.weight", 64, hidden))
	for b := range layers {
		p := fmt.Sprintf("model.layers.%d.", b)
		file(fmt.Sprintf("layer-%d.safetensors", b), weights(p+"input_layernorm.weight", hidden), weights(p+"post_attention_layernorm.weight", hidden),
			weights(p+"self_attn.q_proj.weight", hidden, hidden), weights(p+"self_attn.k_proj.weight", hidden/2, hidden),
			weights(p+"self_attn.v_proj.weight", hidden/2, hidden), weights(p+"self_attn.o_proj.weight", hidden, hidden),
			weights(p+"mlp.gate_proj.weight", 2*hidden, hidden), weights(p+"mlp.up_proj.weight", 2*hidden, hidden), weights(p+"mlp.down_proj.weight", hidden, 2*hidden))
	}
	index, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": where})
	if err != nil {
		t.Fatal(err)
	}
	write(t, model, "model.safetensors.index.json", index)
	config := strings.Replace(tinyConfig, `"num_hidden_layers":2`, fmt.Sprintf(`"num_hidden_layers":%d`, layers), 1)
	config = strings.Replace(config, `"hidden_size":128,"intermediate_size":256`, fmt.Sprintf(`"hidden_size":%d,"intermediate_size":%d`, hidden, 2*hidden), 1)
	write(t, model, "config.json", []byte(strings.Replace(config, `"vocab_size":32`, `"vocab_size":64`, 1)))
	return model
}

// wide is the columns of a row that needs a worker with more than 128 MiB.
const wide = 10 << 20

// withWide is a checkpoint of so many small blocks and one of which a task is too big
// for a worker with 128 MiB.
func withWide(t *testing.T, n int) (model string) {
	t.Helper()
	arrays := []array{{"model.layers.0.mlp.up_proj.weight", []int{1, wide}, make([]byte, 2*wide)}}
	for b := range n {
		arrays = append(arrays, weights(fmt.Sprintf("model.layers.%d.mlp.up_proj.weight", b+1), 16, tinyHidden))
	}
	_, model = checkpoint(t, safetensors(arrays...))
	write(t, model, "config.json", []byte(strings.Replace(tinyConfig, `"num_hidden_layers":2`, fmt.Sprintf(`"num_hidden_layers":%d`, n+1), 1)))
	return model
}

// TestFleetChanges has workers join and another leave while a run goes on, which
// cannot end before the last one comes.
func TestFleetChanges(t *testing.T) {
	t.Parallel()
	n := fewer(100)
	model := withWide(t, n)
	f := newFleet(t)
	f.coordinator("c1")
	first := f.worker("w1", "128M", 1)
	run := f.submit(model, "results/a")
	seen := func(what string, is func(s *status) bool) {
		t.Helper()
		until(t, what, func() bool {
			s := f.status(run)
			if s.Record != nil {
				t.Fatalf("the run was over before this was seen: %s", what)
			}
			return is(s)
		})
	}
	member := func(s *status, name string) *task.WorkerInfo {
		for _, w := range s.Fleet {
			if w.Name == name {
				return w
			}
		}
		return nil
	}
	seen("the first worker is at work", func(s *status) bool { return s.Snapshot != nil && s.Snapshot.Tasks.Done > 0 && member(s, "w1") != nil })
	f.worker("w2", "128M", 2)
	seen("status shows both", func(s *status) bool { return member(s, "w1") != nil && member(s, "w2") != nil })
	first.end(syscall.SIGTERM)
	seen("status shows that one has left", func(s *status) bool { return member(s, "w1") == nil && member(s, "w2") != nil })
	f.worker("w3", "256M", 1)
	r := f.ends(f.bucket(), run)
	if r.State != coordinator.StateDone || !slices.Contains(r.Workers, "w1") || !slices.Contains(r.Workers, "w3") {
		t.Errorf("run %s by %v: %s", r.State, r.Workers, r.Error)
	}
	alike(t, "the result", f.stored("results/a"), alone(t, model))
	attempts, err := fleet.Attempts(t.Context(), f.bucket(), run)
	if err != nil || len(attempts) > n+3 {
		t.Errorf("%d attempts at %d tasks: %v", len(attempts), n, err)
	}
}

// TestFleetWaitsForMemory has a run wait for a worker that is big enough.
func TestFleetWaitsForMemory(t *testing.T) {
	t.Parallel()
	model := withWide(t, 1)
	f := newFleet(t)
	f.coordinator("c1")
	f.worker("small", "128M", 1)
	run := f.submit(model, "results/a")
	until(t, "the run waits for one task, and status says for what", func() bool {
		s := f.status(run).Snapshot
		return s != nil && s.Tasks.Done == s.Tasks.Total-1 && len(s.Waits) == 1 && s.Waits[0].Memory == 256<<20 && s.Waits[0].Tasks == 1
	})
	if said := f.mustCall("status", run); !strings.Contains(said, "1 tasks wait for a worker with 256.00 MiB or more") {
		t.Errorf("status says %q", said)
	}
	f.worker("big", "256M", 1)
	if r := f.ends(f.bucket(), run); r.State != coordinator.StateDone || fmt.Sprint(r.Workers) != "[big small]" {
		t.Errorf("run %s by %v: %s", r.State, r.Workers, r.Error)
	}
	alike(t, "the result", f.stored("results/a"), alone(t, model))
}
