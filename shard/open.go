package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// OpenOptions say how to open a checkpoint.
type OpenOptions struct {
	// HashSource makes the identity of every weight file the SHA-256 of its bytes, which reads all of it once and makes results
	// reusable on any machine that has the same bytes.
	HashSource bool
}

// Checkpoint is an opened checkpoint: what it holds, and the means to read it.
type Checkpoint struct {
	Manifest *Manifest
	Config   json.RawMessage // the bytes of config.json, nil when there is none; may hold Python's NaN and Infinity
	source   *Source
}

// Source gives access to the weights.
func (c *Checkpoint) Source() *Source { return c.source }

// Location returns the absolute path of the checkpoint's directory.
func (c *Checkpoint) Location() string { return c.source.location }

// Close closes the files.
func (c *Checkpoint) Close() error { return c.source.Close() }

// ReadAt is Source.ReadAt.
func (c *Checkpoint) ReadAt(ctx context.Context, file int, p []byte, off int64) error {
	return c.source.ReadAt(ctx, file, p, off)
}

// Open reads the headers of a checkpoint: a Hugging Face directory, or the path of one .safetensors file, which then stands for the
// weights of the directory it lies in. No weight is read unless options ask for it.
func Open(ctx context.Context, path string, o OpenOptions) (*Checkpoint, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, err)
	}
	dir, names, index, err := weightFiles(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Manifest: &Manifest{Version: ManifestVersion, Files: []File{}, Tensors: []Tensor{}}}
	if c.Config, err = readConfig(dir); err != nil {
		return nil, err
	}
	conf, err := parseConfig(filepath.Join(dir, ConfigName), c.Config)
	if err != nil {
		return nil, err
	}
	if c.source, err = c.Manifest.readFiles(ctx, dir, names, o.HashSource); err != nil {
		return nil, err
	}
	if err := c.Manifest.complete(ctx, dir, index, conf); err != nil {
		return nil, errors.Join(err, c.source.Close())
	}
	return c, nil
}

// complete derives the rest of a manifest from its tensors.
func (m *Manifest) complete(ctx context.Context, dir string, index *Index, conf *config) error {
	if index != nil {
		if err := m.checkIndex(dir, index); err != nil {
			return err
		}
	}
	if err := m.classify(conf); err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	var err error
	if m.Extras, m.Skipped, err = listExtras(ctx, dir, m.Files); err != nil {
		return err
	}
	if err := m.finish(); err != nil {
		return fmt.Errorf("open %s: %w; report this checkpoint", dir, err)
	}
	return nil
}

