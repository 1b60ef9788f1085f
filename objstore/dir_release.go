//go:build unix

package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ReleaseDir makes the store in root an ordinary directory that holds its objects
// as files and nothing else: what a writer left half-done goes, then the marker.
// Nobody may be writing to the store. It is no error if root is no store, or was
// released only in part.
func ReleaseDir(ctx context.Context, root string) error {
	tmp := filepath.Join(root, tmpName)
	entries, err := os.ReadDir(tmp)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release store: %w", explain(err, tmp))
	}
	names := make([]string, 0, len(entries)+2)
	for _, e := range entries {
		names = append(names, filepath.Join(tmp, e.Name()))
	}
	// The marker last: with it the directory can still be opened, and released again.
	for _, name := range append(names, tmp, filepath.Join(root, markerName)) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("release store: %w", err)
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release store: %w", explain(err, name))
		}
	}
	return syncDir(root)
}
