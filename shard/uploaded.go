package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/objstore"
)

// Uploaded is a checkpoint that Upload put into a store. It may be opened any number of times, and by many goroutines.
type Uploaded struct {
	id     string
	bucket objstore.Bucket // of the checkpoint's prefix
	doc    *uploaded
}

// ReadUploaded reads the document of an uploaded checkpoint, which is there when all of it is.
func ReadUploaded(ctx context.Context, store objstore.Bucket, id string) (*Uploaded, error) {
	if !digest(id) {
		return nil, fmt.Errorf("open uploaded checkpoint %q: %w: want 64 hexadecimal digits", id, ErrMalformed)
	}
	b := objstore.Prefix(store, UploadedPrefix(id))
	text, err := readObject(ctx, b, uploadedKey, maxUploaded)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, fmt.Errorf("open uploaded checkpoint %s: %w: %w; upload it again", id, ErrMissing, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open uploaded checkpoint %s: %w", id, err)
	}
	doc, err := parseUploaded(id, text)
	if err != nil {
		return nil, fmt.Errorf("open uploaded checkpoint %s: %w", id, err)
	}
	return &Uploaded{id: id, bucket: b, doc: doc}, nil
}

// readObject reads a small object whole.
func readObject(ctx context.Context, b objstore.Bucket, key string, limit int64) ([]byte, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrDamaged, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return text, nil
}

// OpenUploaded opens a checkpoint that Upload put into a store, with the identities that its files had where they were uploaded from.
// Everything read is compared with its SHA-256; what differs is ErrDamaged.
func OpenUploaded(ctx context.Context, store objstore.Bucket, id string) (*Checkpoint, error) {
	u, err := ReadUploaded(ctx, store, id)
	if err != nil {
		return nil, err
	}
	return u.Open(ctx)
}

// Open is OpenUploaded.
func (u *Uploaded) Open(ctx context.Context) (*Checkpoint, error) {
	c, err := openPlace(ctx, newUploadedPlace(ctx, u), "", OpenOptions{})
	if err != nil {
		return nil, err
	}
	c.Manifest.Skipped = slices.Clone(u.doc.Skipped) // what was left behind is not there to be found
	if c.Manifest.Skipped == nil {
		c.Manifest.Skipped = []Skipped{}
	}
	if err := c.Manifest.checkOthers(); err != nil {
		return nil, errors.Join(fmt.Errorf("open uploaded checkpoint %s: %w", u.id, err), c.Close())
	}
	return c, nil
}

// Source opens files of the checkpoint, as a worker does, and reports ErrSourceChanged if their identities are not those given.
func (u *Uploaded) Source(ctx context.Context, files []File) (*Source, error) {
	return openSource(ctx, newUploadedPlace(ctx, u), files)
}

// uploadedPlace is a place in a store that extents lie in.
type uploadedPlace struct {
	*Uploaded
	files  []int // of the document, in the order in which they were added
	blocks *blocks

	mu       sync.Mutex
	sidecars map[string]*sidecar // by the extent's name: a few KiB for each that is read
}

func newUploadedPlace(ctx context.Context, u *Uploaded) *uploadedPlace {
	p := &uploadedPlace{Uploaded: u, sidecars: map[string]*sidecar{}}
	p.blocks = newBlocks(ctx, p.fetch)
	p.blocks.bounds = p.chunk
	return p
}

func (p *uploadedPlace) where(name string) string {
	at := "store:" + strings.TrimSuffix(UploadedPrefix(p.id), "/")
	if name == "" {
		return at
	}
	return at + "/" + name
}

