//go:build unix

package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// maxTries bounds the loops against other processes; each turn means that one of
// them got further, so reaching it means that something else is wrong.
const maxTries = 1000

// errSwept says that a temporary file is gone before it got its name.
var errSwept = errors.New("temporary file was removed while it was being written: sweep only files older than the longest pause of a writer")

// Put implements Bucket.
func (d *Dir) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	if err := d.mayWrite(ctx, key); err != nil {
		return Info{}, fmt.Errorf("put %s: %w", clip(key), err)
	}
	info, err := d.put(ctx, key, r, size, o)
	if err != nil {
		return Info{}, fmt.Errorf("put %s: %w", key, err)
	}
	return info, nil
}

// mayWrite checks what every operation that changes something checks first.
func (d *Dir) mayWrite(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if d.readOnly {
		return fmt.Errorf("%w: %s was opened for reading", ErrReadOnly, d.root)
	}
	return ctx.Err()
}

func (d *Dir) put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	if o.IfAbsent { // spares the loser its writing; the link below decides
		if fi, err := os.Lstat(d.path(key)); err == nil && fi.Mode().IsRegular() {
			return Info{}, ErrExist
		}
	}
	tmp, f, err := d.create()
	if err != nil {
		return Info{}, err
	}
	defer os.Remove(tmp) // all that an overwrite leaves of it is its new name
	_, sum, own, err := receive(ctx, f, r, size, &d.buffers)
	if own {
		err = explain(err, tmp)
	}
	if err == nil {
		err = explain(f.Sync(), tmp)
	}
	if e := f.Close(); err == nil { // NFS reports a full disk here
		err = explain(e, tmp)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return Info{}, err
	}
	fi, err := os.Lstat(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, errSwept
	}
	if err != nil {
		return Info{}, err
	}
	if err := d.publish(tmp, key, o.IfAbsent); err != nil {
		return Info{}, err
	}
	info := dirInfo(key, fi)
	info.SHA256 = sum
	return info, nil
}

// publish gives the flushed file tmp the name key, by one atomic call.
func (d *Dir) publish(tmp, key string, ifAbsent bool) error {
	dst := d.path(key)
	for range maxTries {
		d.dirs.RLock()
		var err error
		if ifAbsent {
			err = os.Link(tmp, dst)
		} else {
			// syscall, since os.Rename looks at dst first, for nothing.
			err = ignoreEINTR(func() error { return syscall.Rename(tmp, dst) })
		}
		d.dirs.RUnlock()
		switch {
		case err == nil:
			return explain(syncDir(filepath.Dir(dst)), dst)
		case errors.Is(err, syscall.ENOTDIR):
			if err := d.conflict(key); err != nil {
				return err
			}
		case errors.Is(err, syscall.ENOENT): // no directory, or no tmp
			if _, err := os.Lstat(tmp); errors.Is(err, fs.ErrNotExist) {
				return errSwept
			}
			if err := d.makeDirs(key); err != nil {
				return err
			}
		case errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTEMPTY):
			fi, lerr := os.Lstat(dst)
			switch {
			case errors.Is(lerr, fs.ErrNotExist): // deleted meanwhile
			case lerr != nil:
				return lerr
			case fi.IsDir(): // left by a crash, or there are objects in it
				if err := removeEmpty(dst); err != nil {
					return errBelow(key)
				}
			case !ifAbsent:
				return err
			default:
				// NFS sends a link again whose answer was lost: it may be ours.
				if own, err := os.Lstat(tmp); err == nil && os.SameFile(own, fi) {
					return explain(syncDir(filepath.Dir(dst)), dst)
				}
				return ErrExist
			}
		default:
			return explain(err, dst)
		}
	}
	return fmt.Errorf("directory %s comes and goes: gave up after %d attempts", filepath.Dir(dst), maxTries)
}

// makeDirs makes the directories that key needs and flushes those that got a new
// entry. It may find one gone again that it has just made, because an object in
// it was deleted: publish sees that and comes back.
func (d *Dir) makeDirs(key string) error {
	d.dirs.Lock()
	defer d.dirs.Unlock()
	if err := d.present(); err != nil {
		return err
	}
	parent := d.root
	for token := range strings.SplitSeq(path.Dir(key), "/") {
		if token == "." {
			break // key lies in the root
		}
		dir := filepath.Join(parent, token)
		switch err := os.Mkdir(dir, 0o777); {
		case err == nil:
			if err := syncDir(parent); err != nil {
				return explain(err, parent)
			}
		case errors.Is(err, syscall.EEXIST): // if it is an object, the next step says so
		case errors.Is(err, syscall.ENOENT):
			return nil
		case errors.Is(err, syscall.ENOTDIR):
			return d.conflict(key)
		default:
			return explain(err, dir)
		}
		parent = dir
	}
	return nil
}

// conflict names the object above key, if it is still there.
func (d *Dir) conflict(key string) error {
	for i, c := range []byte(key) {
		if c != '/' {
			continue
		}
		if fi, err := os.Lstat(d.path(key[:i])); err == nil && !fi.IsDir() {
			return errAbove(key, key[:i])
		}
	}
	return nil
}

// removeEmpty removes a tree of empty directories, and fails at the first file.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			return syscall.ENOTEMPTY
		}
		if err := removeEmpty(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	// If somebody puts an object there meanwhile this fails, rightly; so no
	// os.RemoveAll.
	if err := rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Delete implements Bucket, and removes the directories that it leaves empty. A
// Put that finds its directory gone makes it again.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := d.mayWrite(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", clip(key), err)
	}
	file := d.path(key)
	// unlink(2), which unlike os.Remove spares a directory of that name.
	err := ignoreEINTR(func() error { return syscall.Unlink(file) })
	switch {
	case err == nil, errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
	case errors.Is(err, syscall.ENOENT):
		if err := d.present(); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	default:
		if fi, e := os.Lstat(file); e == nil && fi.IsDir() {
			break // not every system says EISDIR
		}
		return fmt.Errorf("delete %s: %w", key, explain(err, file))
	}
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		if err := rmdir(d.path(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break // not empty
		}
	}
	return nil
}

func rmdir(dir string) error {
	return ignoreEINTR(func() error { return syscall.Rmdir(dir) })
}

// ignoreEINTR repeats a system call that a signal interrupted, as package os does.
func ignoreEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since: somebody deleted what was in it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // the file system has no such thing
	}
	return err
}
