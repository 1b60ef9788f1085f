//go:build unix

package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Copy implements Copier between directories of one file system: both keys share
// one file afterwards, and its Version. That is safe because a store never
// writes into a file that has a name.
func (d *Dir) Copy(ctx context.Context, dst string, src Bucket, srcKey string) (Info, error) {
	if err := d.mayWrite(ctx, dst); err != nil {
		return Info{}, fmt.Errorf("copy to %s: %w", clip(dst), err)
	}
	src, srcKey, err := Unwrap(src, srcKey)
	if err != nil {
		return Info{}, fmt.Errorf("copy: %w", err)
	}
	from, ok := src.(*Dir)
	if !ok {
		return Info{}, fmt.Errorf("copy %s: %w", srcKey, ErrCannotCopy)
	}
	for try := 0; ; try++ {
		info, err := d.link(dst, from, srcKey)
		// A link is as old as the file, so that a sweep may take it for stale.
		if errors.Is(err, errSwept) && try < maxTries {
			continue
		}
		if err != nil {
			return Info{}, fmt.Errorf("copy %s to %s: %w", srcKey, dst, err)
		}
		return info, nil
	}
}

// link makes dst another name of the file of srcKey.
func (d *Dir) link(dst string, from *Dir, srcKey string) (Info, error) {
	tmp := d.tmp()
	// A rename between two names of one file does nothing, so that tmp may be
	// there also after success.
	defer os.Remove(tmp)
	file := from.path(srcKey)
	if err := os.Link(file, tmp); err != nil {
		return Info{}, d.linkError(err, from, file)
	}
	fi, err := os.Lstat(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, errSwept
	}
	if err != nil {
		return Info{}, err
	}
	if !fi.Mode().IsRegular() {
		return Info{}, ErrNotExist
	}
	// Only a store is known to have flushed the file when it was made.
	if from.readOnly {
		if err := syncFile(tmp); err != nil {
			return Info{}, err
		}
	}
	if err := d.publish(tmp, dst, false); err != nil {
		return Info{}, err
	}
	return dirInfo(dst, fi), nil
}

// linkError sorts out why the file of another store could not be linked.
func (d *Dir) linkError(err error, from *Dir, file string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS):
		return explain(err, d.root)
	// Another file system, too many links, links to files of other users
	// forbidden, a directory, no such operation.
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EMLINK), errors.Is(err, fs.ErrPermission),
		errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
		if fi, err := os.Lstat(file); err == nil && fi.IsDir() {
			return ErrNotExist
		}
		return fmt.Errorf("%w: %w", ErrCannotCopy, err)
	}
	if _, e := os.Lstat(file); e != nil {
		return from.readError(e)
	}
	if errors.Is(err, fs.ErrNotExist) { // so it is our own folder
		if err := d.remakeTmp(); err != nil {
			return err
		}
		return errSwept
	}
	return err
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errSwept
		}
		return err
	}
	defer f.Close()
	return f.Sync()
}
