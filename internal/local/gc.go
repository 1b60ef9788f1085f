package local

import (
	"context"
	"errors"
	"time"

	"github.com/shardpress/shardpress/coordinator"
	"github.com/shardpress/shardpress/objstore"
)

// Collect removes old results from the store in a directory, which no run may be
// using. A dry collection also does with a store that cannot be written.
func Collect(ctx context.Context, store string, age time.Duration, dry bool) (coordinator.Collected, error) {
	dir, err := objstore.OpenDir(store)
	if dry && errors.Is(err, objstore.ErrReadOnly) {
		// It cannot be locked either: a run may be using it, from another machine.
		if dir, err = objstore.OpenDirReadOnly(store); err != nil {
			return coordinator.Collected{}, err
		}
		return coordinator.Collect(ctx, dir, coordinator.CollectOptions{Age: age, Dry: true})
	}
	if err != nil {
		return coordinator.Collected{}, err
	}
	unlock, err := lock(store)
	if err != nil {
		return coordinator.Collected{}, err
	}
	defer unlock()
	if !dry {
		// Nobody else writes: whatever has no name yet never will.
		if _, err := dir.Sweep(ctx, 0); err != nil {
			return coordinator.Collected{}, err
		}
	}
	return coordinator.Collect(ctx, dir, coordinator.CollectOptions{Age: age, Dry: dry, Idle: true})
}
