package model

// mistral is Mistral 7B and its successors (Jiang et al., 2023): Llama with a window over which all blocks look back. A
// config.json without the key means the first model's window.
func mistral() family {
	return family{
		modelType: "mistral", names: llamaNames(), context: 131072,
		window: func(f *fields, windows []int) error {
			width := 4096
			if _, ok := f.m["sliding_window"]; ok {
				width = f.size("sliding_window", 0)
			}
			for i := range windows {
				windows[i] = width
			}
			return nil
		},
	}
}
