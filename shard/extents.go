package shard

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Bounds of an uploaded checkpoint.
const (
	// maxExtent bounds the object that a part of a weight file becomes: what is sent again when sending it is broken off.
	maxExtent = 256 << 20
	// chunkSize is the part of an extent that has a hash of its own: what is read, at least, to know that it is right.
	chunkSize = blockSize
	// maxUploaded bounds the document of an uploaded checkpoint: 8 TiB by extents of 32 MiB.
	maxUploaded = 64 << 20
	// maxSidecar bounds the document of an extent.
	maxSidecar = 64 << 10
)

const uploadedVersion = 1

// uploaded is the document that makes an upload a checkpoint: sources/<id>/source.json.
type uploaded struct {
	Version int            `json:"version"`
	Files   []uploadedFile `json:"files"`
	// Config and Index are nil where the checkpoint has none.
	Config  *Extra    `json:"config,omitempty"`
	Index   *Extra    `json:"index,omitempty"`
	Extras  []Extra   `json:"extras"`
	Skipped []Skipped `json:"skipped"`
}

// uploadedFile is a weight file and where its bytes are.
type uploadedFile struct {
	File
	Extents []extent `json:"extents"` // touching one another, from the first byte of the file to its last
}

// extent is a part of a weight file that is an object of its own: its header, or adjacent tensors of one decoder block.
type extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	Block  int   `json:"block"` // -1 outside the blocks
	// Chunks is the hex SHA-256 of the extent's sidecar, which holds the hashes of its chunks.
	Chunks string `json:"chunks"`
}

// sidecar is the document beside an extent, put after it: sources/<id>/extents/<extent>.json.
type sidecar struct {
	Version int      `json:"version"`
	Length  int64    `json:"length"`
	Chunks  []string `json:"chunks"` // hex SHA-256 of every chunkSize bytes
}

// Keys of an uploaded checkpoint, below its prefix. No key lies above another.
const (
	uploadedKey = "source.json"
	extentsKey  = "extents/"
	besideKey   = "files/"   // config, index and extra files
	damagedKey  = "damaged/" // notes of readers about extents that must be sent again
)

// UploadedPrefix is the prefix of the keys of an uploaded checkpoint in a store, with its final slash.
func UploadedPrefix(id string) string { return "sources/" + id + "/" }

// name is what an extent of the i-th file is called.
func (e extent) name(file int) string {
	return fmt.Sprintf("%05d-%014d-%09d", file, e.Offset, e.Length)
}

// extents cuts the weight files of a manifest into extents.
func extents(m *Manifest) [][]extent {
	block := map[string]int{}
	for _, p := range m.Places {
		block[p.Tensor] = p.Block
	}
	for _, l := range m.Linears {
		if l.Scale != "" {
			block[l.Scale] = l.Block // scales have no place of their own
		}
	}
	files := make([][]extent, len(m.Files))
	add := func(file int, begin, end int64, block int) {
		list := files[file]
		if n := len(list); n > 1 && list[n-1].Block == block && list[n-1].Length < maxExtent {
			k := min(end-begin, maxExtent-list[n-1].Length)
			list[n-1].Length += k
			begin += k
		}
		for begin < end {
			k := min(end-begin, maxExtent)
			list = append(list, extent{Offset: begin, Length: k, Block: block})
			begin += k
		}
		files[file] = list
	}
	at := make([]int64, len(m.Files))
	for _, t := range m.Tensors { // by file, then offset
		if at[t.File] == 0 { // what comes before the first tensor is the header
			add(t.File, 0, t.Offset, -1)
		}
		b, ok := block[t.Name]
		if !ok {
			b = -1
		}
		add(t.File, t.Offset, t.Offset+t.Length, b)
		at[t.File] = t.Offset + t.Length
	}
	for i, f := range m.Files { // without tensors, or with bytes behind them
		add(i, at[i], f.Size, -1)
	}
	return files
}

