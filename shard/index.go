package shard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Names that the Hugging Face layout gives the files of a checkpoint.
const (
	ConfigName  = "config.json"
	WeightsName = "model.safetensors"
	IndexName   = "model.safetensors.index.json"
)

// Index is the content of model.safetensors.index.json: which file holds which tensor.
type Index struct {
	TotalSize int64        // bytes of all tensors, -1 when the file does not give a whole number
	Entries   []IndexEntry // in the order of the file
}

// IndexEntry names the file of one tensor.
type IndexEntry struct{ Tensor, File string }

// ParseIndex checks an index; name stands in errors.
func ParseIndex(b []byte, name string) (*Index, error) {
	x := &Index{TotalSize: -1}
	s := &scanner{file: name, text: b}
	found := false
	err := s.object(func(key string) error {
		switch key {
		case "metadata":
			return x.metadata(s)
		case "weight_map":
			found = true
			return x.weightMap(s)
		}
		_, err := s.skip()
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if !found || len(x.Entries) == 0 {
		return nil, fmt.Errorf("parse %s: no tensor in \"weight_map\": %w; download the file again", name, ErrMalformed)
	}
	return x, nil
}

func (x *Index) metadata(s *scanner) error {
	if s.peek() != '{' {
		_, err := s.skip()
		return err
	}
	return s.object(func(key string) error {
		raw, err := s.skip()
		if err != nil || key != "total_size" {
			return err
		}
		// Some tools write this as a float or a string; nothing depends on it, so only a plain number counts.
		if n, err := (&scanner{text: raw}).integer(); err == nil {
			x.TotalSize = n
		}
		return nil
	})
}

func (x *Index) weightMap(s *scanner) error {
	return s.object(func(tensor string) error {
		if problem := nameProblem(tensor); problem != "" {
			return fmt.Errorf("parse %s: tensor %q: name %s: %w; download the file again", s.file, tensor, problem, ErrMalformed)
		}
		file, err := s.str()
		if err != nil {
			return err
		}
		if problem := fileNameProblem(file); problem != "" {
			return fmt.Errorf("parse %s: tensor %q: file %q: name %s: %w; shards must lie beside the index", s.file, tensor, file, problem, ErrMalformed)
		}
		x.Entries = append(x.Entries, IndexEntry{Tensor: tensor, File: file})
		return nil
	})
}

// Files returns the names of the files, sorted.
func (x *Index) Files() []string {
	files := make([]string, 0, len(x.Entries))
	for _, e := range x.Entries {
		files = append(files, e.File)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// MarshalIndex returns the canonical bytes of an index: tensors sorted by name, two spaces of indent, a final newline. totalSize is the
// sum of the bytes of all tensors, headers not counted.
func MarshalIndex(weightMap map[string]string, totalSize int64) ([]byte, error) {
	type metadata struct {
		TotalSize int64 `json:"total_size"`
	}
	// encoding/json sorts the keys of maps, so the order of the map does not matter.
	return marshal(struct {
		Metadata  metadata          `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}{metadata{totalSize}, weightMap}, "  ")
}

// marshal encodes v with characters left as they are and a final newline.
func marshal(v any, indent string) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return out.Bytes(), nil
}

// fileNameProblem says why a name from a file may not be opened, "" for nothing. Only plain names inside the directory may.
func fileNameProblem(name string) string {
	if problem := nameProblem(name); problem != "" {
		return problem
	}
	if strings.ContainsAny(name, `/\`) || !filepath.IsLocal(name) || name == "." {
		return "is not a plain file name"
	}
	return ""
}
