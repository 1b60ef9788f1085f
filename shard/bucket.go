package shard

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/shardpress/shardpress/objstore"
)

// maxEntries bounds the objects of a checkpoint, so that a location that is not one is noticed before it is listed to its end.
const maxEntries = 100_000

// firstRead is how much of a weight file is read to begin with: the headers of nearly all files.
const firstRead = 128 << 10

// OpenBucket is Open for a checkpoint whose files are the objects of a bucket; objects further down are as little a part of it as
// files in subdirectories. Every read is bound to the version that an object had when it was described.
//
// The identity of a weight file is the SHA-256 of its content if the bucket knows it without reading, or if options ask for it; else it is made of the
// version, so that no weight is read.
func OpenBucket(ctx context.Context, b objstore.Bucket, o OpenOptions) (*Checkpoint, error) {
	return openPlace(ctx, newBucketPlace(ctx, b, o.Location), o.File, o)
}

// OpenBucketSource is OpenSource for files that are the objects of a bucket. It asks for the state of each, and reads only those whose identity is a
// SHA-256 that the bucket does not know. Location stands in errors.
func OpenBucketSource(ctx context.Context, b objstore.Bucket, location string, files []File) (*Source, error) {
	return openSource(ctx, newBucketPlace(ctx, b, location), files)
}

// bucketPlace is a place in a bucket.
type bucketPlace struct {
	bucket   objstore.Bucket
	location string
	files    []bucketFile
	blocks   *blocks
}

// bucketFile is an object and the version that all reads are bound to.
type bucketFile struct {
	name, version string
	size          int64
}

func newBucketPlace(ctx context.Context, b objstore.Bucket, location string) *bucketPlace {
	p := &bucketPlace{bucket: b, location: strings.TrimSuffix(location, "/")}
	p.blocks = newBlocks(ctx, p.fetch)
	return p
}

func (p *bucketPlace) where(name string) string {
	switch {
	case name == "" && p.location == "":
		return "the bucket"
	case name == "" || p.location == "":
		return p.location + name
	}
	return p.location + "/" + name
}

func (p *bucketPlace) list(ctx context.Context) ([]entry, error) {
	var entries []entry
	n := 0
	for info, err := range p.bucket.List(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("open checkpoint %s: %w", p.where(""), reached(err))
		}
		if n++; n > maxEntries {
			return nil, fmt.Errorf("open checkpoint %s: %w: more than %d objects; give the location of one model", p.where(""), ErrUnsupported, maxEntries)
		}
		name, _, below := strings.Cut(info.Key, "/")
		if !below {
			entries = append(entries, entry{name: name, size: info.Size, regular: true})
		} else if k := len(entries); k == 0 || entries[k-1].name != name || !entries[k-1].dir {
			entries = append(entries, entry{name: name, dir: true})
		}
	}
	return entries, nil // in the order of keys, which is that of names but for what is skipped
}

func (p *bucketPlace) open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := p.bucket.Get(ctx, name, 0, -1)
	if errors.Is(err, objstore.ErrNotExist) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return r, err
}

