package operation

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// matrixName is the one linear of the checkpoints that sparse makes.
const matrixName = "model.layers.0.mlp.down_proj"

// sparse writes a checkpoint of one BF16 matrix and opens it. Without fill the bytes
// are a hole in the file, so that a large one costs nothing.
func sparse(tb testing.TB, rows, cols int64, fill func(row []byte)) *shard.Checkpoint {
	tb.Helper()
	layout, err := shard.NewLayout([]shard.TensorSpec{{Name: matrixName + ".weight", DType: "BF16", Shape: []int64{rows, cols}}}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	w.Write(layout.Header) // kept by the writer and returned by Flush
	if fill != nil {
		row := make([]byte, cols*2)
		for range rows {
			fill(row)
			w.Write(row)
		}
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := f.Truncate(layout.Total); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	ck, err := shard.Open(tb.Context(), dir, shard.OpenOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ck.Close() })
	return ck
}

// matrixTask is a task over the matrix of a checkpoint that sparse made.
type matrixTask struct {
	spec   *task.Spec
	layout *Layout
	env    *Env
}

// newMatrixTask encodes the matrix into a format, or carries it over if that is empty.
func newMatrixTask(tb testing.TB, ck *shard.Checkpoint, format string, put func(context.Context, string, io.Reader, int64) error) *matrixTask {
	tb.Helper()
	t := ck.Manifest.Tensors[0]
	p := &EncodeParams{Tensors: []shard.Tensor{t}, Linears: []shard.Linear{}, Items: []Item{{Copy: t.Name}}}
	if format != "" {
		p.Linears = append(p.Linears, shard.Linear{
			Name: matrixName, Tensor: t.Name, Rows: t.Shape[0], Cols: t.Shape[1], RowStep: 1, Expert: -1, Role: shard.RoleLinear,
		})
		p.Items = []Item{{Encode: []EncodeLinear{{
			Method: "rtn", At: 1, Format: format,
			Params: json.RawMessage(`{"bits":4,"symmetric":true,"strategy":"group","group":128,"search":false}`),
		}}}}
	}
	raw, err := json.Marshal(p)
	if err != nil {
		tb.Fatal(err)
	}
	layout, err := p.Layout()
	if err != nil {
		tb.Fatal(err)
	}
	f := ck.Manifest.Files[0]
	return &matrixTask{
		spec: &task.Spec{
			Op: EncodeOp, Class: ClassF32, Params: raw,
			Inputs: []task.Input{{Source: &task.Source{Kind: f.Identity.Kind, Value: f.Identity.Value}}},
		},
		layout: layout,
		env: &Env{
			Message: &task.Message{
				Location: source.File(ck.Location()),
				Files:    []task.File{{Name: f.Name, Size: f.Size, Header: f.HeaderDigest}},
			},
			Sources:  &source.Opener{AnyDir: true},
			Progress: func(int64) {},
			Put:      put,
		},
	}
}

// hashOnly takes an output as a store would and keeps nothing.
func hashOnly(_ context.Context, _ string, r io.Reader, size int64) error {
	n, err := io.Copy(sha256.New(), r)
	if err == nil && n != size {
		err = io.ErrShortWrite
	}
	return err
}

// What a task allocates beyond scales, which wait for their place in the file, is the
// same for a tensor eight times as large, and within what the plan admits it with.
func TestEncodeMemoryDoesNotGrowWithTheTensor(t *testing.T) { //nolint:paralleltest // counts what the whole process allocates
	const cols = 4096
	allocated := func(format string, rows int64) int64 {
		j := newMatrixTask(t, sparse(t, rows, cols, nil), format, hashOnly)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := (Encode{}).Run(t.Context(), j.spec, j.env); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		used := int64(after.TotalAlloc - before.TotalAlloc)
		if used > j.layout.Memory {
			t.Errorf("format %q, %d rows: %d bytes were allocated, the plan counts on %d", format, rows, used, j.layout.Memory)
		}
		if format == FormatPack || format == FormatInt {
			used -= 2 * rows * (cols / 128)
		}
		return used
	}
	for _, format := range []string{"", FormatPack, FormatInt, FormatDense} {
		small, large := allocated(format, 1<<9), allocated(format, 1<<12) // 4 and 32 MiB of source
		if large > small+small/4 {
			t.Errorf("format %q: %d bytes are allocated for a matrix of 4 MiB, %d for one of 32 MiB", format, small, large)
		}
	}
}

// BenchmarkEncode is the work of one task from source file to flushed object, in
// bytes of source per second. The temporary directory decides what is measured:
// the program with TMPDIR on a memory-backed file system, else the disk.
func BenchmarkEncode(b *testing.B) {
	const rows, cols = 1 << 14, 1 << 12 // 128 MiB
	seed := uint64(1)
	ck := sparse(b, rows, cols, func(row []byte) {
		for i := 0; i < len(row); i += 2 {
			seed = seed*6364136223846793005 + 1442695040888963407 // Knuth's MMIX
			// BF16 of either sign, between 2^-9 and 2^-5.
			row[i], row[i+1] = byte(seed>>33), byte(seed>>56)&0x80|0x3b+byte(seed>>41)&1
		}
	})
	for _, c := range []struct{ name, format string }{
		{"copy", ""}, {"pack", FormatPack}, {"int", FormatInt}, {"dense", FormatDense},
	} {
		b.Run(c.name, func(b *testing.B) {
			store, err := objstore.CreateDir(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			j := newMatrixTask(b, ck, c.format, func(ctx context.Context, name string, r io.Reader, size int64) error {
				_, err := store.Put(ctx, name, r, size, objstore.PutOptions{})
				return err
			})
			b.SetBytes(j.layout.SourceBytes)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (Encode{}).Run(b.Context(), j.spec, j.env); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
