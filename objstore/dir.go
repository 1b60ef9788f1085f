//go:build unix

package objstore

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

const (
	markerName = ".objstore" // a directory that holds it is a store
	tmpName    = ".tmp"      // where objects are written before they get their name
	markerText = "objstore directory 1\n"
)

// Dir is a bucket in a directory, as package objstore draws it. Any number of
// processes and machines may use one directory at once, if its file system gives
// link(2) and rename(2) atomically, as local ones and NFS do.
//
// Only regular files are objects. Do not put symbolic links into the tree: they
// are not listed, and what they lead to may lie on another file system.
//
// Dir needs a Unix system.
type Dir struct {
	root     string // absolute
	readOnly bool
	buffers  buffers

	// dirs is held for reading while an object gets its name and for writing
	// while directories are made and flushed: otherwise an object could be
	// reported as durable in a directory that another Put has made but not
	// flushed yet. Between processes the file system's journal keeps that order.
	dirs sync.RWMutex
}

var (
	_ Bucket      = (*Dir)(nil)
	_ Copier      = (*Dir)(nil)
	_ Conditional = (*Dir)(nil)
)

// OpenDir opens the store in the directory root. An empty directory becomes a
// store. ErrRoot says that root is missing, that it holds something else, or that
// its file system cannot make hard links; ErrReadOnly that it cannot be written.
func OpenDir(root string) (*Dir, error) {
	d, err := newDir(root)
	if err != nil {
		return nil, err
	}
	if err := d.claim(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return d, nil
}

// CreateDir is OpenDir for a directory that need not exist yet. Do not use it for
// a store that should be there: it cannot tell a new store from one whose disk
// is not mounted.
func CreateDir(root string) (*Dir, error) {
	if err := os.MkdirAll(root, 0o777); err != nil {
		return nil, fmt.Errorf("create store: %w", explain(err, root))
	}
	return OpenDir(root)
}

// OpenDirReadOnly opens any directory, store or not, for reading; what would
// change it is refused with ErrReadOnly. Files whose names are not valid keys
// are not objects.
func OpenDirReadOnly(root string) (*Dir, error) {
	d, err := newDir(root)
	if err != nil {
		return nil, err
	}
	d.readOnly = true
	return d, nil
}

// Root is the absolute path of the directory.
func (d *Dir) Root() string { return d.root }

func newDir(root string) (*Dir, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", root, err)
	}
	fi, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open store: %w: %s does not exist: create it, or mount its disk", ErrRoot, abs)
	case err != nil:
		return nil, fmt.Errorf("open store: %w: %w", ErrRoot, err)
	case !fi.IsDir():
		return nil, fmt.Errorf("open store: %w: %s is not a directory", ErrRoot, abs)
	}
	return &Dir{root: abs}, nil
}

// claim checks that the root is a store, making it one if it is empty, and that
// it can be written and linked in.
func (d *Dir) claim() error {
	// The order matters: the marker is older than any object, so if another
	// process has just claimed the root and filled it, the marker is there by the
	// time that we have seen an object.
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return explain(err, d.root)
	}
	marker := filepath.Join(d.root, markerName)
	switch err := readMarker(marker); {
	case errors.Is(err, fs.ErrNotExist):
		for _, e := range entries {
			if e.Name() != tmpName && e.Name() != markerName {
				return fmt.Errorf("%w: %s is not empty (it holds %q) and has no %s file: name an empty directory or an existing store",
					ErrRoot, d.root, e.Name(), markerName)
			}
		}
	case err != nil:
		return err
	}
	if err := os.Mkdir(filepath.Join(d.root, tmpName), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return explain(err, d.root)
	}
	name, f, err := d.create()
	if err != nil {
		return err
	}
	defer os.Remove(name)
	_, err = io.WriteString(f, markerText)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return explain(err, name)
	}
	switch err := os.Link(name, marker); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: the file system of %s makes no hard links, which put-if-absent needs: choose another: %w", ErrRoot, d.root, err)
	}
	return syncDir(d.root)
}

// readMarker checks the marker's contents, of which it reads no more than it
// knows.
func readMarker(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(len(markerText))+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(text, []byte(markerText)) {
		return fmt.Errorf("%w: %s holds %q: the store has another layout, use the program that made it", ErrRoot, path, text)
	}
	return nil
}

// present checks that the root is still the store that was opened. Without it an
// unmounted disk would look like a store that has lost everything.
func (d *Dir) present() error {
	path := filepath.Join(d.root, markerName)
	if d.readOnly {
		path = d.root
	}
	if _, err := os.Lstat(path); err != nil {
		return fmt.Errorf("%w: %s is gone since it was opened: is its disk still mounted? %w", ErrRoot, d.root, err)
	}
	return nil
}

// create makes a file with a new name in the folder of temporary files.
func (d *Dir) create() (string, *os.File, error) {
	for try := 0; ; try++ {
		name := d.tmp()
		// Not os.CreateTemp: objects are for every user that the umask admits.
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		switch {
		case err == nil:
			return name, f, nil
		case errors.Is(err, fs.ErrExist) && try < maxTries:
		case errors.Is(err, fs.ErrNotExist) && try < maxTries: // somebody cleaned up thoroughly
			if err := d.remakeTmp(); err != nil {
				return "", nil, err
			}
		default:
			return "", nil, explain(err, name)
		}
	}
}

// tmp is a new name in the folder of temporary files.
func (d *Dir) tmp() string { return filepath.Join(d.root, tmpName, rand.Text()) }

func (d *Dir) remakeTmp() error {
	if err := d.present(); err != nil {
		return err
	}
	dir := filepath.Join(d.root, tmpName)
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return explain(err, dir)
	}
	return nil
}

// path is the file of a valid key.
func (d *Dir) path(key string) string { return filepath.Join(d.root, filepath.FromSlash(key)) }

// explain turns what the system says into a sentinel and a remedy, where there
// is one.
func explain(err error, path string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: no space left for %s: free space or inodes on that file system, then run again: %w", ErrFull, path, err)
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: quota used up for %s: delete files of this user or have the quota raised, then run again: %w", ErrFull, path, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: cannot write %s: check its owner, its mode and the mount: %w", ErrReadOnly, path, err)
	}
	return err
}

// version names the bytes of a file: every overwrite makes a new inode while the
// old one still exists. The change time would be no good: links change it.
func version(fi fs.FileInfo) string {
	var inode uint64
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		inode = uint64(st.Ino) //nolint:unconvert // another type on other systems
	}
	return strconv.FormatUint(inode, 16) + "-" + strconv.FormatInt(fi.Size(), 16) + "-" + strconv.FormatInt(fi.ModTime().UnixNano(), 16)
}

func dirInfo(key string, fi fs.FileInfo) Info {
	return Info{Key: key, Size: fi.Size(), Version: version(fi), ModTime: fi.ModTime()}
}
