package operation

import (
	"runtime"
	"testing"
)

// TestTasksShareBuffers bounds what a further task allocates, and so how the garbage
// of a run grows with the model.
func TestTasksShareBuffers(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	j := wide(t, 1<<17, Item{Encode: []EncodeLinear{{
		Method: "rtn", At: 1, Format: FormatPack, Params: []byte(`{"bits":4,"symmetric":false,"group":128}`),
	}}})
	op := All()[EncodeOp]
	var before, after runtime.MemStats
	for range 3 {
		runtime.ReadMemStats(&before)
		if _, err := op.Run(t.Context(), j.spec, j.env); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > panelBytes/2 {
		t.Errorf("the third task allocated %d KiB: its buffers are not those of the one before", n>>10)
	}
}

func TestSpareBuffers(t *testing.T) {
	t.Parallel()
	var b buffers
	b.give(make([]byte, 100))
	b.give(make([]byte, 1000))
	if s := b.take(50); cap(s) != 100 || len(s) != 0 {
		t.Errorf("got %d of %d bytes, want the smallest that is large enough", len(s), cap(s))
	}
	if s := b.take(2000); cap(s) < 2000 || len(b.spare) != 0 {
		t.Errorf("got %d bytes, %d spare, want a new one in the place of the small one", cap(s), len(b.spare))
	}
	p := &pool{}
	p.put(&buffers{panel: make([]byte, keptBytes+1)})
	if len(p.free) != 0 {
		t.Error("buffers of a large task were kept")
	}
}
