package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/shardpress/shardpress/shard"
)

// keepExperts drops the experts of each mixture from the given number on, and their rows of the router.
func keepExperts(tensors []shard.TensorSpec, experts int) []shard.TensorSpec {
	var kept []shard.TensorSpec
	for _, t := range tensors {
		if _, rest, ok := strings.Cut(t.Name, ".experts."); ok {
			digits, _, _ := strings.Cut(rest, ".")
			if n, err := strconv.Atoi(digits); err == nil && n >= experts {
				continue
			}
		}
		kept = append(kept, t)
	}
	return cutRows(kept, experts, "mlp.gate.weight", "mlp.gate.e_score_correction_bias", "block_sparse_moe.gate.weight")
}

// cutRows keeps the first rows of the tensors whose names end in one of the suffixes.
func cutRows(tensors []shard.TensorSpec, rows int, suffixes ...string) []shard.TensorSpec {
	for i, t := range tensors {
		for _, suffix := range suffixes {
			if strings.HasSuffix(t.Name, suffix) && len(t.Shape) > 0 && t.Shape[0] > int64(rows) {
				tensors[i].Shape = slices.Clone(t.Shape)
				tensors[i].Shape[0] = int64(rows)
			}
		}
	}
	return tensors
}

// replace returns the config with those of the keys that it has set to n.
func replace(text []byte, n int, keys ...string) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return nil, err
	}
	for _, key := range keys {
		if _, ok := fields[key]; ok {
			fields[key] = n
		}
	}
	adjusted, err := json.MarshalIndent(fields, "", "  ")
	return append(adjusted, '\n'), err
}
