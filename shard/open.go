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
	// Location is what errors and Checkpoint.Location call the place, for OpenBucket. It must hold no credentials.
	Location string
	// File is the one weight file of the checkpoint, for OpenBucket; "" finds them as Open does in a directory.
	File string
}

// Checkpoint is an opened checkpoint: what it holds, and the means to read it.
type Checkpoint struct {
	Manifest *Manifest
	Config   json.RawMessage // the bytes of config.json, nil when there is none; may hold Python's NaN and Infinity
	source   *Source
}

// Source gives access to the weights.
func (c *Checkpoint) Source() *Source { return c.source }

// Location says where the checkpoint is: the absolute path of its directory, or what the opener of another place called it.
func (c *Checkpoint) Location() string { return c.source.Location() }

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
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open checkpoint %s: %w: %w; give a directory with %s or %s", path, ErrMissing, fs.ErrNotExist, WeightsName, IndexName)
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w; give a directory with %s or %s", err, WeightsName, IndexName)
	}
	only := ""
	if !info.IsDir() {
		dir, name := filepath.Split(path)
		switch {
		case name == IndexName:
		case strings.HasSuffix(name, ".safetensors"):
			only = name
		default:
			return nil, fmt.Errorf("open checkpoint %s: %w: neither a directory nor a .safetensors file; convert it to safetensors first",
				path, ErrUnsupported)
		}
		path = filepath.Clean(dir)
	}
	return openPlace(ctx, newDirectory(path), only, o)
}

// openPlace reads the headers of the checkpoint in a place, or of the one weight file of it that is named.
func openPlace(ctx context.Context, p place, only string, o OpenOptions) (_ *Checkpoint, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	entries, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	names, index, err := weightFiles(ctx, p, entries, only)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Manifest: &Manifest{Version: ManifestVersion, Files: []File{}, Tensors: []Tensor{}}}
	c.Config, err = readSmall(ctx, p, entries, ConfigName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conf, err := parseConfig(p.where(ConfigName), c.Config)
	if err != nil {
		return nil, err
	}
	if err := c.Manifest.readFiles(ctx, p, names, o.HashSource); err != nil {
		return nil, err
	}
	if err := c.Manifest.complete(ctx, p, entries, index, conf); err != nil {
		return nil, err
	}
	c.source = newSource(p, c.Manifest.Files)
	return c, nil
}

// complete derives the rest of a manifest from its tensors.
func (m *Manifest) complete(ctx context.Context, p place, entries []entry, index *Index, conf *config) error {
	if index != nil {
		if err := m.checkIndex(p.where(""), index); err != nil {
			return err
		}
	}
	if err := m.classify(conf); err != nil {
		return fmt.Errorf("open %s: %w", p.where(""), err)
	}
	var err error
	if m.Extras, m.Skipped, err = listExtras(ctx, p, entries, m.Files); err != nil {
		return err
	}
	if err := m.finish(); err != nil {
		return fmt.Errorf("open %s: %w; report this checkpoint", p.where(""), err)
	}
	return nil
}

// weightFiles finds the files of weights. index is nil when there is none.
func weightFiles(ctx context.Context, p place, entries []entry, only string) (names []string, index *Index, err error) {
	if only != "" {
		return []string{only}, nil, nil
	}
	hasIndex := false
	for _, e := range entries {
		hasIndex = hasIndex || e.name == IndexName
		if strings.HasSuffix(e.name, ".safetensors") && !strings.HasPrefix(e.name, ".") {
			names = append(names, e.name)
		}
	}
	if hasIndex {
		b, err := readSmall(ctx, p, entries, IndexName)
		if err != nil {
			return nil, nil, err
		}
		if index, err = ParseIndex(b, p.where(IndexName)); err != nil {
			return nil, nil, err
		}
		if used := index.Files(); !slices.Contains(used, WeightsName) && slices.Contains(names, WeightsName) {
			return nil, nil, fmt.Errorf("open checkpoint %s: %w: both %s and %s, which does not list it; remove the one that is not the model",
				p.where(""), ErrDuplicate, WeightsName, IndexName)
		}
		return index.Files(), index, nil
	}
	switch {
	case slices.Contains(names, WeightsName):
		return []string{WeightsName}, nil, nil
	case len(names) == 1:
		return names, nil, nil
	case len(names) == 0:
		return nil, nil, fmt.Errorf("open checkpoint %s: %w: no %s, no %s and no other .safetensors file; download the weights, or convert them to safetensors",
			p.where(""), ErrMissing, WeightsName, IndexName)
	}
	return nil, nil, fmt.Errorf("open checkpoint %s: %w: %d .safetensors files (%s, %s, ...) and no %s that says which belong together; add it or give the path of one file",
		p.where(""), ErrMissing, len(names), names[0], names[1], IndexName)
}

// readFiles reads the headers of the weight files and gathers their tensors.
func (m *Manifest) readFiles(ctx context.Context, p place, names []string, content bool) error {
	m.byName = map[string]int{}
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, h, err := p.describe(ctx, name, content)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open checkpoint %s: %w shard %s, which %s lists; download it", p.where(""), ErrMissing, name, IndexName)
		}
		if err != nil {
			return err
		}
		for _, t := range h.Tensors {
			if j, ok := m.byName[t.Name]; ok {
				return fmt.Errorf("open checkpoint %s: %w tensor %q: in %s and in %s; keep one of them",
					p.where(""), ErrDuplicate, t.Name, m.Files[m.Tensors[j].File].Name, name)
			}
			t.File = i
			m.byName[t.Name] = len(m.Tensors)
			m.Tensors = append(m.Tensors, t)
		}
		m.Files = append(m.Files, f)
	}
	if len(m.Tensors) == 0 {
		return fmt.Errorf("open checkpoint %s: %w: no tensor in %s; download the weights again", p.where(""), ErrMissing, strings.Join(names, ", "))
	}
	return nil
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
