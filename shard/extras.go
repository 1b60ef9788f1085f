package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxExtra is the size up to which files that hold no weights are carried over. The largest tokenizers have half of it.
const MaxExtra = 64 << 20

// listExtras describes the files of a directory other than the weights in use, in the order of names.
func listExtras(ctx context.Context, dir string, used []File) ([]Extra, []Skipped, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, nil, fmt.Errorf("open checkpoint: %w; check the path and its permissions", err)
	}
	extras, skipped := []Extra{}, []Skipped{}
	for _, entry := range entries {
		name := entry.Name()
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if name == ConfigName || name == IndexName || slices.ContainsFunc(used, func(f File) bool { return f.Name == name }) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, name)) // follows links, as hub caches need
		reason := "cannot be read"
		if err == nil {
			reason = skipReason(name, info)
		}
		if reason != "" {
			skipped = append(skipped, Skipped{Name: strings.ToValidUTF8(name, "\uFFFD"), Reason: reason})
			continue
		}
		b, err := readExtra(dir, name)
		if err != nil {
			return nil, nil, err
		}
		sum := sha256.Sum256(b)
		extras = append(extras, Extra{Name: name, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(skipped, func(a, b Skipped) int { return strings.Compare(a.Name, b.Name) })
	skipped = slices.CompactFunc(skipped, func(a, b Skipped) bool { return a.Name == b.Name })
	return extras, skipped, nil
}

// skipReason says why a file is not carried over, "" when it is.
func skipReason(name string, info fs.FileInfo) string {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, "."):
		return "hidden"
	case info.IsDir():
		return "directory"
	case !info.Mode().IsRegular():
		return "not a regular file"
	case fileNameProblem(name) != "":
		return "name " + fileNameProblem(name)
	case strings.HasSuffix(lower, ".safetensors"):
		return "safetensors file that the checkpoint does not use"
	case strings.HasSuffix(lower, ".index.json"):
		return "index of weights in another format"
	}
	switch filepath.Ext(lower) {
	case ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".npz", ".npy", ".tflite", ".ot",
		".mlmodel", ".part", ".incomplete", ".lock":
		return "weights in another format or an unfinished download"
	}
	switch lower { // in any case: names in a result have to differ where the file system folds them
	case "quantize_config.json", "quant_config.json", "hf_quant_config.json":
		return "describes the quantization of the source"
	case "manifest.json", "report.json", "unfinished.json":
		return "describes how a result was made, is no part of the model"
	}
	if info.Size() > MaxExtra {
		return fmt.Sprintf("larger than %d bytes", int64(MaxExtra))
	}
	return ""
}

// readExtra reads a file that may have grown past the limit meanwhile.
func readExtra(dir, name string) ([]byte, error) {
	f, err := openRegular(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; make it readable or move it away", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxExtra+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
	}
	if len(b) > MaxExtra {
		return nil, fmt.Errorf("read %s: %w: larger than %d bytes", filepath.Join(dir, name), ErrSourceChanged, int64(MaxExtra))
	}
	return b, nil
}

// ReadExtra returns the bytes of a file that is carried over, and refuses them when they are no longer those of the manifest.
func (s *Source) ReadExtra(ctx context.Context, e Extra) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if problem := fileNameProblem(e.Name); problem != "" {
		return nil, fmt.Errorf("read extra file %q: name %s: %w", e.Name, problem, ErrMalformed)
	}
	b, err := readExtra(s.location, e.Name)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); int64(len(b)) != e.Size || hex.EncodeToString(sum[:]) != e.SHA256 {
		return nil, fmt.Errorf("read %s: %w since it was described; run again to use what it holds now", filepath.Join(s.location, e.Name), ErrSourceChanged)
	}
	return b, nil
}