// uploadID names a checkpoint by its identities, so that equal ones are uploaded once.
func (u *uploaded) id() string {
	h := sha256.New()
	fmt.Fprintf(h, "shardpress source 1\n")
	for _, f := range u.Files {
		fmt.Fprintf(h, "weights %q %d %s %s %s\n", f.Name, f.Size, f.HeaderDigest, f.Identity.Kind, f.Identity.Value)
	}
	for _, e := range u.beside() {
		fmt.Fprintf(h, "file %q %d %s\n", e.Name, e.Size, e.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// beside lists the files that are uploaded as they are.
func (u *uploaded) beside() []Extra {
	var list []Extra
	for _, e := range []*Extra{u.Config, u.Index} {
		if e != nil {
			list = append(list, *e)
		}
	}
	return append(list, u.Extras...)
}

// sealed wraps a document with the checksum of its bytes.
type sealed struct {
	Source json.RawMessage `json:"source"`
	SHA256 string          `json:"sha256"`
}

func (u *uploaded) encode() ([]byte, error) {
	b, err := json.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", uploadedKey, err)
	}
	sum := sha256.Sum256(b)
	return json.Marshal(sealed{b, hex.EncodeToString(sum[:])})
}

// parseUploaded reads source.json of the checkpoint that id names, and checks all of it.
func parseUploaded(id string, b []byte) (*uploaded, error) {
	fail := func(format string, args ...any) (*uploaded, error) {
		return nil, fmt.Errorf("read %s: %w: %w; upload the checkpoint again", uploadedKey, ErrDamaged, fmt.Errorf(format, args...))
	}
	var s sealed
	if err := decodeStrict(b, &s); err != nil {
		return fail("%w", err)
	}
	if sum := sha256.Sum256(s.Source); hex.EncodeToString(sum[:]) != s.SHA256 {
		return fail("its checksum does not match")
	}
	var u uploaded
	if err := decodeStrict(s.Source, &u); err != nil {
		return fail("%w", err)
	}
	if u.Version != uploadedVersion {
		return nil, fmt.Errorf("read %s: version %d: %w; this program reads version %d", uploadedKey, u.Version, ErrUnsupported, uploadedVersion)
	}
	if err := u.check(); err != nil {
		return fail("%w", err)
	}
	if u.id() != id {
		return fail("it is of another checkpoint")
	}
	return &u, nil
}

// check refuses numbers and names that nothing may be read by.
func (u *uploaded) check() error {
	m := &Manifest{}
	for _, f := range u.Files {
		m.Files = append(m.Files, f.File)
	}
	if err := m.checkFiles(); err != nil {
		return err
	}
	for _, f := range u.Files {
		end := int64(0)
		for _, e := range f.Extents {
			if e.Offset != end || e.Length < 1 || e.Length > maxExtent || e.Length > f.Size-end || !digest(e.Chunks) {
				return malformed("file", f.Name, "extent of %d bytes from %d after %d", e.Length, e.Offset, end)
			}
			end += e.Length
		}
		if end != f.Size {
			return malformed("file", f.Name, "extents end at %d of %d bytes", end, f.Size)
		}
	}
	if c, x := u.Config, u.Index; c != nil && c.Name != ConfigName || x != nil && x.Name != IndexName {
		return fmt.Errorf("config or index of another name: %w", ErrMalformed)
	}
	for _, e := range u.beside() {
		if problem := fileNameProblem(e.Name); problem != "" || e.Size < 0 || e.Size > MaxHeader || !digest(e.SHA256) {
			return malformed("file", e.Name, "%d bytes, digest %q", e.Size, e.SHA256)
		}
	}
	return nil
}

func (s *sidecar) encode() ([]byte, error) { return json.Marshal(s) }

// parseSidecar reads the sidecar of an extent of length bytes.
func parseSidecar(b []byte, length int64) (*sidecar, error) {
	var s sidecar
	if err := decodeStrict(b, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.Version != uploadedVersion || s.Length != length || int64(len(s.Chunks)) != ceilDiv(length, chunkSize) || slices.ContainsFunc(s.Chunks, func(c string) bool { return !digest(c) }) {
		return nil, fmt.Errorf("%w: version %d, %d bytes in %d chunks", ErrDamaged, s.Version, s.Length, len(s.Chunks))
	}
	return &s, nil
}

func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// extentAt finds the extent that holds byte off of a file.
func (f *uploadedFile) extentAt(off int64) int {
	i, found := slices.BinarySearchFunc(f.Extents, off, func(e extent, off int64) int { return cmp.Compare(e.Offset, off) })
	if !found {
		i--
	}
	return i
}
