//go:build unix

package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Get implements Bucket. What is opened is a file that nobody changes: an
// overwrite or a Delete only takes its name away.
func (d *Dir) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return d.open(ctx, key, off, n, func(os.FileInfo) error { return nil })
}

// GetIf implements Conditional: what is compared is the file that was opened.
func (d *Dir) GetIf(ctx context.Context, key, wanted string, off, n int64) (io.ReadCloser, error) {
	return d.open(ctx, key, off, n, func(fi os.FileInfo) error { return checkVersion(key, wanted, version(fi)) })
}

func (d *Dir) open(ctx context.Context, key string, off, n int64, check func(os.FileInfo) error) (io.ReadCloser, error) {
	if err := CheckKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	// Neither a symbolic link is followed nor a named pipe waited for.
	f, err := os.OpenFile(d.path(key), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, d.readError(err))
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = ErrNotExist
	}
	if err == nil {
		if err := check(fi); err != nil {
			f.Close()
			return nil, err
		}
		n, err = cut(off, n, fi.Size())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return &dirReader{ctx: ctx, f: f, key: key, off: off, left: n}, nil
}

// readError tells an object that is not there from a store that is not there.
func (d *Dir) readError(err error) error {
	// ENOTDIR: an object lies above. ELOOP: a symbolic link. ENXIO: a socket.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		if err := d.present(); err != nil {
			return err
		}
		return ErrNotExist
	}
	return err
}

// dirReader reads a range of a file.
type dirReader struct {
	ctx       context.Context
	f         *os.File
	key       string
	off, left int64
}

func (r *dirReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("get %s: %w", r.key, err)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	k, err := r.f.ReadAt(p[:min(int64(len(p)), r.left)], r.off)
	r.off += int64(k)
	r.left -= int64(k)
	switch {
	case errors.Is(err, io.EOF) && r.left > 0: // the file is shorter than it was
		err = fmt.Errorf("get %s: file was truncated by somebody: %w", r.key, io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		err = nil
	case err != nil:
		err = fmt.Errorf("get %s: %w", r.key, err)
	}
	return k, err
}

func (r *dirReader) Close() error { return r.f.Close() }

// Stat implements Bucket.
func (d *Dir) Stat(ctx context.Context, key string) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, fmt.Errorf("stat: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", key, err)
	}
	fi, err := os.Lstat(d.path(key))
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", key, d.readError(err))
	}
	if !fi.Mode().IsRegular() {
		return Info{}, fmt.Errorf("stat %s: %w", key, ErrNotExist)
	}
	return dirInfo(key, fi), nil
}

// List implements Bucket. It holds the entries of one directory for each token
// of the key that it is at.
func (d *Dir) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		err := CheckPrefix(prefix)
		if err == nil {
			err = d.present()
		}
		if err != nil {
			yield(Info{}, fmt.Errorf("list %s: %w", clip(prefix), err))
			return
		}
		dir, begin := path.Split(prefix)
		l := lister{ctx: ctx, d: d, yield: yield}
		if err := l.walk(dir, begin); err != nil && !errors.Is(err, errStop) {
			yield(Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

// errStop ends a walk whose consumer wants no more.
var errStop = errors.New("stop")

type lister struct {
	ctx   context.Context
	d     *Dir
	yield func(Info, error) bool
}

// walk gives the objects below dir (empty, or ending in a slash) whose next token
// begins with begin.
func (l *lister) walk(dir, begin string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.d.path(dir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil // nothing there, or not any more
		}
		return err
	}
	// In the order of keys a directory stands where its name with a slash would:
	// "a-b" comes before "a/b", which comes before "a0".
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		switch {
		case !strings.HasPrefix(name, begin):
		case e.IsDir():
			names = append(names, name+"/")
		case e.Type().IsRegular():
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		key := dir + name
		if CheckKey(strings.TrimSuffix(key, "/")) != nil {
			continue // ours, or nobody could ask for it
		}
		if strings.HasSuffix(name, "/") {
			if err := l.walk(key, ""); err != nil {
				return err
			}
			continue
		}
		if err := l.ctx.Err(); err != nil {
			return err
		}
		fi, err := os.Lstat(l.d.path(key))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !fi.Mode().IsRegular() {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		if !l.yield(dirInfo(key, fi), nil) {
			return errStop
		}
	}
	return nil
}
