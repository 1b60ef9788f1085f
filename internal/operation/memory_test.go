package operation

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/shardpress/shardpress/shard"
)

// wide makes the task of one item over a matrix of one row.
func wide(t *testing.T, cols int64, item Item) *matrixTask {
	t.Helper()
	j := newMatrixTask(t, sparse(t, 1, cols, nil), FormatDense, hashOnly)
	var p EncodeParams
	if err := json.Unmarshal(j.spec.Params, &p); err != nil {
		t.Fatal(err)
	}
	p.Items = []Item{item}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	j.spec.Params = raw
	if j.layout, err = p.Layout(); err != nil {
		t.Fatal(err)
	}
	return j
}

// TestWideRowsAreCounted holds what a task allocates for a matrix of one row against
// the plan, whatever becomes of it: what it takes more for a wider row, the plan
// counts more. Buffers are used again, so all that is allocated is about the peak.
func TestWideRowsAreCounted(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	const narrow, wider = 1 << 12, 1 << 21
	zero := 0
	items := map[string]Item{"copy": {Copy: matrixName + ".weight"}, "cast": {Cast: &zero}}
	for _, strategy := range []string{`"tensor"`, `"channel"`, `"group","group":128`} {
		for _, symmetric := range []bool{true, false} {
			for _, format := range []string{FormatPack, FormatInt, FormatDense} {
				if format == FormatPack && strategy == `"tensor"` && !symmetric {
					continue // has no place in the format
				}
				e := []EncodeLinear{{
					Method: "rtn", At: 1, Format: format,
					Params: json.RawMessage(fmt.Sprintf(`{"bits":4,"symmetric":%v,"strategy":%s}`, symmetric, strategy)),
				}}
				items[fmt.Sprintf("%s %s %v", format, strategy, symmetric)] = Item{Encode: e}
				if format == FormatDense {
					items[fmt.Sprintf("rebuild %s %v", strategy, symmetric)] = Item{Rebuild: matrixName + ".weight", Encode: e}
				}
			}
		}
	}
	for format, methods := range map[shard.Format]map[string]string{
		shard.FormatFloatQuantized: {"fp8": `{"strategy":"block"}`},
		shard.FormatMXFP8:          {"mxfp8": `{}`},
		shard.FormatBitsAndBytes:   {"nf4": `{}`, "fp4": `{"double_quant":false}`, "llmint8": `{}`},
		shard.FormatShardpress:     {"nf4": `{}`},
		shard.FormatDense:          {"fp8": `{"strategy":"tensor"}`, "mxfp8": `{}`, "fp4": `{"block":4096}`, "nf4": `{}`, "llmint8": `{}`},
	} {
		for method, params := range methods {
			e := EncodeLinear{Method: method, At: 1, Params: json.RawMessage(params), Format: string(format)}
			items[fmt.Sprintf("%s %s %s", format, method, params)] = Item{Encode: []EncodeLinear{e}}
		}
	}
	for _, params := range []string{`{"sparsity":0.5}`, `{"sparsity":0.5,"scope":"row"}`, `{"sparsity":0.125}`, `{"pattern":"n:m","n":2,"m":4}`} {
		prune := EncodeLinear{Method: "magnitude", At: 1, Params: json.RawMessage(params)}
		for _, format := range []string{string(shard.FormatShardpress), FormatDense} {
			prune.Format = format
			items[format+" "+params] = Item{Encode: []EncodeLinear{prune}}
		}
		prune.Format, prune.Then = FormatPack, &NextMethod{Method: "rtn", At: 1, Params: json.RawMessage(`{"bits":4}`)}
		items["then "+params] = Item{Encode: []EncodeLinear{prune}}
	}
	// A collection empties the pools that buffers wait in, and what is then made anew would count twice.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for name, item := range items {
		allocated := func(j *matrixTask) int64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := (Encode{}).Run(t.Context(), j.spec, j.env); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			runtime.ReadMemStats(&after)
			if after.HeapAlloc > 1<<30 {
				runtime.GC()
			}
			return int64(after.TotalAlloc - before.TotalAlloc)
		}
		small, large := wide(t, narrow, item), wide(t, wider, item)
		took, planned := allocated(large)-allocated(small), large.layout.Memory-small.layout.Memory
		if took > planned+panelBytes+64<<10 { // the first panel is let go for a longer one
			t.Errorf("%s: %d KiB more are allocated for the wide row, the plan counts %d", name, took>>10, planned>>10)
		}
		// A row of codes and of float32 is counted even where vector code needs none.
		if planned > 2*took+8*wider {
			t.Errorf("%s: the plan counts %d KiB more for the wide row, %d are allocated", name, planned>>10, took>>10)
		}
	}
}

// TestManySmallScalesAreCounted has scales whose size keeps nothing aligned: they
// wait for the end of the file, those of all linears together.
func TestManySmallScalesAreCounted(t *testing.T) {
	t.Parallel()
	memory := func(n int) int64 {
		p := &EncodeParams{}
		for i := range n {
			l := views()["odd"]
			l.Name, l.Tensor = fmt.Sprint("m", i), fmt.Sprint("m", i, ".weight")
			p.Tensors = append(p.Tensors, shard.Tensor{Name: l.Tensor, DType: shard.BF16, Shape: []int64{l.Rows, l.Cols}, Length: l.Rows * l.Cols * 2})
			p.Items = append(p.Items, Item{Encode: []EncodeLinear{p.encode(l, "rtn", 1, `{"group":1}`, FormatInt)}})
		}
		layout, err := p.Layout()
		if err != nil {
			t.Fatal(err)
		}
		return layout.Memory
	}
	if more, scales := memory(100)-memory(1), int64(99*2*5*33); more < scales {
		t.Errorf("%d bytes more are planned for %d more bytes of scales", more, scales)
	}
}
