//go:build unix

package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Sweep removes what writers that died have left behind: temporary files that
// nobody has written to for olderThan, and tells how many. Age is the difference
// to the modification time of a file made for the purpose, so that only the
// store's clock counts. A Put whose reader pauses for longer than olderThan
// fails, so a day is a good choice, and nothing is only good for a store that
// nobody else uses.
func (d *Dir) Sweep(ctx context.Context, olderThan time.Duration) (n int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sweep %s: %w", d.root, err)
		}
	}()
	if d.readOnly {
		return 0, fmt.Errorf("%w: it was opened for reading", ErrReadOnly)
	}
	now, err := d.now()
	if err != nil {
		return 0, err
	}
	dir := filepath.Join(d.root, tmpName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it got its name, or another sweeper was here
		}
		if err != nil {
			return n, err
		}
		if fi.IsDir() || now.Sub(fi.ModTime()) < olderThan {
			continue
		}
		name := filepath.Join(dir, e.Name())
		switch err := os.Remove(name); {
		case err == nil:
			n++
		case !errors.Is(err, fs.ErrNotExist):
			return n, explain(err, name)
		}
	}
	return n, nil
}

// now is the time by the store's clock.
func (d *Dir) now() (time.Time, error) {
	name, f, err := d.create()
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(name)
	defer f.Close()
	// On some network file systems only a write gets the server's time.
	if _, err := f.Write([]byte{0}); err != nil {
		return time.Time{}, explain(err, name)
	}
	fi, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return fi.ModTime(), nil
}
