package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// place is where the files of a checkpoint lie: a directory or a bucket. Weight files are added to it one by one, by describe or by
// verify, and read by their number.
type place interface {
	// where names the place, or with a name a file in it, for locations and errors.
	where(name string) string
	// list gives what lies there, sorted by name.
	list(ctx context.Context) ([]entry, error)
	// open opens a file that holds no weights.
	open(ctx context.Context, name string) (io.ReadCloser, error)

	// describe adds a weight file: it reads the header and makes the identity, of kind "sha256" if content is asked for.
	describe(ctx context.Context, name string, content bool) (File, *Header, error)
	// verify adds a weight file that was described elsewhere or earlier, and reports ErrSourceChanged if its identity is no longer the one given.
	verify(ctx context.Context, f File) error
	// reading lets read read weight file i, and reports ErrSourceChanged if what it read need not be of the file that was added.
	reading(ctx context.Context, i int, read func(weightFile) error) error
	// want says that only these ranges will be read, File counting the files added.
	want(tensors []Tensor)
	// keep says where to keep what is read from afar.
	keep(BlockCache)
	close() error
}

// weightFile is a weight file that can be read.
type weightFile interface {
	// readFull fills p from byte off on.
	readFull(ctx context.Context, p []byte, off int64) error
	// until is the file for reading up to end again and again: what lies behind is not worth reading ahead.
	until(end int64) weightFile
}

// entry is something that lies in a place.
type entry struct {
	name    string
	size    int64
	dir     bool
	regular bool
	err     error // why nothing is known of it
}

func findEntry(entries []entry, name string) (entry, error) {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.name == name })
	if i < 0 {
		return entry{}, fs.ErrNotExist
	}
	return entries[i], entries[i].err
}

// readSmall reads a JSON file whole, within the limit that headers have.
func readSmall(ctx context.Context, p place, entries []entry, name string) ([]byte, error) {
	e, err := findEntry(entries, name)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %s: %w", p.where(name), err)
	}
	if !e.regular || e.size > MaxHeader {
		return nil, fmt.Errorf("open checkpoint: %s: %w: not a regular file of at most %d bytes; download it again", p.where(name), ErrMalformed, MaxHeader)
	}
	b, err := readLimited(ctx, p, name, MaxHeader)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	return b, nil
}

// errTooLong says that a file grew past its limit after it was listed.
var errTooLong = errors.New("longer than allowed")

func readLimited(ctx context.Context, p place, name string, limit int64) ([]byte, error) {
	r, err := p.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p.where(name), err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: %w: %w: %d bytes", p.where(name), ErrSourceChanged, errTooLong, limit)
	}
	return b, nil
}
