package source_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/compress/recipe"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/source"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/objstore/hub/hubtest"
	"github.com/shardpress/shardpress/shard"
)

// planOf plans a checkpoint with the simplest recipe.
func planOf(t *testing.T, ck *shard.Checkpoint) *coordinator.Plan {
	t.Helper()
	r, err := recipe.Preset("w4a16-rtn")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Set("group", "32"); err != nil {
		t.Fatal(err)
	}
	plan, err := coordinator.NewPlan(ck.Manifest, r, coordinator.PlanOptions{Config: ck.Config, Salt: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// work does the tasks of a plan as a worker would, and returns the digests of their weight files.
func work(ctx context.Context, o *source.Opener, location string, plan *coordinator.Plan) ([][32]byte, error) {
	var digests [][32]byte
	for i := range plan.Units {
		u := &plan.Units[i]
		spec, err := task.ParseSpec(u.ID, u.Spec)
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		_, err = operation.All()[spec.Op].Run(ctx, spec, &operation.Env{
			Message: &task.Message{ID: u.ID, Location: location, Files: u.Files}, Sources: o, Kernel: compress.KernelScalar, Progress: func(int64) {},
			Put: func(_ context.Context, _ string, r io.Reader, _ int64) error {
				_, err := io.Copy(h, r)
				return err
			},
		})
		if err != nil {
			return nil, err
		}
		digests = append(digests, [32]byte(h.Sum(nil)))
	}
	return digests, nil
}

// Wherever a checkpoint lies, the tasks make the same bytes; and where its identity is the same, they are the same tasks.
func TestPlansAndResults(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"tiny": writeModel(t), "story": filepath.Join("..", "..", "testdata", "models", "story")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			abs, err := filepath.Abs(dir)
			if err != nil {
				t.Fatal(err)
			}
			open := func(hash bool) *shard.Checkpoint {
				ck, err := shard.Open(t.Context(), abs, shard.OpenOptions{HashSource: hash})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { ck.Close() })
				return ck
			}
			local, hashed := open(false), open(true)
			store := objstore.NewMem()
			copyTo(t, store, "in/place", abs)
			upload, err := shard.Upload(t.Context(), local, store, nil)
			if err != nil {
				t.Fatal(err)
			}
			uploadHashed, err := shard.Upload(t.Context(), hashed, store, nil)
			if err != nil {
				t.Fatal(err)
			}
			h := hubtest.New(t, hubFiles(t, abs))
			o := &source.Opener{AnyDir: true, Store: store, Hub: hub.Options{Endpoint: h.Endpoint}}
			want, err := work(t.Context(), o, source.File(abs), planOf(t, local))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				location string
				ids      *shard.Checkpoint // whose tasks these are
			}{
				{source.File(abs), local},
				{source.Uploaded(upload), local},
				{source.Uploaded(uploadHashed), hashed},
				{"hf://" + hubtest.ID, hashed},
				{source.Store("in/place"), nil},
			} {
				ck, err := o.Open(t.Context(), c.location)
				if err != nil {
					t.Fatalf("%s: %v", c.location, err)
				}
				defer ck.Close()
				plan := planOf(t, ck)
				if c.ids != nil && !slices.Equal(plan.IDs(), planOf(t, c.ids).IDs()) {
					t.Errorf("%s: the tasks are others", c.location)
				}
				if c.ids == nil && slices.Equal(plan.IDs(), planOf(t, local).IDs()) {
					t.Errorf("%s: a version stands for a local identity", c.location)
				}
				got, err := work(t.Context(), o, source.Of(ck), plan)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: results differ: %v, error %v", c.location, !slices.Equal(got, want), err)
				}
			}
		})
	}
}

// meddled is a store in which something happens before the n-th read.
type meddled struct {
	objstore.Bucket
	left   atomic.Int64
	meddle func()
}

func (m *meddled) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if m.left.Add(-1) == 0 {
		m.meddle()
	}
	return m.Bucket.Get(ctx, key, off, n)
}

// A source that is overwritten during a run fails it as changed, whenever that is, or did no harm; no result is of mixed bytes.
func TestSourceOverwrittenDuringARun(t *testing.T) {
	t.Parallel()
	dir := writeModel(t)
	mem := objstore.NewMem()
	copyTo(t, mem, "m", dir)
	o := &source.Opener{Store: mem}
	ck, err := o.Open(t.Context(), "store:m")
	if err != nil {
		t.Fatal(err)
	}
	defer ck.Close()
	plan := planOf(t, ck)
	want, err := work(t.Context(), o, "store:m", plan)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for n := int64(1); ; n++ {
		// Mem reads one version or nothing by itself; below the tap, the store is one that does not.
		store := objstore.NewMem()
		for info, err := range mem.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := objstore.Copy(t.Context(), store, info.Key, mem, info.Key); err != nil {
				t.Fatal(err)
			}
		}
		tap := &meddled{Bucket: store}
		tap.left.Store(1 << 40)
		there := &source.Opener{Store: tap}
		ck, err := there.Open(t.Context(), "store:m")
		if err != nil {
			t.Fatal(err)
		}
		plan := planOf(t, ck)
		ck.Close()
		tap.meddle = func() { copyTo(t, store, "m", dir) } // the same bytes, in new versions
		tap.left.Store(n)
		got, err := work(t.Context(), there, "store:m", plan)
		switch {
		case tap.left.Load() > 0: // there was no n-th read
			if err != nil || !slices.Equal(got, want) || seen == 0 {
				t.Errorf("undisturbed: %v; %d runs were disturbed", err, seen)
			}
			return
		case err == nil:
			t.Errorf("read %d: the change was not seen", n)
		case !errors.Is(err, shard.ErrSourceChanged) || operation.Classify(err) != task.Changed:
			t.Errorf("read %d: %v", n, err)
		default:
			seen++
		}
	}
}
