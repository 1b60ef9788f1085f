package shard

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/shardpress/shardpress/objstore"
)

// uploadsAtOnce bounds the extents on their way: a store answers one at a time more slowly than several.
const uploadsAtOnce = 4

// uploadPiece is what is read of a weight file at a time.
const uploadPiece = 1 << 20

// Upload puts a checkpoint into a store, where OpenUploaded finds it by the ID that is returned: cut by decoder blocks into objects
// of at most 256 MiB, the headers, config.json, the index and the extra files beside them, and last the document that makes it a checkpoint.
// Identities stay what they are here, so that tasks have the same names as those of a run on this machine.
//
// What an earlier Upload of the same checkpoint sent is not sent again, except what a reader has found damaged. Progress, if not nil, is
// told from time to time how many of all bytes are there, by one goroutine at a time. Weights that change meanwhile are ErrSourceChanged.
func Upload(ctx context.Context, c *Checkpoint, store objstore.Bucket, progress func(done, total int64)) (id string, err error) {
	u := &upload{from: c, bufs: make(chan []byte, uploadsAtOnce), doc: &uploaded{Version: uploadedVersion, Extras: c.Manifest.Extras, Skipped: c.Manifest.Skipped}, progress: progress}
	if err := u.describe(ctx); err != nil {
		return "", fmt.Errorf("upload %s: %w", c.Location(), err)
	}
	u.id = u.doc.id()
	u.to = objstore.Prefix(store, UploadedPrefix(u.id))
	if err := u.run(ctx, store); err != nil {
		return "", fmt.Errorf("upload %s: %w", c.Location(), err)
	}
	return u.id, nil
}

// upload is one upload under way.
type upload struct {
	from *Checkpoint
	doc  *uploaded
	id   string
	to   objstore.Bucket
	was  *uploaded        // what an earlier upload recorded, or nil
	have map[string]int64 // sizes of what lies there, by key
	text map[string][]byte
	bufs chan []byte // of uploadPiece bytes, one for each extent that is on its way

	mu       sync.Mutex // guards what follows, and calls of progress
	progress func(done, total int64)
	done     int64
	total    int64
}