func (p *bucketPlace) stat(ctx context.Context, name string) (objstore.Info, error) {
	info, err := p.bucket.Stat(ctx, name)
	if errors.Is(err, objstore.ErrNotExist) {
		return info, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if err == nil && info.Version == "" {
		return info, fmt.Errorf("open %s: %w: the store gives its objects no versions, so that a change would go unseen; upload the checkpoint instead", p.where(name), ErrUnsupported)
	}
	return info, err
}

func (p *bucketPlace) describe(ctx context.Context, name string, content bool) (File, *Header, error) {
	fail := func(err error) (File, *Header, error) {
		return File{}, nil, fmt.Errorf("open checkpoint %s: %w", p.where(""), reached(err))
	}
	info, err := p.stat(ctx, name)
	if err != nil {
		return fail(err)
	}
	f := bucketFile{name: name, version: info.Version, size: info.Size}
	h, err := p.header(ctx, f)
	if err != nil {
		return fail(err)
	}
	id := versionIdentity(h.Digest, info.Size, info.Version)
	switch {
	case info.SHA256 != [32]byte{}:
		id = Identity{Kind: IdentityContent, Value: hex.EncodeToString(info.SHA256[:])}
	case content:
		id.Kind = IdentityContent
		if id.Value, err = p.hash(ctx, f); err != nil {
			return fail(err)
		}
	}
	file := File{Name: name, Size: info.Size, HeaderDigest: h.Digest, Identity: id}
	p.add(f, file)
	return file, h, nil
}

// header reads the header of an object in one read, or in two if it is long.
func (p *bucketPlace) header(ctx context.Context, f bucketFile) (*Header, error) {
	read := func(b []byte, off int64) error { return p.explain(f, p.get(ctx, f, b, off)) }
	b := make([]byte, min(f.size, firstRead))
	if err := read(b, 0); err != nil {
		return nil, err
	}
	return completeHeader(b, p.where(f.name), f.size, read)
}

// completeHeader parses a header of whose file b holds the beginning, and reads what is missing.
func completeHeader(b []byte, name string, size int64, read func(p []byte, off int64) error) (*Header, error) {
	if len(b) < 8 {
		return ParseHeader(b, name, size)
	}
	length, err := headerLength(b[:8], name, size)
	if err != nil {
		return nil, err
	}
	have := int64(len(b))
	if all := 8 + length; all <= have {
		b = b[:all]
	} else {
		whole := make([]byte, all) // bounded by MaxHeader and the file
		copy(whole, b)
		if err := read(whole[have:], have); err != nil {
			return nil, err
		}
		b = whole
	}
	return ParseHeader(b, name, size)
}

func (p *bucketPlace) hash(ctx context.Context, f bucketFile) (string, error) {
	r, err := objstore.GetIf(ctx, p.bucket, f.name, f.version, 0, -1)
	if err != nil {
		return "", p.explain(f, err)
	}
	defer r.Close()
	sum, err := contentDigest(ctx, r, f.size)
	if err != nil {
		return "", p.explain(f, fmt.Errorf("hash %s: %w", p.where(f.name), err))
	}
	return sum, nil
}

func (p *bucketPlace) verify(ctx context.Context, want File) error {
	info, err := p.stat(ctx, want.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", changed(p, want.Name), err)
	case err != nil:
		return fmt.Errorf("open source: %w", reached(err))
	case info.Size != want.Size:
		return changed(p, want.Name)
	}
	f := bucketFile{name: want.Name, version: info.Version, size: info.Size}
	var have Identity
	switch want.Identity.Kind {
	case IdentityVersion:
		have = versionIdentity(want.HeaderDigest, info.Size, info.Version)
	case IdentityContent:
		have = Identity{Kind: IdentityContent, Value: hex.EncodeToString(info.SHA256[:])}
		if info.SHA256 == [32]byte{} {
			if have.Value, err = p.hash(ctx, f); err != nil {
				return fmt.Errorf("open source: %w", reached(err))
			}
		}
	default:
		return fmt.Errorf("open source %s: %w: an identity of kind %q cannot be checked there; describe the checkpoint anew", p.where(want.Name), ErrUnsupported, want.Identity.Kind)
	}
	if have != want.Identity {
		return changed(p, want.Name)
	}
	p.add(f, want)
	return nil
}

func (p *bucketPlace) add(f bucketFile, described File) {
	p.files = append(p.files, f)
	p.blocks.add(described)
}

func (p *bucketPlace) keep(c BlockCache) { p.blocks.cache = c }

func (p *bucketPlace) want(tensors []Tensor) { p.blocks.want(tensors) }

func (p *bucketPlace) reading(ctx context.Context, i int, read func(weightFile) error) error {
	err := read(remoteFile{p.blocks, i, p.files[i].size})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return p.explain(p.files[i], fmt.Errorf("read %s: %w", p.where(p.files[i].name), err))
}

// fetch is what blocks are filled by.
func (p *bucketPlace) fetch(ctx context.Context, file int, b []byte, off int64) error {
	return p.get(ctx, p.files[file], b, off)
}

// get reads a range of the version of f.
func (p *bucketPlace) get(ctx context.Context, f bucketFile, b []byte, off int64) error {
	r, err := objstore.GetIf(ctx, p.bucket, f.name, f.version, off, int64(len(b)))
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// explain says of an object that is gone or another one that the source has changed.
func (p *bucketPlace) explain(f bucketFile, err error) error {
	if errors.Is(err, objstore.ErrChanged) || errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrRange) {
		return fmt.Errorf("%w: %w", changed(p, f.name), err)
	}
	return err
}

func (p *bucketPlace) close() error {
	p.blocks.close()
	return nil
}

// remoteFile is a weight file that is read by blocks.
type remoteFile struct {
	blocks *blocks
	file   int
	limit  int64 // nothing from here on is read ahead
}

func (f remoteFile) until(end int64) weightFile {
	f.limit = end
	return f
}

func (f remoteFile) readFull(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > f.blocks.sizes[f.file]-int64(len(p)) {
		return fmt.Errorf("read %d bytes from byte %d of a file of %d: %w", len(p), off, f.blocks.sizes[f.file], io.ErrUnexpectedEOF)
	}
	return f.blocks.read(ctx, f.file, p, off, f.limit)
}
