package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/internal/local"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// TestTroubleThatPasses disturbs a run in ways that it must get over by itself.
func TestTroubleThatPasses(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	want := calm(t, model)
	nth := func(n int64, hit func(*call) bool) func(*call) bool {
		var seen atomic.Int64
		return func(c *call) bool { return hit(c) && seen.Add(1) == n }
	}
	first := func(k int64, hit func(*call) bool) func(*call) bool {
		var seen atomic.Int64
		return func(c *call) bool { return hit(c) && seen.Add(1) <= k }
	}
	publish := func(c *call) bool { return c.op == "publish" }
	news := func(state string) func(*call) bool {
		return func(c *call) bool { return c.op == "notify" && c.notice.State == state }
	}
	put := func(name string) func(*call) bool {
		return func(c *call) bool { return c.on == "store" && c.op == "put" && strings.HasSuffix(c.key, name) }
	}
	both := func(f, g func(*call) bool) func(*call) bool {
		return func(c *call) bool { a, b := f(c), g(c); return a || b }
	}
	for _, c := range []struct {
		name  string
		lost  func(*call) bool // is answered with success, and not done
		fails func(*call) bool // is answered with an error, and not done
		late  func(*call) bool // is done, and answered with an error
	}{
		{name: "a message is lost", lost: nth(2, publish)},
		{name: "all messages are lost once", lost: first(3, publish)},
		{name: "news of success is lost", lost: nth(1, news(task.Done))},
		{name: "all news of success is lost", lost: news(task.Done)},
		{name: "news of failure is lost", lost: news(task.Failed), fails: nth(1, put("shard.safetensors"))},
		{name: "a write fails", fails: nth(1, put("shard.safetensors"))},
		{name: "two writes of a task fail", fails: first(2, put("shard.safetensors"))},
		{name: "statistics are not written", fails: nth(1, put("linears.json"))},
		{name: "a commit fails", fails: nth(1, put("result.json"))},
		{name: "a commit succeeds and says otherwise", late: nth(1, put("result.json"))},
		{name: "every commit succeeds and says otherwise", late: put("result.json")},
		{name: "a failure cannot be stored", fails: both(nth(1, put("shard.safetensors")), func(c *call) bool { return strings.Contains(c.key, "/failures/") })},
		{name: "acknowledgements fail", late: func(c *call) bool { return c.on == "delivery" && c.op == "done" }},
		{name: "the queue does not say what is outstanding", fails: first(2, func(c *call) bool { return c.op == "outstanding" }), lost: nth(1, publish)},
		{name: "the end is not recorded", fails: put("state.json")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			j := mustJob(t, model, out)
			j.Wrap = tapped(func(op *call, do func() error) error {
				switch {
				case c.fails != nil && c.fails(op):
					return errInjected
				case c.lost != nil && c.lost(op):
					return nil
				case c.late != nil && c.late(op):
					return errors.Join(do(), errInjected)
				}
				return do()
			})
			if _, err := local.Run(t.Context(), j); err != nil {
				t.Error(err)
			}
			if err := same(out, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLostRepair loses the message, or the news, of a repair: the result that
// stands is the one whose bytes are gone.
func TestLostRepair(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	want := calm(t, model)
	for _, loses := range []string{"publish", "notify"} {
		t.Run(loses, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := finish(t.Context(), model, filepath.Join(dir, "first"), want); err != nil {
				t.Fatal(err)
			}
			store := filepath.Join(dir, ".shardpress")
			shards, err := filepath.Glob(filepath.Join(store, "tasks/*/*/*/shard.safetensors"))
			if err != nil || len(shards) != 2 {
				t.Fatalf("%q, %v", shards, err)
			}
			for _, path := range shards {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			out := filepath.Join(dir, "second")
			j := mustJob(t, model, out)
			var lost atomic.Bool
			j.Wrap = tapped(func(c *call, do func() error) error {
				if c.op == loses && !lost.Swap(true) {
					return nil
				}
				return do()
			})
			outcome, err := local.Run(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if outcome.Repaired != 2 || outcome.Reused != 0 || outcome.Executed != 2 {
				t.Errorf("%+v, want two results whose bytes were made again", outcome)
			}
			if err := same(out, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTroubleThatEndsTheRun disturbs a run so that it must end, with a reason. The
// same command must work when the trouble is over.
func TestTroubleThatEndsTheRun(t *testing.T) {
	t.Parallel()
	full := fmt.Errorf("%w: no space left for shard: free space, then run again", objstore.ErrFull)
	long := errors.New(strings.Repeat("long ", 100_000) + "the cause")
	for _, c := range []struct {
		name string
		hit  func(*call) bool
		err  error
		want []string
	}{
		{"store full for outputs", func(c *call) bool { return c.on == "store" && c.op == "put" && strings.Contains(c.key, "shard.") }, full, []string{"store is full", "free space"}},
		{"store full for specs", func(c *call) bool { return c.on == "store" && strings.HasSuffix(c.key, "task.json") && c.op == "put" }, full, []string{"store is full", "free space"}},
		{"store full for everything", func(c *call) bool { return c.on == "store" && c.op == "put" && !strings.HasPrefix(c.key, "runs/") }, full, []string{"store is full"}},
		{"output full for weights", func(c *call) bool { return c.on == "out" && c.op == "copy" }, full, []string{"store is full", "model-0000"}},
		{"output full for the manifest", func(c *call) bool { return c.on == "out" && c.op == "put" && c.key == "MANIFEST.json" }, full, []string{"store is full", "MANIFEST.json"}},
		{"writes never work", func(c *call) bool { return c.on == "store" && c.op == "put" && strings.Contains(c.key, "shard.") }, errInjected, []string{"injected failure"}},
		{"a long story", func(c *call) bool { return c.on == "store" && c.op == "put" && strings.Contains(c.key, "shard.") }, long, []string{"the cause"}},
		{"store does not answer", func(c *call) bool { return c.on == "store" && c.op == "get" && strings.HasSuffix(c.key, "result.json") }, errInjected, []string{"injected failure", "read result of task"}},
		{"broker refuses", func(c *call) bool { return c.op == "publish" }, errInjected, []string{"injected failure"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			model := tinyModel(t, 2)
			want := calm(t, model)
			out := filepath.Join(t.TempDir(), "out")
			j := mustJob(t, model, out)
			j.Workers = 2
			j.Wrap = tapped(func(op *call, do func() error) error {
				if c.hit(op) {
					return c.err
				}
				return do()
			})
			_, err := local.Run(t.Context(), j)
			if !errors.Is(err, c.err) && err == nil {
				t.Fatal("the run succeeded")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %.300v does not say %q", err, w)
				}
			}
			if len(err.Error()) > 16<<10 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			if _, err := os.Stat(filepath.Join(out, "MANIFEST.json")); err == nil {
				t.Error("the result is finished all the same")
			}
			if err := finish(t.Context(), model, out, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailuresAreStored looks for what a failed attempt leaves behind, at its own
// fault and at the store's.
func TestFailuresAreStored(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		hit      func(*call) bool
		err      error
		failures int // stored
		record   string
	}{
		{"the task's fault", func(c *call) bool { return c.op == "get" && strings.HasSuffix(c.key, "task.json") }, objstore.ErrNotExist, 1, ""},
		{"the store's fault", func(c *call) bool { return c.op == "put" && strings.HasSuffix(c.key, "linears.json") }, errInjected, 0, "injected failure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			j := mustJob(t, tinyModel(t, 1), out)
			var hit atomic.Bool
			j.Wrap = tapped(func(op *call, do func() error) error {
				if c.hit(op) && !hit.Swap(true) {
					return c.err
				}
				return do()
			})
			outcome, err := local.Run(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if outcome.Failures != 1 {
				t.Errorf("%d failures counted, want 1", outcome.Failures)
			}
			texts := func(kind, says string) (n int) {
				found, err := filepath.Glob(filepath.Join(local.DefaultStore(out), "runs", outcome.Run, kind, "*.json"))
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range found {
					b, err := os.ReadFile(name)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(b, []byte(says)) {
						n++
					}
				}
				return n
			}
			if n := texts("failures", c.err.Error()); n != c.failures {
				t.Errorf("%d failures stored, want %d", n, c.failures)
			}
			if c.record != "" && (texts("attempts", c.record) != 1 || texts("attempts", `"state":"storage"`) != 1) {
				t.Error("no record of the attempt tells of it")
			}
			if n := texts("attempts", `"state":"done"`); n != 2 {
				t.Errorf("%d records of results", n)
			}
			attempts, err := filepath.Glob(filepath.Join(local.DefaultStore(out), "tasks/*/*/*/shard.safetensors"))
			if err != nil || len(attempts) != 2 {
				t.Errorf("attempts left: %q, want those of two results (%v)", attempts, err)
			}
		})
	}
}

// TestOtherBytesOfARepair has a machine that computes something else when lost
// bytes are made again.
func TestOtherBytesOfARepair(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 1)
	dir := t.TempDir()
	if _, err := local.Run(t.Context(), mustJob(t, model, filepath.Join(dir, "first"))); err != nil {
		t.Fatal(err)
	}
	shards, err := filepath.Glob(filepath.Join(dir, ".shardpress/tasks/*/*/*/shard.safetensors"))
	if err != nil || len(shards) != 2 {
		t.Fatalf("%q, %v", shards, err)
	}
	for _, s := range shards {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "second")
	j := mustJob(t, model, out)
	j.Wrap = tapped(func(c *call, do func() error) error {
		if c.on == "store" && c.op == "put" && strings.HasSuffix(c.key, "shard.safetensors") {
			b, err := io.ReadAll(*c.reader)
			if err != nil {
				return err
			}
			b[len(b)-1] ^= 1
			*c.reader = bytes.NewReader(b)
		}
		return do()
	})
	_, err = local.Run(t.Context(), j)
	if err == nil {
		t.Fatal("other bytes were accepted")
	}
	attempt := filepath.Base(filepath.Dir(shards[0]))
	other := filepath.Base(filepath.Dir(shards[1]))
	if s := err.Error(); strings.Count(s, "by worker local (attempt ") != 2 || !strings.Contains(s, attempt) && !strings.Contains(s, other) || !strings.Contains(s, "deterministic") {
		t.Errorf("error names not both workers and attempts: %v", err)
	}
}

// TestSourceRewrittenDuringTheRun changes weights, and in another run a file that is
// carried over, when the run has begun.
func TestSourceRewrittenDuringTheRun(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(*call) bool{
		"model.safetensors": func(c *call) bool { return c.op == "publish" },
		"tokenizer.json":    func(c *call) bool { return c.op == "copy" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			model := tinyModel(t, 2)
			out := filepath.Join(t.TempDir(), "out")
			j := mustJob(t, model, out)
			var hit atomic.Bool
			j.Wrap = tapped(func(c *call, do func() error) error {
				if at(c) && !hit.Swap(true) {
					if err := flip(filepath.Join(model, name)); err != nil {
						return err
					}
				}
				return do()
			})
			_, err := local.Run(t.Context(), j)
			if !errors.Is(err, shard.ErrSourceChanged) && (err == nil || !strings.Contains(err.Error(), shard.ErrSourceChanged.Error())) ||
				!strings.Contains(err.Error(), filepath.Join(model, name)) {
				t.Fatalf("error %v, want one that names %s as changed", err, name)
			}
			// What the source holds now is another job, and the unfinished output is ours.
			if err := finish(t.Context(), model, out, calm(t, model)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSourceRewrittenBetweenRuns keeps size, names and header of the source.
func TestSourceRewrittenBetweenRuns(t *testing.T) {
	t.Parallel()
	model := tinyModel(t, 2)
	out := filepath.Join(t.TempDir(), "out")
	before := calm(t, model)
	if err := finish(t.Context(), model, out, before); err != nil {
		t.Fatal(err)
	}
	if err := flip(filepath.Join(model, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	want := calm(t, model)
	if fmt.Sprint(before) == fmt.Sprint(want) {
		t.Fatal("the change does not show in the result")
	}
	_, err := local.Run(t.Context(), mustJob(t, model, out))
	if err == nil || !strings.Contains(err.Error(), out) || !strings.Contains(err.Error(), "--overwrite") {
		t.Fatalf("error %v, want a refusal that names %s", err, out)
	}
	if err := same(out, before); err != nil {
		t.Errorf("a refused run has changed the result: %v", err)
	}
	j := mustJob(t, model, out)
	j.Overwrite = true
	outcome, err := local.Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if outcome.Reused != 0 {
		t.Errorf("%d results of the old weights were reused", outcome.Reused)
	}
	if err := same(out, want); err != nil {
		t.Error(err)
	}
}
