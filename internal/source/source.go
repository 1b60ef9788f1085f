// Package source opens the checkpoints that locations name: for those who plan and for the workers who read.
//
//	file:///dir              a directory of this machine, where that is allowed
//	store:<key prefix>       a checkpoint in the store, used in place
//	store:sources/<id>       a checkpoint that was uploaded to the store
//	hf://owner/name@commit   a repository of the Hugging Face hub
//
// Locations come in messages and submissions, which anybody may have sent who can reach the queue or the store: every part is checked,
// and no location reaches a file or a host that the opener was not told of.
package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/shard"
)

// Opener opens locations. Its methods may be called from many goroutines.
type Opener struct {
	// Store holds the checkpoints of store locations; nil refuses them.
	Store objstore.Bucket
	// Dirs are the directories below which file locations may lie.
	Dirs []string
	// AnyDir allows every file location: the opener and whoever names locations are one user's.
	AnyDir bool
	// Hub says how to reach the hub of hub locations.
	Hub hub.Options
	// NoHub refuses hub locations.
	NoHub bool

	// Cache, if not nil, keeps near what Source reads from afar.
	Cache shard.BlockCache

	mu       sync.Mutex
	uploaded map[string]*shard.Uploaded // by ID: documents do not change, and each task reads one
	hubs     map[hub.Ref]*hub.Bucket    // by pinned reference: listings do not change either
	client   *http.Client               // for all of them
}

// maxKept bounds the documents and the listings that are kept, which may have some MiB each.
const maxKept = 4

// Open reads the headers of a checkpoint.
func (o *Opener) Open(ctx context.Context, location string) (*shard.Checkpoint, error) {
	switch {
	case strings.HasPrefix(location, schemeFile):
		path, err := o.confine(location)
		if err != nil {
			return nil, err
		}
		if err := o.confineAll(path); err != nil {
			return nil, err
		}
		return shard.Open(ctx, path, shard.OpenOptions{})
	case uploadID(location) != "":
		u, err := o.readUploaded(ctx, location, true)
		if err != nil {
			return nil, err
		}
		return u.Open(ctx)
	case strings.HasPrefix(location, schemeStore):
		b, file, err := o.inStore(location)
		if err != nil {
			return nil, err
		}
		return shard.OpenBucket(ctx, b, shard.OpenOptions{Location: strings.TrimSuffix(location, "/"+file), File: file})
	case strings.HasPrefix(location, schemeHub):
		b, err := o.openHub(ctx, location)
		if err != nil {
			return nil, err
		}
		return shard.OpenBucket(ctx, b, shard.OpenOptions{Location: b.Ref().String()})
	}
	return nil, unknown(location)
}

// Source opens weight files of a checkpoint and holds them against their identities.
func (o *Opener) Source(ctx context.Context, location string, files []shard.File) (*shard.Source, error) {
	s, err := o.source(ctx, location, files)
	if err == nil && o.Cache != nil {
		s.Cache(o.Cache)
	}
	return s, err
}

func (o *Opener) source(ctx context.Context, location string, files []shard.File) (*shard.Source, error) {
	switch {
	case strings.HasPrefix(location, schemeFile):
		dir, err := o.confine(location)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if err := o.confineFile(dir, f.Name); err != nil {
				return nil, err
			}
		}
		return shard.OpenSource(ctx, dir, files)
	case uploadID(location) != "":
		u, err := o.readUploaded(ctx, location, false)
		if err != nil {
			return nil, err
		}
		return u.Source(ctx, files)
	case strings.HasPrefix(location, schemeStore):
		b, _, err := o.inStore(location)
		if err != nil {
			return nil, err
		}
		return shard.OpenBucketSource(ctx, b, location, files)
	case strings.HasPrefix(location, schemeHub):
		b, err := o.openHub(ctx, location)
		if err != nil {
			return nil, err
		}
		return shard.OpenBucketSource(ctx, b, b.Ref().String(), files)
	}
	return nil, unknown(location)
}

func unknown(location string) error {
	return fmt.Errorf("source location %q: %w: want file:///directory, store:prefix or hf://owner/name@revision", location, task.ErrInvalid)
}

