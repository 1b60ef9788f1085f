package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// MaxExtra is the size up to which files that hold no weights are carried over. The largest tokenizers have half of it.
const MaxExtra = 64 << 20

// listExtras describes the files of a place other than the weights in use, in the order of names.
func listExtras(ctx context.Context, p place, entries []entry, used []File) ([]Extra, []Skipped, error) {
	extras, skipped := []Extra{}, []Skipped{}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if e.name == ConfigName || e.name == IndexName || slices.ContainsFunc(used, func(f File) bool { return f.Name == e.name }) {
			continue
		}
		reason := "cannot be read"
		if e.err == nil {
			reason = skipReason(e)
		}
		if reason != "" {
			skipped = append(skipped, Skipped{Name: strings.ToValidUTF8(e.name, "\uFFFD"), Reason: reason})
			continue
		}
		b, err := readExtra(ctx, p, e.name)
		if err != nil {
			return nil, nil, err
		}
		sum := sha256.Sum256(b)
		extras = append(extras, Extra{Name: e.name, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(skipped, func(a, b Skipped) int { return strings.Compare(a.Name, b.Name) })
	skipped = slices.CompactFunc(skipped, func(a, b Skipped) bool { return a.Name == b.Name })
	return extras, skipped, nil
}

// skipReason says why a file is not carried over, "" when it is.
func skipReason(e entry) string {
	name, lower := e.name, strings.ToLower(e.name)
	switch {
	case strings.HasPrefix(name, "."):
		return "hidden"
	case e.dir:
		return "directory"
	case !e.regular:
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
	if e.size > MaxExtra {
		return fmt.Sprintf("larger than %d bytes", int64(MaxExtra))
	}
	return ""
}

// readExtra reads a file that may have grown past the limit meanwhile.
func readExtra(ctx context.Context, p place, name string) ([]byte, error) {
	b, err := readLimited(ctx, p, name, MaxExtra)
	if err != nil {
		return nil, fmt.Errorf("read extra file: %w; make it readable or move it away", err)
	}
	return b, nil
}

// ReadExtra returns the bytes of a file that is carried over, and refuses them when they are no longer those of the manifest.
func (s *Source) ReadExtra(ctx context.Context, e Extra) ([]byte, error) {
	r, err := s.OpenExtra(ctx, e)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// OpenExtra opens a file that is carried over. Reading it to its end gives ErrSourceChanged in place of the end if its bytes are no longer those
// of the manifest.
func (s *Source) OpenExtra(ctx context.Context, e Extra) (io.ReadCloser, error) {
	if problem := fileNameProblem(e.Name); problem != "" {
		return nil, fmt.Errorf("read extra file %q: name %s: %w", e.Name, problem, ErrMalformed)
	}
	r, err := s.place.open(ctx, e.Name)
	if err != nil {
		return nil, fmt.Errorf("read extra file: %w; restore it and run again", err)
	}
	return &extraReader{file: r, place: s.place, extra: e, sum: sha256.New()}, nil
}

// OpenExtra is Source.OpenExtra.
func (c *Checkpoint) OpenExtra(ctx context.Context, e Extra) (io.ReadCloser, error) {
	return c.source.OpenExtra(ctx, e)
}

// extraReader compares what it gives with the manifest.
type extraReader struct {
	file  io.ReadCloser
	place place
	extra Extra
	n     int64
	sum   hash.Hash
}

func (r *extraReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.n += int64(n)
	r.sum.Write(p[:n])
	if r.n > r.extra.Size || errors.Is(err, io.EOF) && (r.n != r.extra.Size || hex.EncodeToString(r.sum.Sum(nil)) != r.extra.SHA256) {
		return 0, fmt.Errorf("read %s: %w since it was described; run again to use what it holds now", r.place.where(r.extra.Name), ErrSourceChanged)
	}
	return n, err
}

func (r *extraReader) Close() error { return r.file.Close() }
