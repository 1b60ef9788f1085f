package coordinator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
)

// Names of the result's own documents.
const (
	ManifestFile = "MANIFEST.json" // written last: with it the result is complete
	ReportFile   = "report.json"
	// UnfinishedFile marks a result that is being made; it goes when the manifest is there.
	UnfinishedFile = "UNFINISHED.json"
	configFile     = "config.json"
	indexFile      = "model.safetensors.index.json"
)

// Output is the place where the compressed checkpoint is put together. Each file
// appears whole or not at all, and the manifest last.
type Output struct {
	bucket objstore.Bucket
	extras Extras
	slots  chan struct{}

	mu     sync.Mutex
	placed map[string]placedFile // by name
}

// placedFile is a weight file that stands in the output.
type placedFile struct {
	written task.Written
	version string // of the output's store
	id      task.ID
	attempt string
}

// lostError says that output bytes of a task are missing or damaged.
type lostError struct {
	id      task.ID
	attempt string
	what    string
}

func (e *lostError) Error() string { return e.what }

// Extras opens the files of the source that are carried over, and reports
// shard.ErrSourceChanged from their readers. A shard.Checkpoint does.
type Extras interface {
	OpenExtra(ctx context.Context, e shard.Extra) (io.ReadCloser, error)
}

// NewOutput puts the result into bucket; extra files come from extras, which may be
// nil for an Output that assembles nothing.
func NewOutput(bucket objstore.Bucket, extras Extras) *Output {
	// Placing is a link or a copy: more than a few at once only contend for the disk.
	return &Output{bucket: bucket, extras: extras, slots: make(chan struct{}, 2), placed: map[string]placedFile{}}
}

// Manifest is the result's table of contents.
type Manifest struct {
	Version int `json:"version"`
	// Recipe is the resolved recipe, Source what it was applied to.
	Recipe json.RawMessage `json:"recipe"`
	Source []SourceFile    `json:"source"`
	// Files are all files of the result but this one, sorted by name.
	Files []ManifestEntry `json:"files"`
}

// SourceFile is a weight file of the source, by what is the same for equal copies of it.
type SourceFile struct {
	Name         string `json:"name"`
	Size         int64  `json:"size"`
	HeaderSHA256 string `json:"header_sha256"`
}

// ManifestEntry is a file of the result.
type ManifestEntry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const manifestVersion = 1

// ParseManifest reads a result's MANIFEST.json.
func ParseManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", ManifestFile, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("read %s: version %d, this program knows %d", ManifestFile, m.Version, manifestVersion)
	}
	for _, f := range m.Files {
		if h, err := hex.DecodeString(f.SHA256); err != nil || len(h) != sha256.Size || f.Size < 0 || objstore.CheckKey(f.Name) != nil {
			return nil, fmt.Errorf("read %s: entry %q is malformed", ManifestFile, f.Name)
		}
	}
	return &m, nil
}

// sources lists the plan's source files for a manifest.
func sources(p *Plan) []SourceFile {
	files := make([]SourceFile, len(p.Manifest.Files))
	for i, f := range p.Manifest.Files {
		files[i] = SourceFile{Name: f.Name, Size: f.Size, HeaderSHA256: f.HeaderDigest}
	}
	return files
}

