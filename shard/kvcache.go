package shard

import "fmt"

// KVCache says how an engine is to keep the keys and values of attention, with scales that it finds as it runs. It changes no tensor.
type KVCache struct {
	Bits     int
	Type     string // "int" or "float"
	Strategy string // StrategyTensor, "token" or StrategyGroup
	Group    int64  // columns that share a scale, with StrategyGroup
}

// args says it in compressed-tensors' words (formats.md 2.1).
func (k *KVCache) args(f Format) (*quantArgs, error) {
	if k == nil {
		return nil, nil
	}
	if !f.CompressedTensors() {
		return nil, fmt.Errorf("describe quantization: a cache of keys and values of %d bits: %w by format %s, only by compressed-tensors'", k.Bits, ErrUnsupported, f)
	}
	a := &quantArgs{Bits: k.Bits, Type: k.Type, Symmetric: true, Strategy: k.Strategy, Dynamic: true}
	if k.Strategy == StrategyGroup {
		a.GroupSize = &k.Group
	}
	return a, nil
}
