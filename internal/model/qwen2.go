package model

import (
	"fmt"

	"github.com/shardpress/shardpress/shard"
)

// qwen2 is Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases where queries, keys and values are made.
func qwen2() family {
	n := llamaNames()
	return family{
		modelType: "qwen2", names: n, context: 32768,
		biases: []string{n.query, n.key, n.value},
		window: qwenWindow,
	}
}

// qwenWindow confines the blocks that layer_types calls sliding_attention, or those from max_window_layers on, if use_sliding_window
// says that any are.
func qwenWindow(f *fields, windows []int) error {
	if !f.flag("use_sliding_window") {
		return nil
	}
	width := 4096
	if _, ok := f.m["sliding_window"]; ok {
		width = f.size("sliding_window", 0)
	}
	types := get(f, "layer_types", []string(nil), "a list of strings")
	if types != nil && len(types) != len(windows) {
		return fmt.Errorf("%s: layer_types has %d entries for %d blocks: %w", shard.ConfigName, len(types), len(windows), ErrConfig)
	}
	full := get(f, "max_window_layers", 28, "a whole number")
	for i := range windows {
		switch {
		case types == nil && i >= full:
			windows[i] = width
		case types == nil || types[i] == "full_attention":
		case types[i] == "sliding_attention":
			windows[i] = width
		default:
			return fmt.Errorf("%s: block %d has attention of type %q: %w", shard.ConfigName, i, types[i], ErrUnsupported)
		}
	}
	return nil
}
