package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// preflight refuses a job that cannot end well, before anything is written. The
// job's store and output need not exist yet.
func preflight(ctx context.Context, j *Job, model string, plan *coordinator.Plan) error {
	if err := apart(j, model); err != nil {
		return err
	}
	var store objstore.Bucket = objstore.NewMem() // one that holds nothing
	if _, err := os.Stat(j.Store); err == nil {
		if store, err = objstore.OpenDirReadOnly(j.Store); err != nil {
			return err
		}
	}
	out, state, err := lookAtOutput(ctx, j, store, plan)
	if err != nil || state == coordinator.Complete && !j.Overwrite {
		return err
	}
	for _, p := range []struct{ flag, dir string }{{"--out", j.Out}, {"--store", j.Store}} {
		dir := existing(p.dir)
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return fmt.Errorf("%s: cannot write %s (%w): check its owner, its mode and the mount, or choose another place", p.flag, dir, err)
		}
	}
	return room(ctx, j, store, out, plan)
}

// lookAtOutput says what stands where the result is wanted, and refuses what must
// not be written over. out is nil where nothing stands.
func lookAtOutput(ctx context.Context, j *Job, store objstore.Bucket, plan *coordinator.Plan) (out *objstore.Dir, state coordinator.OutputState, err error) {
	info, err := os.Stat(j.Out)
	if _, lerr := os.Lstat(j.Out); errors.Is(lerr, os.ErrNotExist) {
		return nil, coordinator.Empty, nil
	}
	if err != nil {
		return nil, 0, compress.Invalidf("output: %w: name a new or empty directory with --out", err)
	}
	if !info.IsDir() {
		return nil, 0, compress.Invalidf("output: %s is not a directory: name a new or empty directory with --out", j.Out)
	}
	if out, err = objstore.OpenDirReadOnly(j.Out); err != nil {
		return nil, 0, fmt.Errorf("output: %w", err)
	}
	state, why, err := coordinator.Inspect(ctx, out, store, plan)
	switch {
	case err != nil:
		return nil, 0, err
	case state == coordinator.Foreign:
		return nil, 0, compress.Invalidf("output: %s is not empty and holds nothing that a run could go on with: %s: move it away, or name a new or empty directory with --out", j.Out, why)
	case state == coordinator.Other && !j.Overwrite:
		return nil, 0, compress.Invalidf("output: %s holds a finished result which this command would not make: %s: name another directory with --out, or replace it with --overwrite", j.Out, why)
	case state == coordinator.Complete && j.NoReuse && !j.Overwrite:
		return nil, 0, compress.Invalidf("output: %s holds the finished result: add --overwrite to make it again", j.Out)
	}
	return out, state, nil
}

// apart refuses directories that would get in each other's way.
func apart(j *Job, model string) error {
	type place struct{ flag, path string }
	var seen []place
	places := []place{{"--out", j.Out}, {"--store", j.Store}}
	if filepath.IsAbs(model) { // and not somewhere else altogether
		places = slices.Insert(places, 0, place{"--model", model})
	}
	for _, p := range places {
		abs, err := resolve(p.path)
		if err != nil {
			return err
		}
		for _, o := range seen {
			// A store may hold nothing but its objects, and a result nothing but its files.
			// The default store lies beside the result, in the same folder as the model or not.
			if abs == o.path || within(abs, o.path) || within(o.path, abs) {
				return compress.Invalidf("%s %s and %s %s must not be the same or one inside the other: choose another directory", p.flag, abs, o.flag, o.path)
			}
		}
		seen = append(seen, place{p.flag, abs})
	}
	return nil
}

// resolve is the absolute path without symbolic links, as far as it is there.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir := existing(abs)
	rest, err := filepath.Rel(dir, abs)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return filepath.Join(dir, rest), nil
}

func within(path, dir string) bool {
	return strings.HasPrefix(path, dir+string(filepath.Separator))
}

// existing is dir, or the nearest directory above it that is there.
func existing(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// room refuses a run for which the disk has no room. out is nil where no output
// stands yet.
func room(ctx context.Context, j *Job, store objstore.Bucket, out *objstore.Dir, plan *coordinator.Plan) error {
	var missing, copied int64 // bytes of results to make, and of those to copy into an output elsewhere
	for _, u := range plan.Units {
		size := u.Layout.Size()
		_, err := store.Stat(ctx, task.ResultKey(u.ID))
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return err
		}
		if err != nil || j.NoReuse {
			missing += size
		}
		if out != nil {
			if info, err := out.Stat(ctx, u.File); err == nil && info.Size == size {
				continue // copied in an earlier run
			}
		}
		copied += size
	}
	var fs [2]unix.Stat_t
	dirs := [2]string{existing(j.Store), existing(j.Out)}
	for i, dir := range dirs {
		if err := unix.Stat(dir, &fs[i]); err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
	}
	need := [2]int64{missing, missing}
	if fs[0].Dev != fs[1].Dev { // on one device placing is making a link
		need[1] = copied
	}
	for i, dir := range dirs {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // other types on other systems
		if need[i] > free {
			return fmt.Errorf("%w: %s needs %d MiB more for this result and has %d MiB free: make room, or choose another place with --out and --store",
				objstore.ErrFull, dir, need[i]>>20, free>>20)
		}
	}
	return nil
}
