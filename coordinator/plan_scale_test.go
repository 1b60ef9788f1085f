package coordinator

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/shard"
)

// largePlanMemory bounds the bytes that planning a model of 10^12 parameters may take.
const largePlanMemory = 1 << 30

// BenchmarkPlanOfALargeModel plans a real mixture of experts of 10^12 parameters, from
// its shapes: what it takes, and what a run of it would send.
//
//	SHARDPRESS_TESTDATA=... go test -run - -bench PlanOfALarge -benchtime 1x -v ./coordinator
func BenchmarkPlanOfALargeModel(t *testing.B) {
	dir := os.Getenv("SHARDPRESS_TESTDATA")
	if dir == "" {
		t.Skip("SHARDPRESS_TESTDATA names no folder with real configurations and models")
	}
	dir = filepath.Join(dir, "configs", "Kimi-K2-Instruct")
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := preset(t, "w4a16-rtn")
	model := manyFiles(t, string(config), shapesOf(t, filepath.Join(dir, "shapes.json.gz")))
	runtime.GC()
	runtime.GC()
	before := heapInUse()
	most := watchHeap()

	begin, used := time.Now(), cpuTime()
	ck, err := shard.Open(t.Context(), model, shard.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	opened := time.Since(begin)
	p, err := NewPlan(ck.Manifest, r, PlanOptions{Config: ck.Config})
	if err != nil {
		t.Fatal(err)
	}
	planned := time.Since(begin)
	used = cpuTime() - used
	peak := most() - before
	runtime.GC()
	held := heapInUse() - before

	d := newDriver(&Run{Plan: p, Location: "store:model"})
	var specs, messages, specMost, messageMost int
	for _, u := range p.Units {
		m, err := d.message(Publish{ID: u.ID})
		if err != nil {
			t.Fatal(err)
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		specs, specMost = specs+len(u.Spec), max(specMost, len(u.Spec))
		messages, messageMost = messages+len(b), max(messageMost, len(b))
	}
	t.Logf("%d files, %d tensors, %d linears: opened in %v, planned in %v", len(ck.Manifest.Files), len(ck.Manifest.Tensors), len(ck.Manifest.Linears),
		opened.Round(time.Millisecond), (planned - opened).Round(time.Millisecond))
	t.Logf("CPU: %v", used.Round(time.Millisecond))
	t.Logf("memory: at most %d MiB, kept %d MiB", peak>>20, held>>20)
	t.Logf("%d tasks: specs of %d bytes, the largest %d; messages of %d bytes, the largest %d", len(p.Units), specs, specMost, messages, messageMost)
	if peak > largePlanMemory {
		t.Errorf("planned with %d bytes, want at most %d", peak, largePlanMemory)
	}
	if specMost > task.MaxSpec {
		t.Errorf("a spec of %d bytes", specMost)
	}
	runtime.KeepAlive(p)
}

// cpuTime is what this process has had of the processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heapInUse() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// watchHeap returns a function that tells the most bytes that objects took, dead ones
// that the collector had not found yet among them.
func watchHeap() func() int64 {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		var n int64
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n = max(n, heapInUse())
			case <-stop:
				most <- n
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-most }
}

func shapesOf(t testing.TB, file string) []shard.TensorSpec {
	t.Helper()
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("SHARDPRESS_TESTDATA has no " + file)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Tensors [][3]json.RawMessage }
	if err := json.NewDecoder(z).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	specs := make([]shard.TensorSpec, len(doc.Tensors))
	for i, row := range doc.Tensors {
		for j, to := range []any{&specs[i].Name, &specs[i].DType, &specs[i].Shape} {
			if err := json.Unmarshal(row[j], to); err != nil {
				t.Fatal(err)
			}
		}
	}
	return specs
}

// fileBytes is about the size of a weight file as large models come.
const fileBytes = 16 << 30

// manyFiles makes a checkpoint of several files whose weights are holes.
func manyFiles(t testing.TB, config string, specs []shard.TensorSpec) string {
	t.Helper()
	dir := t.TempDir()
	where := map[string]string{}
	var total int64
	for n := 0; len(specs) > 0; n++ {
		var size int64
		k := 0
		for k < len(specs) && size < fileBytes {
			b, ok := specs[k].Bytes()
			if !ok {
				t.Fatalf("%v has no size", specs[k])
			}
			size += b
			k++
		}
		part := specs[:k:k]
		specs, total = specs[k:], total+size
		shard.SortSpecs(part)
		layout, err := shard.NewLayout(part, nil)
		if err != nil {
			t.Fatal(err)
		}
		name := fileName(n, 1000)
		for _, s := range part {
			where[s.Name] = name
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, layout.Header, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, layout.Total); err != nil {
			t.Fatal(err)
		}
	}
	index, err := shard.MarshalIndex(where, total)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{indexFile: index, configFile: []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