// Place puts a task's weight file where the result wants it, without moving its
// bytes when both stores can. fresh results were written during this run: while
// the store's tag of their bytes is unchanged they are not read again. Others
// are.
func (o *Output) Place(ctx context.Context, store objstore.Bucket, u *Unit, r *task.Result, fresh bool) error {
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	lost := func(format string, args ...any) error {
		return &lostError{id: r.ID, attempt: r.Attempt, what: fmt.Sprintf(format, args...)}
	}
	w, err := r.Output(operation.ShardOutput)
	if err != nil {
		return lost("%v", err)
	}
	if w.Size != u.Layout.Size() {
		return lost("result of task %s says %d bytes for %s, the plan %d", r.ID.Short(), w.Size, u.File, u.Layout.Size())
	}
	info, err := store.Stat(ctx, w.Key)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return lost("%s is gone from the store", w.Key)
	case err != nil:
		return err
	case info.Size != w.Size:
		return lost("%s holds %d bytes, not %d", w.Key, info.Size, w.Size)
	}
	if !fresh || info.Version != w.Stored {
		sum, err := objstore.Digest(ctx, store, w.Key)
		if errors.Is(err, objstore.ErrNotExist) {
			return lost("%s is gone from the store", w.Key)
		}
		if err != nil {
			return err
		}
		if sum != w.SHA256 {
			return lost("%s is damaged: its SHA-256 is not the recorded one", w.Key)
		}
	}
	at, err := objstore.Copy(ctx, o.bucket, u.File, store, w.Key)
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return lost("%s is gone from the store", w.Key)
	case err != nil:
		return fmt.Errorf("place %s: %w", u.File, err)
	case at.SHA256 != [sha256.Size]byte{} && hex.EncodeToString(at.SHA256[:]) != w.SHA256:
		return lost("%s changed while it was copied", w.Key)
	case at.SHA256 == [sha256.Size]byte{}:
		// Nobody hashed the bytes on their way: they are those that were looked at if the
		// store's are still the same.
		after, err := store.Stat(ctx, w.Key)
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return err
		}
		if err != nil || after.Version != info.Version {
			return lost("%s changed while it was placed", w.Key)
		}
	}
	o.mu.Lock()
	o.placed[u.File] = placedFile{written: w, version: at.Version, id: r.ID, attempt: r.Attempt}
	o.mu.Unlock()
	return nil
}

// Assemble writes what the result needs besides its weights, checks that all
// placed files are still what was placed, and commits with the manifest.
func (o *Output) Assemble(ctx context.Context, store objstore.Bucket, p *Plan, results []*task.Result) (*Report, error) {
	m := &Manifest{Version: manifestVersion, Source: sources(p)}
	var err error
	if m.Recipe, err = p.Recipe.Canonical(); err != nil {
		return nil, err
	}
	var stats []operation.LinearStats
	for _, r := range results {
		s, err := readStats(ctx, store, r)
		if err != nil {
			return nil, err
		}
		stats = append(stats, s...)
	}
	report, err := NewReport(p, stats)
	if err != nil {
		return nil, err
	}
	text, err := report.Encode()
	if err != nil {
		return nil, err
	}
	docs := []document{{ReportFile, text}, {indexFile, p.Index}, {configFile, p.Config}}
	for try := 1; ; try++ {
		files, err := o.documents(ctx, p, docs)
		if err != nil {
			return nil, err
		}
		// The last look before the commit: all that the manifest will promise is there.
		for i, r := range results {
			e, err := o.stillPlaced(ctx, &p.Units[i], r)
			if err != nil {
				return nil, err
			}
			m.Files = append(m.Files, e)
		}
		changed, err := o.changed(ctx, files)
		if err != nil {
			return nil, err
		}
		if changed == "" {
			for _, f := range files {
				m.Files = append(m.Files, f.entry)
			}
			break
		}
		if try == maxRepairs {
			return nil, fmt.Errorf("write %s: it was changed or removed %d times after it was written: something else works in the output directory", changed, try)
		}
		m.Files = nil
	}
	slices.SortFunc(m.Files, func(a, b ManifestEntry) int { return strings.Compare(a.Name, b.Name) })
	if err := o.sweep(ctx, m); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", ManifestFile, err)
	}
	b = append(b, '\n')
	if _, err := o.put(ctx, ManifestFile, bytes.NewReader(b), int64(len(b))); err != nil {
		return nil, err
	}
	if err := o.bucket.Delete(ctx, UnfinishedFile); err != nil {
		return nil, fmt.Errorf("finish result: %w", err)
	}
	return report, nil
}

// document is a file of the result that the coordinator writes itself.
type document struct {
	name string
	data []byte // nil if there is none
}

// written is a file that stands in the output.
type written struct {
	entry   ManifestEntry
	version string // of the output's store
}

