package operation

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed" // the lock file
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// lockText says which bytes every operation makes of the fixed inputs, here and on
// every other machine.
//
//go:embed testdata/operations.lock
var lockText string

// ErrSelfTest is returned for a machine on which an operation makes other bytes than
// everywhere else.
var ErrSelfTest = errors.New("self-test failed")

// SelfTest runs the operations of a numeric class on small fixed inputs and compares
// what they make with what this version of the program makes everywhere: a machine
// on which they differ would spoil the results of a whole fleet.
func SelfTest(ctx context.Context, class string, kernel compress.Kernel) error {
	return selfTest(ctx, class, kernel, All())
}

func selfTest(ctx context.Context, class string, kernel compress.Kernel, ops map[string]Operation) error {
	if class != ClassF32 {
		return fmt.Errorf("test numeric class %q: %w: this program has %s", class, task.ErrInvalid, ClassF32)
	}
	k, err := tensor.ForName(string(kernel))
	if err != nil {
		return fmt.Errorf("test numeric class %s: %w", class, err)
	}
	want, err := parseLock(lockText)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shardpress-selftest-")
	if err != nil {
		return fmt.Errorf("test numeric class %s: %w: is there a directory for temporary files?", class, err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary, and nothing depends on it
	ck, err := fixedCheckpoint(ctx, dir, fixed())
	if err != nil {
		return fmt.Errorf("test numeric class %s: %w", class, err)
	}
	defer ck.Close() //nolint:errcheck // opened for reading
	all, err := fixedJobs(ck.Manifest)
	if err != nil {
		return err
	}
	for _, j := range all {
		got, err := j.digest(ctx, ck, ops, kernel)
		if err != nil {
			return fmt.Errorf("test numeric class %s: %s with the %s kernel: %w", class, j.name, k.Name(), err)
		}
		if got != want[j.name] {
			return fmt.Errorf("test numeric class %s: %w: %s with the %s kernel makes bytes of digest %.12s instead of %.12s: this machine's processor or memory may be broken; set SHARDPRESS_KERNEL=scalar to see whether its vector unit is",
				class, ErrSelfTest, j.name, k.Name(), got, want[j.name])
		}
	}
	return nil
}

// parseLock reads the lines of a lock file: name and digest.
func parseLock(text string) (map[string]string, error) {
	locked := map[string]string{}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		name, digest, ok := strings.Cut(s.Text(), " ")
		if strings.HasPrefix(name, "#") || name == "" {
			continue
		}
		if !ok || len(digest) != 2*sha256.Size || locked[name] != "" {
			return nil, fmt.Errorf("read operations.lock: %w: line %q", task.ErrInvalid, s.Text())
		}
		locked[name] = digest
	}
	return locked, nil
}

// fixedCheckpoint writes a fixed checkpoint into dir and opens it.
func fixedCheckpoint(ctx context.Context, dir string, tensors []fixedTensor) (*shard.Checkpoint, error) {
	b, err := fixedFile(tensors)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), b, 0o600); err != nil {
		return nil, err
	}
	return shard.Open(ctx, dir, shard.OpenOptions{})
}

// fixedJob is a line of the lock file: an operation, alone or with a method, and the
// tasks that reach all of it.
type fixedJob struct {
	name  string
	cases []*EncodeParams
}

// fixedJobs are the lines that this program must have.
func fixedJobs(m *shard.Manifest) ([]fixedJob, error) {
	methods, err := recipe.Methods()
	if err != nil {
		return nil, err
	}
	all := []fixedJob{{EncodeOp, []*EncodeParams{fixedPlain(m)}}}
	version := map[string]int{}
	for _, x := range methods {
		version[x.Name] = x.Version
		all = append(all, fixedJob{fmt.Sprintf("%s+%s@%d", EncodeOp, x.Name, x.Version), fixedMethod(m, x.Name, x.Version)})
	}
	return append(all, lockedChain(m, version)), nil
}

// digest is over the digests of all cases, in their order.
func (j *fixedJob) digest(ctx context.Context, ck *shard.Checkpoint, ops map[string]Operation, kernel compress.Kernel) (string, error) {
	sums := make([]string, len(j.cases))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range j.cases {
		g.Go(func() error {
			h := sha256.New()
			put := func(_ context.Context, name string, r io.Reader, size int64) error {
				h.Write([]byte(name))
				n, err := io.Copy(h, r)
				if err == nil && size >= 0 && n != size {
					err = io.ErrShortWrite
				}
				return err
			}
			if err := runFixed(ctx, ck, ops, p, &Env{Kernel: kernel, Progress: func(int64) {}, Put: put}); err != nil {
				return err
			}
			sums[i] = hex.EncodeToString(h.Sum(nil))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	h := sha256.New()
	for _, s := range sums {
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// runFixed runs EncodeOp on all files of a checkpoint.
func runFixed(ctx context.Context, ck *shard.Checkpoint, ops map[string]Operation, p *EncodeParams, env *Env) error {
	op := ops[EncodeOp]
	if op == nil {
		return fmt.Errorf("operation %s: %w: this program does not have it", EncodeOp, task.ErrInvalid)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode parameters of %s: %w", EncodeOp, err)
	}
	spec := &task.Spec{Op: EncodeOp, Class: ClassF32, Params: raw}
	m := &task.Message{Location: ck.Location()}
	for _, f := range ck.Manifest.Files {
		spec.Inputs = append(spec.Inputs, task.Input{Source: &task.Source{Kind: f.Identity.Kind, Value: f.Identity.Value}})
		m.Files = append(m.Files, task.File{Name: f.Name, Size: f.Size, Header: f.HeaderDigest})
	}
	env.Message, env.Sources = m, directory{}
	_, err = op.Run(ctx, spec, env)
	return err
}

// directory opens the sources of our own making: their location is a directory.
type directory struct{}

func (directory) Source(ctx context.Context, location string, files []shard.File) (*shard.Source, error) {
	return shard.OpenSource(ctx, location, files)
}
