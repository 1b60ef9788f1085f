package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
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
		total += f.Layout.Data
	}
	if len(files) > 1 {
		index, err := indexOf(files, total)
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, shard.IndexName), index, 0o666); err != nil {
			return 0, fmt.Errorf("write index: %w", err)
		}
	}
	// Last, so that a directory with a config.json is a whole one.
	if err := os.WriteFile(filepath.Join(dir, shard.ConfigName), config, 0o666); err != nil {
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
	writer, err := shard.NewWriter(file, f.Layout)
	if err != nil {
		return err
	}
	for _, t := range f.Layout.Tensors {
		if err := writeTensor(ctx, writer, t, made, chunk); err != nil {
			return err
		}
	}
	return writer.Close()
}

func writeTensor(ctx context.Context, writer *shard.Writer, t shard.TensorSpec, made palettes, chunk []byte) error {
	if err := writer.Begin(t.Name); err != nil {
		return err
	}
	dtype, err := tensor.ParseDType(string(t.DType))
	if err != nil {
		return fmt.Errorf("write tensor %s: %w", t.Name, err)
	}
	values, g := made.of(kindOf(t), dtype), seed(t.Name)
	left, _ := t.Bytes() // checked when the files were divided
	for left > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write tensor %s: %w", t.Name, err)
		}
		part := chunk[:min(left, chunkBytes)]
		values.fill(part, &g)
		if _, err := writer.Write(part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	return nil
}

// indexOf says which file holds each tensor.
func indexOf(files []fileSpec, total int64) ([]byte, error) {
	places := map[string]string{}
	for _, f := range files {
		for _, t := range f.Layout.Tensors {
			places[t.Name] = f.Name
		}
	}
	text, err := shard.MarshalIndex(places, total)
	if err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	return text, nil
}
