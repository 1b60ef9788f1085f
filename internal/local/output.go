package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/objstore"
)

// ErrComplete says that the result is there already.
var ErrComplete = errors.New("the result is complete already")

// openOutput makes the result's directory a store for as long as it is being
// made, so that each file in it appears whole or not at all.
func openOutput(ctx context.Context, j *Job, store objstore.Bucket, plan *coordinator.Plan) (out *objstore.Dir, complete bool, err error) {
	there, state, err := lookAtOutput(ctx, j, store, plan)
	if err != nil {
		return nil, false, err
	}
	if state == coordinator.Other || state == coordinator.Complete && j.Overwrite {
		if err := remove(ctx, j.Out, there); err != nil {
			return nil, false, fmt.Errorf("output: %w", err)
		}
		state = coordinator.Empty
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
