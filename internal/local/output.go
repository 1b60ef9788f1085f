package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// ErrComplete says that the result is there already.
var ErrComplete = errors.New("the result is complete already")

// openOutput makes the result's directory a store for as long as it is being
// made, so that each file in it appears whole or not at all.
func openOutput(ctx context.Context, j *Job, store objstore.Bucket, plan *coordinator.Plan) (out *objstore.Dir, complete bool, err error) {
	state := coordinator.Empty
	if _, err := os.Lstat(j.Out); !errors.Is(err, os.ErrNotExist) {
		there, err := objstore.OpenDirReadOnly(j.Out)
		if err != nil {
			return nil, false, fmt.Errorf("output: %w", err)
		}
		if state, err = coordinator.Inspect(ctx, there, store, plan); err != nil {
			return nil, false, err
		}
		if state == coordinator.Foreign {
			return nil, false, fmt.Errorf("output: %s is not empty and holds no result of shardpress: name a new or empty directory with --out", j.Out)
		}
		if state == coordinator.Other && !j.Overwrite {
			return nil, false, fmt.Errorf("output: %s holds a finished result of another recipe or of other source bytes: name another directory with --out, or replace it with --overwrite", j.Out)
		}
		if state == coordinator.Other || state == coordinator.Complete && j.Overwrite {
			if err := remove(ctx, j.Out, there); err != nil {
				return nil, false, fmt.Errorf("output: %w", err)
			}
			state = coordinator.Empty
		}
	}
	if state == coordinator.Complete {
		return nil, true, release(ctx, j.Out)
	}
	if out, err = objstore.CreateDir(j.Out); err != nil {
		return nil, false, fmt.Errorf("output: %w", err)
	}
	return out, false, coordinator.NewOutput(out, "").Begin(ctx)
}

// release makes a finished result's directory an ordinary one. The run may have
// been killed at any point after its manifest was written.
func release(ctx context.Context, dir string) error {
	if err := os.Remove(filepath.Join(dir, coordinator.UnfinishedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return objstore.ReleaseDir(ctx, dir)
}

// remove takes away a finished result, by its own table of contents, which goes
// first.
func remove(ctx context.Context, dir string, there objstore.Bucket) error {
	m, err := coordinator.ReadManifest(ctx, there)
	if err != nil {
		return err
	}
	names := []string{coordinator.ManifestFile}
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// apart refuses directories that would get in each other's way.
func apart(j *Job, model string) error {
	paths := map[string]string{}
	for _, p := range []struct{ flag, path string }{{"--model", model}, {"--out", j.Out}, {"--store", j.Store}} {
		abs, err := filepath.Abs(p.path)
		if err != nil {
			return err
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		for flag, other := range paths {
			// A store may hold nothing but its objects, and a result nothing but its files.
			// The default store lies beside the result, in the same folder as the model or not.
			if abs == other || p.flag == "--out" && flag == "--model" && within(abs, other) ||
				p.flag == "--store" && within(abs, other) || p.flag == "--out" && within(other, abs) {
				return fmt.Errorf("%s %s and %s %s must not be the same or one inside the other: choose another directory", p.flag, abs, flag, other)
			}
		}
		paths[p.flag] = abs
	}
	return nil
}

func within(path, dir string) bool {
	return strings.HasPrefix(path, dir+string(filepath.Separator))
}

// room refuses a run for which the disk has no room, before it begins.
func room(ctx context.Context, j *Job, store objstore.Bucket, plan *coordinator.Plan) error {
	missing := map[uint64]int64{} // bytes by device
	var total int64
	for _, u := range plan.Units {
		_, err := store.Stat(ctx, task.ResultKey(u.ID))
		if errors.Is(err, objstore.ErrNotExist) {
			total += u.Layout.Size()
		} else if err != nil {
			return err
		}
	}
	var fs [2]unix.Stat_t
	for i, dir := range []string{j.Store, j.Out} {
		if err := unix.Stat(dir, &fs[i]); err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
	}
	missing[uint64(fs[0].Dev)] = total //nolint:unconvert // other types on other systems
	if fs[1].Dev != fs[0].Dev {        // placing means copying
		missing[uint64(fs[1].Dev)] = plan.ResultBytes() //nolint:unconvert // likewise
	}
	for i, dir := range []string{j.Store, j.Out} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // likewise
		if need := missing[uint64(fs[i].Dev)]; need > free {
			return fmt.Errorf("%w: %s needs %d MiB more for this result and has %d MiB free: make room, or choose another place with --out and --store",
				objstore.ErrFull, dir, need>>20, free>>20)
		}
	}
	return nil
}

// lock keeps two processes from serving one store: the embedded broker lives in
// it. The kernel lets go of the lock when the process dies, however it dies.
func lock(store string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(store, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close() //nolint:errcheck // never written
		return nil, fmt.Errorf("store %s is in use by another shardpress process: wait for it, stop it, or name another store with --store (%w)", store, err)
	}
	return func() { f.Close() }, nil //nolint:errcheck // closing lets go of the lock
}