func (p *uploadedPlace) list(context.Context) ([]entry, error) {
	var entries []entry
	for _, f := range p.doc.Files {
		entries = append(entries, entry{name: f.Name, size: f.Size, regular: true})
	}
	for _, e := range p.doc.beside() {
		entries = append(entries, entry{name: e.Name, size: e.Size, regular: true})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries, nil
}

func (p *uploadedPlace) open(ctx context.Context, name string) (io.ReadCloser, error) {
	list := p.doc.beside()
	i := slices.IndexFunc(list, func(e Extra) bool { return e.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("open %s: %w", p.where(name), fs.ErrNotExist)
	}
	r, err := p.bucket.Get(ctx, besideKey+name, 0, -1)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w: it is gone from the store; upload the checkpoint again", p.where(name), ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	return &besideReader{extraReader{file: r, place: p, extra: list[i], sum: sha256.New()}}, nil
}

// besideReader calls bytes that are not those uploaded damaged: nobody changes them.
type besideReader struct{ extraReader }

func (r *besideReader) Read(b []byte) (int, error) {
	n, err := r.extraReader.Read(b)
	if errors.Is(err, ErrSourceChanged) {
		err = fmt.Errorf("read %s: %w: its SHA-256 is not the recorded one; upload the checkpoint again", r.place.where(r.extra.Name), ErrDamaged)
	}
	return n, err
}

func (p *uploadedPlace) describe(ctx context.Context, name string, _ bool) (File, *Header, error) {
	i := slices.IndexFunc(p.doc.Files, func(f uploadedFile) bool { return f.Name == name })
	if i < 0 {
		return File{}, nil, fmt.Errorf("open %s: %w", p.where(name), fs.ErrNotExist)
	}
	f := p.doc.Files[i].File
	p.add(i)
	at := remoteFile{p.blocks, len(p.files) - 1, 0} // the weights behind the header are not read now
	b := make([]byte, min(f.Size, p.doc.Files[i].Extents[0].Length, firstRead))
	read := func(b []byte, off int64) error { return at.readFull(ctx, b, off) }
	if err := read(b, 0); err != nil {
		return File{}, nil, fmt.Errorf("read header of %s: %w", p.where(name), err)
	}
	h, err := completeHeader(b, p.where(name), f.Size, read)
	if err != nil {
		return File{}, nil, err
	}
	if h.Digest != f.HeaderDigest {
		return File{}, nil, fmt.Errorf("read header of %s: %w: it is not the one that was uploaded; upload the checkpoint again", p.where(name), ErrDamaged)
	}
	return f, h, nil
}

func (p *uploadedPlace) verify(_ context.Context, want File) error {
	i := slices.IndexFunc(p.doc.Files, func(f uploadedFile) bool { return f.Name == want.Name })
	if i < 0 || p.doc.Files[i].File != want {
		return changed(p, want.Name)
	}
	p.add(i)
	return nil
}

func (p *uploadedPlace) add(i int) {
	p.files = append(p.files, i)
	p.blocks.add(p.doc.Files[i].File)
}

func (p *uploadedPlace) keep(c BlockCache) { p.blocks.cache = c }

func (p *uploadedPlace) want(tensors []Tensor) { p.blocks.want(tensors) }

func (p *uploadedPlace) reading(ctx context.Context, i int, read func(weightFile) error) error {
	name := p.doc.Files[p.files[i]].Name
	err := read(remoteFile{p.blocks, i, p.blocks.sizes[i]})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("read %s: %w", p.where(name), err)
	}
	return err
}

// chunk gives the chunk that byte off is in: all of it is needed to know that it is right.
func (p *uploadedPlace) chunk(file int, off int64) (begin, end int64) {
	f := &p.doc.Files[p.files[file]]
	e := f.Extents[f.extentAt(off)]
	begin = off - (off-e.Offset)%chunkSize
	return begin, min(begin+chunkSize, e.Offset+e.Length)
}

// fetch reads a chunk and compares it with its hash. What is wrong is read once more: it may have been the way, and not the store.
func (p *uploadedPlace) fetch(ctx context.Context, file int, b []byte, off int64) error {
	n := p.files[file]
	f := &p.doc.Files[n]
	e := f.Extents[f.extentAt(off)]
	name := e.name(n)
	err := p.fetchOnce(ctx, e, name, b, off-e.Offset)
	if errors.Is(err, ErrDamaged) {
		err = p.fetchOnce(ctx, e, name, b, off-e.Offset)
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	// A note for the next Upload. Who may not write says it in the error all the same.
	text := err.Error() + "\n"
	_, _ = p.bucket.Put(ctx, damagedKey+name, strings.NewReader(text), int64(len(text)), objstore.PutOptions{})
	return fmt.Errorf("extent %s: %w; upload the checkpoint again, which sends only what is damaged", name, err)
}

// fetchOnce reads from byte off of an extent on. An extent that is gone or shorter is damaged.
func (p *uploadedPlace) fetchOnce(ctx context.Context, e extent, name string, b []byte, off int64) error {
	gone := func(err error) error {
		if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrRange) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return err
	}
	s, err := p.sidecar(ctx, e, name)
	if err != nil {
		return gone(err)
	}
	key := extentsKey + name + ".bin"
	r, err := p.bucket.Get(ctx, key, off, int64(len(b)))
	if err != nil {
		return gone(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, b); err != nil {
		if info, serr := p.bucket.Stat(ctx, key); serr == nil && info.Size != e.Length {
			return fmt.Errorf("%w: it has %d bytes", ErrDamaged, info.Size)
		}
		return gone(err)
	}
	i := off / chunkSize
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != s.Chunks[i] {
		return fmt.Errorf("%w: chunk %d has another SHA-256 than recorded", ErrDamaged, i)
	}
	return nil
}

// sidecar gives the hashes of an extent.
func (p *uploadedPlace) sidecar(ctx context.Context, e extent, name string) (*sidecar, error) {
	p.mu.Lock()
	s := p.sidecars[name]
	p.mu.Unlock()
	if s != nil {
		return s, nil
	}
	b, err := readObject(ctx, p.bucket, extentsKey+name+".json", maxSidecar)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != e.Chunks {
		return nil, fmt.Errorf("%w: its hashes are not the recorded ones", ErrDamaged)
	}
	if s, err = parseSidecar(b, e.Length); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.sidecars[name] = s
	p.mu.Unlock()
	return s, nil
}

func (p *uploadedPlace) close() error {
	p.blocks.close()
	return nil
}