// documents carries over the extra files and writes the documents. What may fail
// comes first: without its config.json no loader takes the directory for a model.
func (o *Output) documents(ctx context.Context, p *Plan, docs []document) ([]written, error) {
	var files []written
	for _, x := range p.Manifest.Extras {
		f, err := o.extra(ctx, x)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	for _, doc := range docs {
		if doc.data == nil {
			continue
		}
		f, err := o.put(ctx, doc.name, bytes.NewReader(doc.data), int64(len(doc.data)))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// stillPlaced checks that a weight file is what was placed. It is a link to the
// store's bytes where that could be made, so that damage there is damage here.
func (o *Output) stillPlaced(ctx context.Context, u *Unit, r *task.Result) (ManifestEntry, error) {
	o.mu.Lock()
	f := o.placed[u.File]
	o.mu.Unlock()
	info, err := o.bucket.Stat(ctx, u.File)
	if err != nil && !errors.Is(err, objstore.ErrNotExist) {
		return ManifestEntry{}, err
	}
	same := err == nil && info.Size == f.written.Size
	if same && info.Version != f.version {
		// Another coordinator may have placed the same bytes again.
		sum, err := objstore.Digest(ctx, o.bucket, u.File)
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return ManifestEntry{}, err
		}
		same = err == nil && sum == f.written.SHA256
	}
	if !same {
		return ManifestEntry{}, &lostError{id: r.ID, attempt: r.Attempt, what: u.File + " was changed after it was placed"}
	}
	return ManifestEntry{Name: u.File, Size: f.written.Size, SHA256: f.written.SHA256}, nil
}

// changed names the first of the files that is no longer what was written.
func (o *Output) changed(ctx context.Context, files []written) (string, error) {
	for _, f := range files {
		info, err := o.bucket.Stat(ctx, f.entry.Name)
		if err != nil && !errors.Is(err, objstore.ErrNotExist) {
			return "", err
		}
		if err != nil || info.Version != f.version {
			return f.entry.Name, nil //nolint:nilerr // a missing file has changed
		}
	}
	return "", nil
}

// sweep removes what an earlier, unfinished result left in the output. It touches
// nothing that the mark of the unfinished result does not name.
func (o *Output) sweep(ctx context.Context, m *Manifest) error {
	u, _, err := readUnfinished(ctx, o.bucket)
	if err != nil {
		return err
	}
	keep := m.sums()
	for _, name := range u.Files {
		if _, ok := keep[name]; ok || objstore.CheckKey(name) != nil || name == UnfinishedFile || name == ManifestFile {
			continue
		}
		if err := o.bucket.Delete(ctx, name); err != nil {
			return fmt.Errorf("remove stale %s: %w", name, err)
		}
	}
	return nil
}

func (o *Output) put(ctx context.Context, name string, r io.Reader, size int64) (written, error) {
	info, err := o.bucket.Put(ctx, name, r, size, objstore.PutOptions{})
	if err != nil {
		return written{}, fmt.Errorf("write %s: %w", name, err)
	}
	return written{ManifestEntry{Name: name, Size: info.Size, SHA256: hex.EncodeToString(info.SHA256[:])}, info.Version}, nil
}

// extra carries over a file that is not compressed.
func (o *Output) extra(ctx context.Context, x shard.Extra) (written, error) {
	f, err := o.extras.OpenExtra(ctx, x)
	if err != nil {
		return written{}, fmt.Errorf("carry over %s: %w", x.Name, err)
	}
	defer f.Close()
	e, err := o.put(ctx, x.Name, f, x.Size)
	if err != nil {
		return written{}, err
	}
	if e.entry.SHA256 != x.SHA256 {
		return written{}, fmt.Errorf("carry over %s: %w during the run; run again", x.Name, shard.ErrSourceChanged)
	}
	return e, nil
}

// readStats reads what the encoding of a task's linears lost. The bytes are
// checked against the result like any other.
func readStats(ctx context.Context, store objstore.Bucket, r *task.Result) ([]operation.LinearStats, error) {
	lost := func(what string) error { return &lostError{id: r.ID, attempt: r.Attempt, what: what} }
	w, err := r.Output(operation.LinearsOutput)
	if err != nil {
		return nil, lost(err.Error())
	}
	b, err := readObject(ctx, store, w.Key)
	if errors.Is(err, objstore.ErrNotExist) {
		return nil, lost(w.Key + " is gone from the store")
	}
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != w.SHA256 {
		return nil, lost(w.Key + " is damaged: its SHA-256 is not the recorded one")
	}
	var stats []operation.LinearStats
	if err := json.Unmarshal(b, &stats); err != nil {
		return nil, fmt.Errorf("read %s: %w", w.Key, err)
	}
	return stats, nil
}

// ReadManifest reads the table of contents of a result.
func ReadManifest(ctx context.Context, result objstore.Bucket) (*Manifest, error) {
	b, err := readObject(ctx, result, ManifestFile)
	if err != nil {
		return nil, err
	}
	return ParseManifest(b)
}