// readUploaded gives the document of an uploaded checkpoint. One that was uploaded again, because something was damaged, may have another
// document: whoever plans reads it anew.
func (o *Opener) readUploaded(ctx context.Context, location string, anew bool) (*shard.Uploaded, error) {
	if o.Store == nil {
		return nil, fmt.Errorf("source location %q: %w: there is no store here", location, task.ErrInvalid)
	}
	id := uploadID(location)
	o.mu.Lock()
	u := o.uploaded[id]
	o.mu.Unlock()
	if u != nil && !anew {
		return u, nil
	}
	u, err := shard.ReadUploaded(ctx, o.Store, id)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.uploaded == nil || len(o.uploaded) >= maxKept {
		o.uploaded = map[string]*shard.Uploaded{}
	}
	o.uploaded[id] = u
	return u, nil
}

// openHub gives the files of a repository. What a branch means is asked each time.
func (o *Opener) openHub(ctx context.Context, location string) (*hub.Bucket, error) {
	ref, err := hub.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("source location: %w: %w", task.ErrInvalid, err)
	}
	if o.NoHub {
		return nil, fmt.Errorf("source location %q: %w: this program does not read from the hub: put the checkpoint into the store", location, task.ErrInvalid)
	}
	options := o.Hub
	o.mu.Lock()
	b := o.hubs[ref]
	if o.client == nil {
		o.client = hub.NewClient()
	}
	if options.Client == nil {
		options.Client = o.client
	}
	o.mu.Unlock()
	if b != nil {
		return b, nil
	}
	if b, err = hub.Open(ctx, ref, options); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if kept := o.hubs[b.Ref()]; kept != nil {
		return kept, nil // with the addresses that it knows
	}
	if o.hubs == nil || len(o.hubs) >= maxKept {
		o.hubs = map[hub.Ref]*hub.Bucket{}
	}
	o.hubs[b.Ref()] = b
	return b, nil
}

// inStore gives the part of the store that holds a checkpoint, and the name of its weight file if the location ends in one.
func (o *Opener) inStore(location string) (objstore.Bucket, string, error) {
	prefix, err := storePrefix(location)
	if err != nil {
		return nil, "", err
	}
	if o.Store == nil {
		return nil, "", fmt.Errorf("source location %q: %w: there is no store here", location, task.ErrInvalid)
	}
	file := ""
	if strings.HasSuffix(prefix, ".safetensors") {
		prefix, file = path.Split(prefix)
		if prefix = strings.TrimSuffix(prefix, "/"); prefix == "" {
			return nil, "", fmt.Errorf("source location %q: %w: the file must lie in a folder of its own", location, task.ErrInvalid)
		}
	}
	return objstore.Prefix(o.Store, prefix), file, nil
}

// confine gives the path of a file location if it is one that may be read.
func (o *Opener) confine(location string) (string, error) {
	path, err := filePath(location)
	if err != nil || o.AnyDir {
		return path, err
	}
	return path, o.inside(path, location)
}

// confineFile refuses a file that a symbolic link leads out of the allowed directories. Names that are no plain ones are refused by shard.
func (o *Opener) confineFile(dir, name string) error {
	if o.AnyDir || name != filepath.Base(name) {
		return nil
	}
	return o.inside(filepath.Join(dir, name), name)
}

// confineAll is confineFile for all that lies in a directory, or beside a weight file.
func (o *Opener) confineAll(path string) error {
	if o.AnyDir {
		return nil
	}
	if strings.HasSuffix(path, ".safetensors") || filepath.Base(path) == shard.IndexName {
		path = filepath.Dir(path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("open checkpoint: %w; check the path and its permissions", err)
	}
	for _, e := range entries {
		if e.Type()&os.ModeSymlink == 0 {
			continue
		}
		if err := o.confineFile(path, e.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// inside reports whether path, with its links followed, lies in an allowed directory.
func (o *Opener) inside(path, what string) error {
	if len(o.Dirs) == 0 {
		return fmt.Errorf("source %q: %w: this program reads no sources from its own disk: start it with --sources, or upload the checkpoint", what, task.ErrInvalid)
	}
	followed, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("source %q: %w: mount the directory that holds it on every worker, or upload the checkpoint", what, err)
	}
	for _, dir := range o.Dirs {
		if dir, err = filepath.Abs(dir); err != nil {
			return fmt.Errorf("directory of sources: %w", err)
		}
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return fmt.Errorf("directory of sources: %w: create it or mount its disk", err)
		}
		if rel, err := filepath.Rel(dir, followed); err == nil && filepath.IsLocal(rel) {
			return nil
		}
	}
	return fmt.Errorf("source %q: %w: it lies outside of the directories that --sources allows", what, task.ErrInvalid)
}
