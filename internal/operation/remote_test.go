package operation

import (
	"runtime"
	"testing"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/objstore"
)

// A task that reads from a store needs what the plan says and what reading from afar needs, whatever the size of the tensor.
func TestEncodeMemoryFromAStore(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	const cols = 4096
	for _, rows := range []int64{1 << 9, 1 << 13} { // 4 and 64 MiB of source
		ck := sparse(t, rows, cols, nil)
		dir, err := objstore.OpenDirReadOnly(ck.Location())
		if err != nil {
			t.Fatal(err)
		}
		store := objstore.NewMem()
		if _, err := objstore.Copy(t.Context(), store, "m/model.safetensors", dir, "model.safetensors"); err != nil {
			t.Fatal(err)
		}
		o := &source.Opener{Store: store}
		there, err := o.Open(t.Context(), source.Store("m"))
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		for _, format := range []string{"", FormatPack} {
			j := newMatrixTask(t, there, format, hashOnly)
			j.env.Message.Location, j.env.Sources = source.Of(there), o
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := (Encode{}).Run(t.Context(), j.spec, j.env); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			used, counted := int64(after.TotalAlloc-before.TotalAlloc), j.layout.Memory+source.Memory(j.env.Message.Location)
			if used > counted {
				t.Errorf("format %q, %d rows: %d bytes were allocated, %d are counted on", format, rows, used, counted)
			}
		}
	}
}
