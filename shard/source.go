package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Source reads the weight files of a checkpoint and refuses bytes of files that changed since they were described. Its methods may be
// called from many goroutines.
type Source struct {
	place place
	files []File

	scratch sync.Pool // *[]byte of scratchSize, for transposing
}

// OpenSource opens the files of a manifest that lie in a directory, as a worker does. It reads their headers and refuses a file whose
// identity is no longer the one given. For identities of kind "sha256" it reads every file once from front to back.
func OpenSource(ctx context.Context, location string, files []File) (*Source, error) {
	return openSource(ctx, newDirectory(location), files)
}

// openSource adds files to a place that has none yet.
func openSource(ctx context.Context, p place, files []File) (*Source, error) {
	for _, f := range files {
		err := ctx.Err()
		if problem := fileNameProblem(f.Name); err == nil && problem != "" {
			err = fmt.Errorf("open source: file %q: name %s: %w", f.Name, problem, ErrMalformed)
		}
		if err == nil {
			err = p.verify(ctx, f)
		}
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return newSource(p, files), nil
}

// newSource reads from a place that the files were added to.
func newSource(p place, files []File) *Source {
	s := &Source{place: p, files: files}
	s.scratch.New = func() any { b := make([]byte, scratchSize); return &b }
	return s
}

// Location says where the files are: their directory, or what the opener of another place called it.
func (s *Source) Location() string { return s.place.where("") }

// Close closes all files. Reads that are under way fail.
func (s *Source) Close() error { return s.place.close() }

// Want says that nothing but these tensors will be read, their File counting the source's files, so that what is read ahead from a
// distance is of use. It must be called before the first read.
func (s *Source) Want(tensors []Tensor) { s.place.want(tensors) }

// Cache has the source look for weights in a cache first, and keep there what it fetched, if its files are in a store. It must be called before the
// first read.
func (s *Source) Cache(c BlockCache) { s.place.keep(c) }

// changed says that a file is no longer what was described.
func changed(p place, name string) error {
	return fmt.Errorf("read %s: %w since it was described; run again to compress what it holds now", p.where(name), ErrSourceChanged)
}

// ReadAt fills p from the given file, starting at byte off. The file is compared with its identity, so that p holds bytes of the file
// that the manifest describes or an error is returned.
func (s *Source) ReadAt(ctx context.Context, file int, p []byte, off int64) error {
	return s.reading(ctx, file, func(f weightFile) error {
		return f.readFull(ctx, p, off)
	})
}

// reading lets read read the given file.
func (s *Source) reading(ctx context.Context, file int, read func(weightFile) error) error {
	if file < 0 || file >= len(s.files) {
		return fmt.Errorf("read source: file %d of %d: %w", file, len(s.files), ErrMissing)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.place.reading(ctx, file, read)
}