// weightFiles finds the files of weights. index is nil when there is none.
func weightFiles(path string) (dir string, names []string, index *Index, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil, fmt.Errorf("open checkpoint %s: %w: %w; give a directory with %s or %s",
			path, ErrMissing, fs.ErrNotExist, WeightsName, IndexName)
	}
	if err != nil {
		return "", nil, nil, fmt.Errorf("open checkpoint: %w; give a directory with %s or %s", err, WeightsName, IndexName)
	}
	if !info.IsDir() {
		dir, name := filepath.Split(path)
		switch {
		case name == IndexName:
			path = filepath.Clean(dir)
		case strings.HasSuffix(name, ".safetensors"):
			return filepath.Clean(dir), []string{name}, nil, nil
		default:
			return "", nil, nil, fmt.Errorf("open checkpoint %s: %w: neither a directory nor a .safetensors file; convert it to safetensors first",
				path, ErrUnsupported)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", nil, nil, fmt.Errorf("open checkpoint: %w; check the path and its permissions", err)
	}
	hasIndex := false
	for _, e := range entries {
		hasIndex = hasIndex || e.Name() == IndexName
		if strings.HasSuffix(e.Name(), ".safetensors") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if hasIndex {
		index, err = readIndex(path)
		if err != nil {
			return "", nil, nil, err
		}
		if used := index.Files(); !slices.Contains(used, WeightsName) && slices.Contains(names, WeightsName) {
			return "", nil, nil, fmt.Errorf("open checkpoint %s: %w: both %s and %s, which does not list it; remove the one that is not the model",
				path, ErrDuplicate, WeightsName, IndexName)
		}
		return path, index.Files(), index, nil
	}
	switch {
	case slices.Contains(names, WeightsName):
		return path, []string{WeightsName}, nil, nil
	case len(names) == 1:
		return path, names, nil, nil
	case len(names) == 0:
		return "", nil, nil, fmt.Errorf("open checkpoint %s: %w: no %s, no %s and no other .safetensors file; download the weights, or convert them to safetensors",
			path, ErrMissing, WeightsName, IndexName)
	}
	return "", nil, nil, fmt.Errorf("open checkpoint %s: %w: %d .safetensors files (%s, %s, ...) and no %s that says which belong together; add it or give the path of one file",
		path, ErrMissing, len(names), names[0], names[1], IndexName)
}

func readIndex(dir string) (*Index, error) {
	path := filepath.Join(dir, IndexName)
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	return ParseIndex(b, path)
}

func readConfig(dir string) (json.RawMessage, error) {
	b, err := readSmall(filepath.Join(dir, ConfigName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// readSmall reads a JSON file whole, within the limit that headers have.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > MaxHeader {
		return nil, fmt.Errorf("open checkpoint: %s: %w: not a regular file of at most %d bytes; download it again", path, ErrMalformed, MaxHeader)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	return b, nil
}

// readFiles reads the headers of the weight files and gathers their tensors.
func (m *Manifest) readFiles(ctx context.Context, dir string, names []string, content bool) (*Source, error) {
	m.byName = map[string]int{}
	var stats []stat
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, h, err := describePath(ctx, dir, name, content)
		if err != nil {
			return nil, err
		}
		for _, t := range h.Tensors {
			if j, ok := m.byName[t.Name]; ok {
				return nil, fmt.Errorf("open checkpoint %s: %w tensor %q: in %s and in %s; keep one of them",
					dir, ErrDuplicate, t.Name, m.Files[m.Tensors[j].File].Name, name)
			}
			t.File = i
			m.byName[t.Name] = len(m.Tensors)
			m.Tensors = append(m.Tensors, t)
		}
		m.Files = append(m.Files, d.file)
		stats = append(stats, d.stat)
	}
	if len(m.Tensors) == 0 {
		return nil, fmt.Errorf("open checkpoint %s: %w: no tensor in %s; download the weights again", dir, ErrMissing, strings.Join(names, ", "))
	}
	s := newSource(dir, m.Files)
	for i := range stats {
		s.files[i].stat = stats[i]
	}
	return s, nil
}

func describePath(ctx context.Context, dir, name string, content bool) (described, *Header, error) {
	path := filepath.Join(dir, name)
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return described{}, nil, fmt.Errorf("open checkpoint %s: %w shard %s, which %s lists; download it", dir, ErrMissing, name, IndexName)
	}
	if err != nil {
		return described{}, nil, fmt.Errorf("open checkpoint: %w; check the file and its permissions", err)
	}
	defer f.Close()
	d, h, err := describe(ctx, f, path, content)
	d.file.Name = name
	return d, h, err
}

// checkIndex compares an index with the headers. Tensors that the index leaves out are used all the same, as transformers and engines
// do: they load whole files.
func (m *Manifest) checkIndex(dir string, x *Index) error {
	for _, e := range x.Entries {
		t, ok := m.Tensor(e.Tensor)
		if !ok {
			return fmt.Errorf("open checkpoint %s: %w tensor %q: %s puts it into %s, which does not hold it; download both again",
				dir, ErrMissing, e.Tensor, IndexName, e.File)
		}
		if have := m.Files[t.File].Name; have != e.File {
			return fmt.Errorf("open checkpoint %s: %w: tensor %q is in %s, %s puts it into %s; download the index and both files again",
				dir, ErrMalformed, e.Tensor, have, IndexName, e.File)
		}
	}
	return nil
}
