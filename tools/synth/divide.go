package main

import (
	"fmt"

	"github.com/shardpress/shardpress/internal/tensor"
	"github.com/shardpress/shardpress/shard"
)

// maxTensorBytes keeps sums of offsets far away from the ends of int64 and of what JSON readers take for a number.
const maxTensorBytes = 1 << 45

// fileSpec is one file of the checkpoint.
type fileSpec struct {
	Name   string
	Layout *shard.Layout
}

// divide puts the tensors into files in order, each at most limit bytes of data unless one tensor alone is larger.
func divide(tensors []shard.TensorSpec, limit int64) ([]fileSpec, error) {
	var groups [][]shard.TensorSpec
	var size int64
	for _, t := range tensors {
		n, err := sizeOf(t)
		if err != nil {
			return nil, err
		}
		if len(groups) == 0 || size+n > limit {
			groups, size = append(groups, nil), 0
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], t)
		size += n
	}
	files := make([]fileSpec, len(groups))
	for i, group := range groups {
		files[i].Name = "model.safetensors"
		if len(groups) > 1 {
			files[i].Name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(groups))
		}
		shard.SortSpecs(group)
		layout, err := shard.NewLayout(group, nil)
		if err != nil {
			return nil, fmt.Errorf("lay out %s: %w", files[i].Name, err)
		}
		files[i].Layout = layout
	}
	return files, nil
}

func sizeOf(t shard.TensorSpec) (int64, error) {
	dtype, err := tensor.ParseDType(string(t.DType))
	if err != nil {
		return 0, fmt.Errorf("size tensor %s: %w", t.Name, err)
	}
	if !fillable(dtype) {
		return 0, fmt.Errorf("size tensor %s: no weights can be made up in %s", t.Name, t.DType)
	}
	n, ok := t.Bytes()
	if !ok || n > maxTensorBytes {
		return 0, fmt.Errorf("size tensor %s: shape %v is negative or too large", t.Name, t.Shape)
	}
	return n, nil
}
