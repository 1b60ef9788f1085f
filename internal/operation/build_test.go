package operation

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// checkpoint writes a fixed checkpoint and opens it. Linears are views given by hand.
func checkpoint(t *testing.T, tensors []fixedTensor) *shard.Checkpoint {
	t.Helper()
	ck, err := fixedCheckpoint(t.Context(), t.TempDir(), tensors)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ck.Close() })
	return ck
}

// collector is where an operation's outputs go in tests.
type collector struct {
	names []string
	data  map[string][]byte
}

func (c *collector) put(_ context.Context, name string, r io.Reader, size int64) error {
	var b bytes.Buffer
	n, err := io.Copy(&b, r)
	if err != nil {
		return err
	}
	if size >= 0 && n != size {
		return io.ErrShortWrite
	}
	if c.data == nil {
		c.data = map[string][]byte{}
	}
	c.names = append(c.names, name)
	c.data[name] = b.Bytes()
	return nil
}

// run runs the operation on all of a checkpoint's files.
func run(t *testing.T, ck *shard.Checkpoint, p *EncodeParams, k compress.Kernel) (*collector, error) {
	t.Helper()
	out := &collector{}
	err := runFixed(t.Context(), ck, All(), p, &Env{Kernel: k, Progress: func(int64) {}, Put: out.put})
	return out, err
}

// must is run without an error.
func must(t *testing.T, ck *shard.Checkpoint, p *EncodeParams, k compress.Kernel) *collector {
	t.Helper()
	out, err := run(t, ck, p, k)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kernels are those that this machine can run.
func kernels(t *testing.T) []compress.Kernel {
	t.Helper()
	var list []compress.Kernel
	for _, k := range []compress.Kernel{compress.KernelScalar, compress.KernelAVX2, compress.KernelAVX512} {
		if _, err := tensor.ForName(string(k)); err == nil {
			list = append(list, k)
		}
	}
	return list
}
