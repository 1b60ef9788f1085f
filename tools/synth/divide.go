package main

import (
	"fmt"
	"math"

	"github.com/shardpress/shardpress/internal/tensor"
)

// maxTensorBytes keeps offsets far away from the ends of int64 and of what JSON readers take for a number.
const maxTensorBytes = 1 << 45

// fileSpec is one file of the checkpoint.
type fileSpec struct {
	Name    string
	Tensors []placed
	Bytes   int64 // of tensor data
}

// placed is a tensor with its place in the data of its file.
type placed struct {
	tensorSpec
	dtype      tensor.DType
	begin, end int64
}

// divide puts the tensors into files in order, each at most limit bytes unless one tensor alone is larger.
func divide(tensors []tensorSpec, limit int64) ([]fileSpec, error) {
	var files []fileSpec
	var current fileSpec
	for _, t := range tensors {
		dtype, size, err := sizeOf(t)
		if err != nil {
			return nil, err
		}
		if len(current.Tensors) > 0 && current.Bytes+size > limit {
			files = append(files, current)
			current = fileSpec{}
		}
		current.Tensors = append(current.Tensors, placed{tensorSpec: t, dtype: dtype, begin: current.Bytes, end: current.Bytes + size})
		current.Bytes += size
	}
	if len(current.Tensors) > 0 {
		files = append(files, current)
	}
	for i := range files {
		files[i].Name = "model.safetensors"
		if len(files) > 1 {
			files[i].Name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(files))
		}
	}
	return files, nil
}

func sizeOf(t tensorSpec) (tensor.DType, int64, error) {
	dtype, err := tensor.ParseDType(t.DType)
	if err != nil {
		return 0, 0, fmt.Errorf("size tensor %s: %w", t.Name, err)
	}
	if !fillable(dtype) {
		return 0, 0, fmt.Errorf("size tensor %s: no weights can be made up in %s", t.Name, t.DType)
	}
	size := int64(dtype.Size())
	for _, n := range t.Shape {
		if n < 0 || n > 0 && size > math.MaxInt64/n || size*n > maxTensorBytes {
			return 0, 0, fmt.Errorf("size tensor %s: shape %v is negative or too large", t.Name, t.Shape)
		}
		size *= n
	}
	return dtype, size, nil
}
