package coordinator

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestPlanIsSmall bounds what a block adds to the memory of a whole run: its share
// of the plan.
func TestPlanIsSmall(t *testing.T) { //nolint:paralleltest // measures the heap of the whole process
	const blocks, bound = 64, 3 << 10 // bytes for a tensor of the source
	specs := llama(1000)
	block := specs[3:8] // of block 0
	specs = specs[:3:3]
	for b := range blocks {
		for _, s := range block {
			s.Name = strings.Replace(s.Name, ".0.", fmt.Sprintf(".%d.", b), 1)
			specs = append(specs, s)
		}
	}
	ck := sparse(t, strings.Replace(llamaConfig, `layers":2`, fmt.Sprintf(`layers":%d`, blocks), 1), specs)
	r := preset(t, "w4a16-rtn")
	plan(t, ck, r, "") // what is made once
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	p := plan(t, ck, r, "")
	got := (heap() - before) / int64(len(specs))
	if len(p.Units) != blocks+1 {
		t.Fatalf("%d units for %d blocks", len(p.Units), blocks)
	}
	t.Logf("%d bytes for a tensor", got)
	if got > bound {
		t.Errorf("a plan keeps %d bytes for a tensor, want at most %d: what a run does not need all the time is worked out when it does (Unit.Work)", got, bound)
	}
	runtime.KeepAlive(p)
}