// describe says what will be uploaded, from what is known of it already.
func (u *upload) describe(ctx context.Context) error {
	m := u.from.Manifest
	cut := extents(m)
	for i, f := range m.Files {
		u.doc.Files = append(u.doc.Files, uploadedFile{File: f, Extents: cut[i]})
		u.total += f.Size
	}
	u.text = map[string][]byte{}
	if u.from.Config != nil {
		u.doc.Config = u.beside(ConfigName, u.from.Config)
	}
	switch index, err := readLimited(ctx, u.from.source.place, IndexName, MaxHeader); {
	case err == nil && len(m.Files) > 0 && indexLists(index, m.Files):
		u.doc.Index = u.beside(IndexName, index)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// indexLists reports whether an index is of these files: one that lies beside a single file that was opened is not.
func indexLists(b []byte, files []File) bool {
	x, err := ParseIndex(b, IndexName)
	if err != nil {
		return false
	}
	return slices.EqualFunc(x.Files(), files, func(name string, f File) bool { return name == f.Name })
}

// beside keeps the bytes of a small file to be uploaded.
func (u *upload) beside(name string, b []byte) *Extra {
	u.text[name] = b
	sum := sha256.Sum256(b)
	return &Extra{Name: name, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
}

func (u *upload) run(ctx context.Context, store objstore.Bucket) error {
	if err := u.look(ctx, store); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadsAtOnce)
	type piece struct{ file, extent int }
	var pieces []piece
	for i, f := range u.doc.Files {
		for k := range f.Extents {
			pieces = append(pieces, piece{i, k})
		}
	}
	// By decoder block, as people follow it.
	slices.SortStableFunc(pieces, func(a, b piece) int {
		return cmp.Compare(u.doc.Files[a.file].Extents[a.extent].Block, u.doc.Files[b.file].Extents[b.extent].Block)
	})
	for _, p := range pieces {
		g.Go(func() error { return u.extent(gctx, p.file, p.extent) })
	}
	for _, e := range u.doc.beside() {
		g.Go(func() error { return u.small(gctx, e) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b, err := u.doc.encode()
	if err != nil {
		return err
	}
	if len(b) > maxUploaded {
		return fmt.Errorf("%s: %w: %d bytes for so many pieces; put the checkpoint into the store as it is, and name it there", uploadedKey, ErrUnsupported, len(b))
	}
	if u.was != nil {
		if old, err := u.was.encode(); err == nil && bytes.Equal(old, b) {
			return nil
		}
	}
	_, err = u.to.Put(ctx, uploadedKey, bytes.NewReader(b), int64(len(b)), objstore.PutOptions{})
	return err
}

// look finds what lies there from earlier.
func (u *upload) look(ctx context.Context, store objstore.Bucket) error {
	u.have = map[string]int64{}
	prefix := UploadedPrefix(u.id)
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			return err
		}
		u.have[strings.TrimPrefix(info.Key, prefix)] = info.Size
	}
	if _, ok := u.have[uploadedKey]; !ok {
		return nil
	}
	old, err := ReadUploaded(ctx, store, u.id)
	switch {
	case err == nil:
		u.was = old.doc
	case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrUnsupported):
		return err
	}
	return nil
}

// recorded gives the hash of the sidecar of an extent that is there, "" if the extent must be sent.
func (u *upload) recorded(ctx context.Context, file, i int) (string, error) {
	e := u.doc.Files[file].Extents[i]
	name := e.name(file)
	size, ok := u.have[extentsKey+name+".bin"]
	_, beside := u.have[extentsKey+name+".json"]
	if _, damaged := u.have[damagedKey+name]; !ok || !beside || damaged || size != e.Length {
		return "", nil
	}
	b, err := readObject(ctx, u.to, extentsKey+name+".json", maxSidecar)
	if errors.Is(err, objstore.ErrNotExist) || errors.Is(err, ErrDamaged) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	hash := hex.EncodeToString(sum[:])
	if u.was != nil { // readers hold the sidecar against this
		if was := u.was.Files[file].Extents; i >= len(was) || was[i].Offset != e.Offset || was[i].Chunks != hash {
			return "", nil
		}
	}
	if _, err := parseSidecar(b, e.Length); err != nil {
		return "", nil //nolint:nilerr // it is written again
	}
	return hash, nil
}

// extent sends a part of a weight file, and then its sidecar.
func (u *upload) extent(ctx context.Context, file, i int) error {
	e := &u.doc.Files[file].Extents[i]
	hash, err := u.recorded(ctx, file, i)
	if err != nil {
		return err
	}
	if hash != "" {
		e.Chunks = hash
		u.count(e.Length)
		return nil
	}
	name := e.name(file)
	r := &chunkReader{ctx: ctx, upload: u, file: file, off: e.Offset, left: e.Length, sum: sha256.New(), buf: u.buffer()}
	if _, err := u.to.Put(ctx, extentsKey+name+".bin", r, e.Length, objstore.PutOptions{}); err != nil {
		return err // who knows whether the store still reads
	}
	u.bufs <- r.buf
	b, err := (&sidecar{Version: uploadedVersion, Length: e.Length, Chunks: r.chunks}).encode()
	if err != nil {
		return err
	}
	if _, err := u.to.Put(ctx, extentsKey+name+".json", bytes.NewReader(b), int64(len(b)), objstore.PutOptions{}); err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	e.Chunks = hex.EncodeToString(sum[:])
	if _, ok := u.have[damagedKey+name]; ok {
		return u.to.Delete(ctx, damagedKey+name)
	}
	return nil
}

// buffer gives a buffer that no other extent uses.
func (u *upload) buffer() []byte {
	select {
	case b := <-u.bufs:
		return b
	default:
		return make([]byte, uploadPiece)
	}
}

// small sends a file that lies beside the weights.
func (u *upload) small(ctx context.Context, e Extra) error {
	key := besideKey + e.Name
	if size, ok := u.have[key]; ok && size == e.Size {
		if b, err := readObject(ctx, u.to, key, MaxHeader); err == nil {
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) == e.SHA256 {
				return nil
			}
		}
	}
	if b, ok := u.text[e.Name]; ok {
		_, err := u.to.Put(ctx, key, bytes.NewReader(b), e.Size, objstore.PutOptions{})
		return err
	}
	r, err := u.from.OpenExtra(ctx, e)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = u.to.Put(ctx, key, r, e.Size, objstore.PutOptions{})
	return err
}

// count tells of bytes that are there.
func (u *upload) count(n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done += n
	if u.progress != nil {
		u.progress(u.done, u.total)
	}
}

// chunkReader reads a part of a weight file and hashes its chunks.
type chunkReader struct {
	ctx    context.Context
	upload *upload
	file   int
	off    int64
	left   int64

	piece  []byte // read and not given yet
	buf    []byte
	inside int64 // bytes of the chunk that sum holds
	sum    hash.Hash
	chunks []string
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.piece) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		n := min(r.left, int64(len(r.buf)), chunkSize-r.inside)
		r.piece = r.buf[:n]
		if err := r.upload.from.ReadAt(r.ctx, r.file, r.piece, r.off); err != nil {
			return 0, err
		}
		r.off, r.left, r.inside = r.off+n, r.left-n, r.inside+n
		r.sum.Write(r.piece)
		if r.inside == chunkSize || r.left == 0 {
			r.chunks = append(r.chunks, hex.EncodeToString(r.sum.Sum(nil)))
			r.sum.Reset()
			r.inside = 0
		}
		r.upload.count(n)
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}
