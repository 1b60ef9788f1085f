package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// chunkBytes is how much is drawn before it is written: a multiple of every step, small enough for the cache.
const chunkBytes = 256 << 10

// writeCheckpoint writes the files, the index when there is more than one, and the config; it returns the bytes of tensor data.
func writeCheckpoint(ctx context.Context, dir string, files []fileSpec, config []byte) (int64, error) {
	made := palettes{}
	chunk := make([]byte, chunkBytes)
	var total int64
	for _, f := range files {
		if err := writeFile(ctx, filepath.Join(dir, f.Name), f, made, chunk); err != nil {
			return 0, err
		}
		total += f.Bytes
	}
	if len(files) > 1 {
		index, err := indexOf(files, total)
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), index, 0o666); err != nil {
			return 0, fmt.Errorf("write index: %w", err)
		}
	}
	// Last, so that a directory with a config.json is a whole one.
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
		return 0, fmt.Errorf("write config: %w", err)
	}
	return total, nil
}

func writeFile(ctx context.Context, path string, f fileSpec, made palettes, chunk []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer func() {
		if closing := file.Close(); err == nil && closing != nil {
			err = fmt.Errorf("close file: %w", closing)
		}
	}()
	header, err := headerOf(f)
	if err != nil {
		return err
	}
	if _, err := file.Write(header); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	for _, t := range f.Tensors {
		values, g := made.of(kindOf(t), t.dtype), seed(t.Name)
		for left := t.end - t.begin; left > 0; {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("write tensor %s: %w", t.Name, err)
			}
			part := chunk[:min(left, chunkBytes)]
			values.fill(part, &g)
			if _, err := file.Write(part); err != nil {
				return fmt.Errorf("write tensor %s: %w", t.Name, err)
			}
			left -= int64(len(part))
		}
	}
	return nil
}

// headerOf makes the start of a safetensors file: the length of the header as a little-endian uint64, and the header, filled up with
// spaces so that the data starts on a multiple of eight.
func headerOf(f fileSpec) ([]byte, error) {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	entries := map[string]any{"__metadata__": map[string]string{"format": "pt"}} // some readers refuse a file without it
	for _, t := range f.Tensors {
		shape := t.Shape
		if shape == nil {
			shape = []int64{} // a scalar
		}
		entries[t.Name] = entry{DType: t.DType, Shape: shape, Offsets: [2]int64{t.begin, t.end}}
	}
	text, err := json.Marshal(entries)
	if err != nil {
		return nil, fmt.Errorf("write header of %s: %w", f.Name, err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), nil
}

// indexOf says which file holds each tensor.
func indexOf(files []fileSpec, total int64) ([]byte, error) {
	places := map[string]string{}
	for _, f := range files {
		for _, t := range f.Tensors {
			places[t.Name] = f.Name
		}
	}
	text, err := json.MarshalIndent(map[string]any{"metadata": map[string]int64{"total_size": total}, "weight_map": places}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	return append(text, '\n'), nil
}
