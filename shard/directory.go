package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// maxOpen bounds the files that a directory keeps open.
const maxOpen = 64

// readChunk bounds one system call: a cancelled read ends soon, and bytes that are in memory already take less than the 20 µs or so after
// which the Go scheduler gives the goroutine's processor away, which it then has to wait for.
const readChunk = 128 << 10

// directory is a place on a file system. Its files are compared with their stat before and after every read.
type directory struct {
	location string

	mu     sync.Mutex // guards what follows, while files are read
	files  []directoryFile
	tick   int64
	opened int
}

type directoryFile struct {
	name   string
	stat   stat
	handle *os.File // nil when closed
	users  int      // reads in flight
	used   int64    // tick of the last use
}

func newDirectory(location string) *directory { return &directory{location: location} }

func (d *directory) where(name string) string {
	if name == "" {
		return d.location
	}
	return filepath.Join(d.location, name)
}

func (d *directory) list(ctx context.Context) ([]entry, error) {
	found, err := os.ReadDir(d.location) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w; check the path and its permissions", err)
	}
	entries := make([]entry, len(found))
	for i, f := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		entries[i].name = f.Name()
		info, err := os.Stat(d.where(f.Name())) // follows links, as hub caches need
		if err != nil {
			entries[i].err = err
			continue
		}
		entries[i].size, entries[i].dir, entries[i].regular = info.Size(), info.IsDir(), info.Mode().IsRegular()
	}
	return entries, nil
}

func (d *directory) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return openRegular(d.where(name))
}

func (d *directory) describe(ctx context.Context, name string, content bool) (File, *Header, error) {
	path := d.where(name)
	f, err := openRegular(path)
	if err != nil {
		return File{}, nil, fmt.Errorf("open checkpoint: %w; check the file and its permissions", err)
	}
	defer f.Close()
	file, s, h, err := describe(ctx, f, path, content)
	if err != nil {
		return File{}, nil, err
	}
	file.Name = name
	d.files = append(d.files, directoryFile{name: name, stat: s})
	return file, h, nil
}

func (d *directory) verify(ctx context.Context, f File) error {
	h, err := openRegular(d.where(f.Name))
	if err != nil {
		return fmt.Errorf("open source file: %w; mount or restore the checkpoint where the manifest says", err)
	}
	defer h.Close()
	got, s, header, err := describe(ctx, h, f.Name, f.Identity.Kind == IdentityContent)
	if err != nil {
		return err
	}
	if got.Size != f.Size || header.Digest != f.HeaderDigest || got.Identity != f.Identity {
		return changed(d, f.Name)
	}
	d.files = append(d.files, directoryFile{name: f.Name, stat: s})
	return nil
}

func (d *directory) want([]Tensor) {}

func (d *directory) keep(BlockCache) {}

func (d *directory) reading(ctx context.Context, i int, read func(weightFile) error) error {
	handle, err := d.acquire(i)
	if err != nil {
		return err
	}
	defer d.release(i)
	if err := d.compare(i, handle); err != nil {
		return err
	}
	readErr := read(localFile{handle})
	// A file cut short gives an unexpected end; that it changed is the better reason.
	if err := d.compare(i, handle); err != nil {
		return err
	}
	if readErr != nil && ctx.Err() == nil {
		return fmt.Errorf("read %s: %w", d.where(d.files[i].name), readErr)
	}
	return readErr
}

func (d *directory) compare(i int, handle *os.File) error {
	now, removed, err := fstat(handle)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.where(d.files[i].name), err)
	}
	if removed || now != d.files[i].stat {
		return changed(d, d.files[i].name)
	}
	return nil
}

// acquire opens file i if need be and keeps it open until release.
func (d *directory) acquire(i int) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &d.files[i]
	if f.handle == nil {
		if d.opened >= maxOpen {
			d.evict()
		}
		h, err := openRegular(d.where(f.name))
		if err != nil {
			return nil, fmt.Errorf("open source file: %w; restore the checkpoint and run again", err)
		}
		f.handle = h
		d.opened++
	}
	d.tick++
	f.used = d.tick
	f.users++
	return f.handle, nil
}

func (d *directory) release(i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[i].users--
}

// evict closes the file that has not been used for longest. When all are in use it closes none: more stay open for a while.
func (d *directory) evict() {
	oldest := -1
	for i := range d.files {
		f := &d.files[i]
		if f.handle != nil && f.users == 0 && (oldest < 0 || f.used < d.files[oldest].used) {
			oldest = i
		}
	}
	if oldest < 0 {
		return
	}
	d.files[oldest].handle.Close()
	d.files[oldest].handle = nil
	d.opened--
}

func (d *directory) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for i := range d.files {
		if f := &d.files[i]; f.handle != nil {
			errs = append(errs, f.handle.Close())
			f.handle = nil
		}
	}
	d.opened = 0
	return errors.Join(errs...)
}

// localFile is a weight file of a directory.
type localFile struct{ f *os.File }

func (l localFile) until(int64) weightFile { return l }

// readFull reads in pieces, so that cancelling takes effect within one of them.
func (l localFile) readFull(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := l.f.ReadAt(p[:min(len(p), readChunk)], off)
		p, off = p[n:], off+int64(n)
		if err != nil && len(p) > 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// openRegular refuses what would block or never end, such as a pipe.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: %w: not a regular file", path, ErrUnsupported)
	}
	return os.Open(path)
}

// describe reads the header of a weight file and makes its identity, refusing a file that changes meanwhile.
func describe(ctx context.Context, f *os.File, name string, content bool) (File, stat, *Header, error) {
	fail := func(err error) (File, stat, *Header, error) { return File{}, stat{}, nil, err }
	before, _, err := fstat(f)
	if err != nil {
		return fail(fmt.Errorf("read header of %s: %w", name, err))
	}
	h, err := ReadHeader(f, name, before.size)
	if err != nil {
		return fail(err)
	}
	id := Identity{Kind: IdentityLocal, Value: before.local(h.Digest)}
	if content {
		id.Kind = IdentityContent
		if id.Value, err = contentDigest(ctx, io.NewSectionReader(f, 0, before.size), before.size); err != nil {
			return fail(fmt.Errorf("hash %s: %w", name, err))
		}
	}
	after, _, err := fstat(f)
	if err != nil {
		return fail(fmt.Errorf("read header of %s: %w", name, err))
	}
	if before != after {
		return fail(fmt.Errorf("read %s: %w while it was being read; run again when nothing writes to it", name, ErrSourceChanged))
	}
	return File{Name: name, Size: before.size, HeaderDigest: h.Digest, Identity: id}, before, h, nil
}
