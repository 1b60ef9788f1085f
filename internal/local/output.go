package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/objstore"
)

// ErrComplete says that the result is there already.
var ErrComplete = errors.New("the result is complete already")

// openOutput makes the result's directory a store for as long as it is being
// made, so that each file in it appears whole or not at all.
func openOutput(ctx context.Context, j *Job, store objstore.Bucket, plan *coordinator.Plan) (out objstore.Bucket, complete bool, err error) {
	if err := j.finishRemoval(ctx); err != nil {
		return nil, false, fmt.Errorf("output: %w", err)
	}
	there, state, err := lookAtOutput(ctx, j, store, plan)
	if err != nil {
		return nil, false, err
	}
	if state == coordinator.Other || state == coordinator.Complete && j.Overwrite {
		if err := j.remove(ctx, there); err != nil {
			return nil, false, fmt.Errorf("output: %w", err)
		}
		state = coordinator.Empty
	}
	if state == coordinator.Complete {
		return nil, true, j.release(ctx)
	}
	dir, err := objstore.CreateDir(j.Out)
	if err != nil {
		return nil, false, fmt.Errorf("output: %w", err)
	}
	j.step("output is a store")
	out = j.bucket(dir)
	return out, false, coordinator.NewOutput(out, nil).Begin(ctx, plan)
}

// release makes a finished result's directory an ordinary one. The run may have
// been killed at any point after its manifest was written.
func (j *Job) release(ctx context.Context) error {
	if err := j.unlink(coordinator.UnfinishedFile); err != nil {
		return err
	}
	err := objstore.ReleaseDir(ctx, j.Out)
	j.step("output is released")
	return err
}

// remove takes away a finished result. Its table of contents becomes the mark of
// an unfinished result first, by which a removal that was cut off is finished.
func (j *Job) remove(ctx context.Context, there objstore.Bucket) error {
	m, err := coordinator.ReadManifest(ctx, there)
	if err != nil {
		return err
	}
	own := map[string]bool{coordinator.ManifestFile: true, coordinator.UnfinishedFile: true}
	for _, f := range m.Files {
		own[f.Name] = true
	}
	for info, err := range there.List(ctx, "") {
		if err != nil {
			return err
		}
		if !own[info.Key] {
			return compress.Invalidf("%s holds %s, which is no part of the finished result: move it away, or name another directory with --out", j.Out, info.Key)
		}
	}
	if err := os.Rename(filepath.Join(j.Out, coordinator.ManifestFile), filepath.Join(j.Out, coordinator.UnfinishedFile)); err != nil {
		return err
	}
	j.step("removal is begun")
	return j.removeFiles(m)
}

// finishRemoval goes on with a removal that was cut off.
func (j *Job) finishRemoval(ctx context.Context) error {
	for _, name := range []string{coordinator.ManifestFile, coordinator.UnfinishedFile} {
		b, err := os.ReadFile(filepath.Join(j.Out, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if name == coordinator.UnfinishedFile {
			if m, err := coordinator.ParseManifest(b); err == nil {
				return errors.Join(ctx.Err(), j.removeFiles(m))
			}
		}
		return nil // a result that stands, or one that is being made
	}
	return nil
}

// removeFiles removes the files of a result, and last its mark.
func (j *Job) removeFiles(m *coordinator.Manifest) error {
	for _, f := range m.Files {
		if err := j.unlink(f.Name); err != nil {
			return err
		}
	}
	return j.unlink(coordinator.UnfinishedFile)
}

func (j *Job) unlink(name string) error {
	err := os.Remove(filepath.Join(j.Out, filepath.FromSlash(name)))
	j.step(name + " is removed")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// lockOutput keeps two processes with different stores from making their results
// in one directory. The lock is on the directory itself: a file would be no part
// of the result.
func lockOutput(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	// Some network file systems lock no directories; the store's lock must do there.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("output: another shardpress process is making a result in %s: wait for it, stop it, or name another directory with --out", dir)
	}
	return func() { letGo(f) }, nil
}

// lock keeps two processes from serving one store: the embedded broker lives in
// it. The kernel lets go of the lock when the process dies, however it dies.
func lock(store string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(store, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("store %s is in use by another shardpress process: wait for it, stop it, or name another store with --store (%w)", store, err)
	}
	return func() { letGo(f) }, nil
}

// letGo lets go of a lock also where a process that was forked just now still
// has the file open, as closing alone would not.
func letGo(f *os.File) {
	syscall.Flock(int(f.Fd()), syscall.LOCK_UN) //nolint:errcheck // closing does it, too, if later
	f.Close()
}
