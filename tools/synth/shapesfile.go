package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/shardpress/shardpress/shard"
)

// maxShapesBytes bounds the unpacked list; that of a mixture of a trillion parameters takes 20 MB.
const maxShapesBytes = 256 << 20

// readShapes reads {"tensors": [[name, dtype, shape], ...]}, plain or in gzip.
func readShapes(path string) ([]shard.TensorSpec, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read shapes: %w", err)
	}
	defer file.Close()
	buffered := bufio.NewReader(file)
	var source io.Reader = buffered
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("unpack shapes %s: %w", path, err)
		}
		source = unpacked
	}
	var list struct {
		Tensors [][3]json.RawMessage `json:"tensors"`
	}
	if err := json.NewDecoder(io.LimitReader(source, maxShapesBytes)).Decode(&list); err != nil {
		return nil, fmt.Errorf("parse shapes %s: %w", path, err)
	}
	tensors := make([]shard.TensorSpec, len(list.Tensors))
	seen := make(map[string]bool, len(list.Tensors))
	for i, entry := range list.Tensors {
		t := &tensors[i]
		for j, into := range []any{&t.Name, &t.DType, &t.Shape} {
			if err := json.Unmarshal(entry[j], into); err != nil {
				return nil, fmt.Errorf("parse shapes %s: tensor %d: %w", path, i, err)
			}
		}
		if t.Name == "" || seen[t.Name] {
			return nil, fmt.Errorf("check shapes %s: tensor %d: name %q is empty or stands there twice", path, i, t.Name)
		}
		seen[t.Name] = true
	}
	if len(tensors) == 0 {
		return nil, fmt.Errorf("check shapes %s: it lists no tensors", path)
	}
	return tensors, nil
}

// keepBlocks drops the tensors of blocks from the given number on.
func keepBlocks(tensors []shard.TensorSpec, blocks int) []shard.TensorSpec {
	var kept []shard.TensorSpec
	for _, t := range tensors {
		if block, ok := blockOf(t.Name); !ok || block < blocks {
			kept = append(kept, t)
		}
	}
	return kept
}

// blockOf finds the number of the block in a name such as model.layers.12.mlp.up_proj.weight.
func blockOf(name string) (int, bool) {
	_, rest, found := strings.Cut(name, "layers.")
	if !found {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, ".")
	block, err := strconv.Atoi(digits)
	return block, err == nil
}
