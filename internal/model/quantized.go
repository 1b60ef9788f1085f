package model

import (
	"maps"
	"slices"
)

// ignored lists what the checkpoint's quantization_config tells engines to do to activations and caches. Nothing here does it: the figures of
// such a model are those of its weights alone, and whoever shows them has to say so.
func ignored(f *fields) []string {
	q := get(f, "quantization_config", map[string]any(nil), "an object")
	var all []string
	if groups, ok := q["config_groups"].(map[string]any); ok {
		for _, name := range slices.Sorted(maps.Keys(groups)) {
			if g, ok := groups[name].(map[string]any); ok && g["input_activations"] != nil {
				all = append(all, "input_activations of "+name)
			}
		}
	}
	for _, key := range []string{"kv_cache_scheme", "activation_scheme"} {
		if q[key] != nil {
			all = append(all, key)
		}
	}
	return all
}
