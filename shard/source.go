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

// maxOpen bounds the files that a Source keeps open.
const maxOpen = 64

// readChunk bounds one system call: a cancelled read ends soon, and bytes that are in memory already take less than the 20 µs or so after
// which the Go scheduler gives the goroutine's processor away, which it then has to wait for.
const readChunk = 128 << 10

// Source reads the weight files of a checkpoint and refuses bytes of files that changed since they were described. Its methods may be
// called from many goroutines.
type Source struct {
	location string
	files    []sourceFile

	mu   sync.Mutex // guards the fields of files below and tick
	tick int64
	open int

	scratch sync.Pool // *[]byte of scratchSize, for transposing
}

type sourceFile struct {
	file   File
	stat   stat
	handle *os.File // nil when closed
	users  int      // reads in flight
	used   int64    // tick of the last use
}

// OpenSource opens the files of a manifest that lie in a directory, as a worker does. It reads their headers and refuses a file whose
// identity is no longer the one given. For identities of kind "sha256" it reads every file once from front to back.
func OpenSource(ctx context.Context, location string, files []File) (*Source, error) {
	s := newSource(location, files)
	for i := range s.files {
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if err := s.verify(ctx, i); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func newSource(location string, files []File) *Source {
	s := &Source{location: location, files: make([]sourceFile, len(files))}
	for i, f := range files {
		s.files[i].file = f
	}
	s.scratch.New = func() any { b := make([]byte, scratchSize); return &b }
	return s
}

// Location returns the directory of the files.
func (s *Source) Location() string { return s.location }

// Close closes all files. Reads that are under way fail.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for i := range s.files {
		if f := &s.files[i]; f.handle != nil {
			errs = append(errs, f.handle.Close())
			f.handle = nil
		}
	}
	s.open = 0
	return errors.Join(errs...)
}

// verify compares file i with its identity and remembers its stat for the reads to come.
func (s *Source) verify(ctx context.Context, i int) error {
	f := &s.files[i]
	if problem := fileNameProblem(f.file.Name); problem != "" {
		return fmt.Errorf("open source: file %q: name %s: %w", f.file.Name, problem, ErrMalformed)
	}
	h, err := openRegular(filepath.Join(s.location, f.file.Name))
	if err != nil {
		return fmt.Errorf("open source file: %w; mount or restore the checkpoint where the manifest says", err)
	}
	defer h.Close()
	got, header, err := describe(ctx, h, f.file.Name, f.file.Identity.Kind == IdentityContent)
	if err != nil {
		return err
	}
	if got.file.Size != f.file.Size || header.Digest != f.file.HeaderDigest || got.file.Identity != f.file.Identity {
		return s.changed(i)
	}
	f.stat = got.stat
	return nil
}

func (s *Source) changed(i int) error {
	return fmt.Errorf("read %s: %w since it was described; run again to compress what it holds now",
		filepath.Join(s.location, s.files[i].file.Name), ErrSourceChanged)
}

// ReadAt fills p from the given file, starting at byte off. The file is compared with its identity before and after, so that p holds
// bytes of the file that the manifest describes or an error is returned.
func (s *Source) ReadAt(ctx context.Context, file int, p []byte, off int64) error {
	return s.reading(ctx, file, func(f *os.File) error {
		return readFull(ctx, f, p, off)
	})
}

// reading runs read between two comparisons of the file with its identity.
func (s *Source) reading(ctx context.Context, file int, read func(*os.File) error) error {
	if file < 0 || file >= len(s.files) {
		return fmt.Errorf("read source: file %d of %d: %w", file, len(s.files), ErrMissing)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	handle, err := s.acquire(file)
	if err != nil {
		return err
	}
	defer s.release(file)
	if err := s.compare(file, handle); err != nil {
		return err
	}
	readErr := read(handle)
	// A file cut short gives an unexpected end; that it changed is the better reason.
	if err := s.compare(file, handle); err != nil {
		return err
	}
	if readErr != nil && ctx.Err() == nil {
		return fmt.Errorf("read %s: %w", filepath.Join(s.location, s.files[file].file.Name), readErr)
	}
	return readErr
}

func (s *Source) compare(i int, handle *os.File) error {
	now, removed, err := fstat(handle)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(s.location, s.files[i].file.Name), err)
	}
	if removed || now != s.files[i].stat {
		return s.changed(i)
	}
	return nil
}

// acquire opens file i if need be and keeps it open until release.
func (s *Source) acquire(i int) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.files[i]
	if f.handle == nil {
		if s.open >= maxOpen {
			s.evict()
		}
		h, err := openRegular(filepath.Join(s.location, f.file.Name))
		if err != nil {
			return nil, fmt.Errorf("open source file: %w; restore the checkpoint and run again", err)
		}
		f.handle = h
		s.open++
	}
	s.tick++
	f.used = s.tick
	f.users++
	return f.handle, nil
}

func (s *Source) release(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[i].users--
}

// evict closes the file that has not been used for longest. When all are in use it closes none: more stay open for a while.
func (s *Source) evict() {
	oldest := -1
	for i := range s.files {
		f := &s.files[i]
		if f.handle != nil && f.users == 0 && (oldest < 0 || f.used < s.files[oldest].used) {
			oldest = i
		}
	}
	if oldest < 0 {
		return
	}
	s.files[oldest].handle.Close()
	s.files[oldest].handle = nil
	s.open--
}

// readFull reads in pieces, so that cancelling takes effect within one of them.
func readFull(ctx context.Context, f *os.File, p []byte, off int64) error {
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.ReadAt(p[:min(len(p), readChunk)], off)
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

// described is a file with the stat that its identity was made of.
type described struct {
	file File
	stat stat
}

// describe reads the header of a weight file and makes its identity, refusing a file that changes meanwhile.
func describe(ctx context.Context, f *os.File, name string, content bool) (described, *Header, error) {
	before, _, err := fstat(f)
	if err != nil {
		return described{}, nil, fmt.Errorf("read header of %s: %w", name, err)
	}
	h, err := ReadHeader(f, name, before.size)
	if err != nil {
		return described{}, nil, err
	}
	id := Identity{Kind: IdentityLocal, Value: before.local(h.Digest)}
	if content {
		id.Kind = IdentityContent
		if id.Value, err = contentDigest(ctx, f, before.size); err != nil {
			return described{}, nil, fmt.Errorf("hash %s: %w", name, err)
		}
	}
	after, _, err := fstat(f)
	if err != nil {
		return described{}, nil, fmt.Errorf("read header of %s: %w", name, err)
	}
	if before != after {
		return described{}, nil, fmt.Errorf("read %s: %w while it was being read; run again when nothing writes to it", name, ErrSourceChanged)
	}
	return described{File{Name: name, Size: before.size, HeaderDigest: h.Digest, Identity: id}, before}, h, nil
}
