package operation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/tensor"
)

func TestSelfTest(t *testing.T) {
	t.Parallel()
	if err := SelfTest(t.Context(), ClassF32, ""); err != nil { // the lock's own test has all kernels
		t.Error(err)
	}
	if err := SelfTest(t.Context(), "bf16@1", ""); !errors.Is(err, task.ErrInvalid) || !strings.Contains(err.Error(), "bf16@1") {
		t.Errorf("a class that is not there: %v", err)
	}
	if err := SelfTest(t.Context(), ClassF32, "abacus"); !errors.Is(err, tensor.ErrKernel) {
		t.Errorf("a kernel that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := SelfTest(ctx, ClassF32, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSelfTestKnowsTheLock compares what the binary carries with the file that the
// suite holds the operations to.
func TestSelfTestKnowsTheLock(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(lockFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != lockText {
		t.Error("the embedded digests are not those of " + lockFile)
	}
	known, err := parseLock(lockText)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := fixedJobs(checkpoint(t, fixed()).Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if known[j.name] == "" {
			t.Errorf("the self-test has no digest for %s", j.name)
		}
	}
	for _, text := range []string{"encode@1", "encode@1 abc", strings.Repeat("a "+strings.Repeat("0", 64)+"\n", 2)} {
		if _, err := parseLock(text); err == nil {
			t.Errorf("lock file %.20q was accepted", text)
		}
	}
}

// wrong flips one bit of what one task of many makes, and only with one kernel.
type wrong struct {
	Encode
	kernel compress.Kernel
	at     int64
	runs   *atomic.Int64
}

func (w wrong) Run(ctx context.Context, spec *task.Spec, env *Env) ([]task.Consumed, error) {
	if env.Kernel == w.kernel && w.runs.Add(1) == w.at {
		put := env.Put
		env.Put = func(ctx context.Context, name string, r io.Reader, size int64) error {
			if name == ShardOutput {
				b, err := io.ReadAll(r)
				if err != nil {
					return err
				}
				b[len(b)/2] ^= 1
				r = strings.NewReader(string(b))
			}
			return put(ctx, name, r, size)
		}
	}
	return w.Encode.Run(ctx, spec, env)
}

// TestSelfTestFindsAWrongKernel plants a wrong bit in the first, a middle and the
// last of the tasks.
func TestSelfTestFindsAWrongKernel(t *testing.T) {
	t.Parallel()
	jobs, err := fixedJobs(checkpoint(t, fixed()).Manifest)
	if err != nil {
		t.Fatal(err)
	}
	var all int64
	for _, j := range jobs {
		all += int64(len(j.cases))
	}
	bad := compress.Kernel(tensor.Names()[len(tensor.Names())-1])
	for _, at := range []int64{1, all / 2, all} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			ops := map[string]Operation{EncodeOp: wrong{kernel: bad, at: at, runs: new(atomic.Int64)}}
			err := selfTest(t.Context(), ClassF32, bad, ops)
			if !errors.Is(err, ErrSelfTest) || !strings.Contains(err.Error(), string(bad)) || !strings.Contains(err.Error(), EncodeOp) {
				t.Errorf("%v", err)
			}
		})
	}
	if err := selfTest(t.Context(), ClassF32, bad, map[string]Operation{}); !errors.Is(err, task.ErrInvalid) {
		t.Errorf("a program without the operation: %v", err)
	}
}
