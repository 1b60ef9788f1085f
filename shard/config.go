package shard

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// config gives the few fields of config.json that matter here. Everything else in it is carried over by its bytes.
type config struct {
	file string
	top  map[string]json.RawMessage
	text map[string]json.RawMessage // of the language model inside a multimodal one; nil for none
}

// parseConfig accepts an empty raw, for a checkpoint without config.json.
func parseConfig(file string, raw []byte) (*config, error) {
	c := &config{file: file}
	if len(raw) == 0 {
		return c, nil
	}
	var err error
	if c.top, err = members(file, raw); err != nil {
		return nil, err
	}
	for _, key := range []string{"text_config", "llm_config", "language_config"} {
		if text := c.top[key]; len(text) > 0 && text[0] == '{' {
			c.text, err = members(file, text)
			return c, err
		}
	}
	return c, nil
}

// members splits an object into its members.
func members(file string, raw []byte) (map[string]json.RawMessage, error) {
	s := &scanner{file: file, text: raw, python: true}
	m := map[string]json.RawMessage{}
	err := s.object(func(key string) error {
		value, err := s.skip()
		m[key] = value
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, s.end()
}

// field finds the first of the keys that is present and not null, in the language model's part before the rest.
func (c *config) field(keys ...string) (string, json.RawMessage) {
	for _, m := range []map[string]json.RawMessage{c.text, c.top} {
		for _, key := range keys {
			if raw, ok := m[key]; ok && string(raw) != "null" {
				return key, raw
			}
		}
	}
	return "", nil
}

// integer returns 0 when none of the keys is present.
func (c *config) integer(keys ...string) (int64, error) {
	key, raw := c.field(keys...)
	if raw == nil {
		return 0, nil
	}
	s := &scanner{file: c.file, text: raw}
	n, err := s.integer()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %q is %.40s, want a whole number: %w; correct it", c.file, key, raw, ErrMalformed)
	}
	return n, nil
}

// str returns "" when none of the keys is present.
func (c *config) str(keys ...string) (string, error) {
	key, raw := c.field(keys...)
	if raw == nil {
		return "", nil
	}
	s := &scanner{file: c.file, text: raw}
	v, err := s.str()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %q is %.40s, want a string: %w; correct it", c.file, key, raw, ErrMalformed)
	}
	return v, nil
}

// flag returns whether the first of the keys that is present is true.
func (c *config) flag(keys ...string) (value, present bool) {
	_, raw := c.field(keys...)
	return string(raw) == "true", raw != nil
}

// quantization returns the quant_method of a checkpoint that is quantized already and the rows and columns of an FP8 block.
func (c *config) quantization() (method string, block [2]int64, err error) {
	_, raw := c.field("quantization_config")
	if raw == nil || raw[0] != '{' {
		return "", block, nil
	}
	q := &config{file: c.file}
	if q.top, err = members(c.file, raw); err != nil {
		return "", block, err
	}
	if method, err = q.str("quant_method", "quant_algo"); err != nil {
		return "", block, err
	}
	if method == "" {
		method = "unknown"
	}
	if block, err = q.blockSize("weight_block_size"); err != nil || block != [2]int64{} {
		return method, block, err
	}
	block, err = q.groupBlock()
	return method, block, err
}

// blockSize reads rows and columns of a tile, zero if key is absent or null.
func (c *config) blockSize(key string) (block [2]int64, err error) {
	_, raw := c.field(key)
	if raw == nil || string(raw) == "null" {
		return block, nil
	}
	var sizes []int64
	s := &scanner{file: c.file, text: raw}
	if err = s.integers(&sizes, 2); err != nil {
		return block, err
	}
	if len(sizes) != 2 || sizes[0] < 1 || sizes[1] < 1 {
		return block, fmt.Errorf("read %s: %q is %.40s, want two positive numbers: %w; correct it", c.file, key, raw, ErrMalformed)
	}
	return [2]int64{sizes[0], sizes[1]}, nil
}

// groupBlock is the block_structure of compressed-tensors' groups (formats.md 2.1), zero where they have none or several.
func (c *config) groupBlock() (block [2]int64, err error) {
	_, raw := c.field("config_groups")
	groups, err := c.inner(raw)
	if err != nil || groups == nil {
		return block, err
	}
	for _, key := range slices.Sorted(maps.Keys(groups.top)) {
		group, err := groups.inner(groups.top[key])
		if err != nil {
			return [2]int64{}, err
		}
		if group == nil {
			continue
		}
		weights, err := group.inner(group.top["weights"])
		if err != nil {
			return [2]int64{}, err
		}
		if weights == nil {
			continue
		}
		b, err := weights.blockSize("block_structure")
		if err != nil {
			return [2]int64{}, err
		}
		if b != [2]int64{} && block != [2]int64{} && b != block {
			return [2]int64{}, nil
		}
		if b != [2]int64{} {
			block = b
		}
	}
	return block, nil
}

// inner reads an object inside of the config, nil if raw is none.
func (c *config) inner(raw json.RawMessage) (*config, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return nil, nil
	}
	top, err := members(c.file, raw)
	if err != nil {
		return nil, err
	}
	return &config{file: c.file, top: top}, nil
}

// dtype returns the element type that the model is meant to be loaded in, "" when config.json does not say.
func (c *config) dtype() DType {
	name, err := c.str("dtype", "torch_dtype")
	if err != nil {
		return ""
	}
	switch name {
	case "bfloat16", "torch.bfloat16":
		return BF16
	case "float16", "half", "torch.float16":
		return F16
	case "float32", "float", "torch.float32":
		return F32
	}
	return ""
}
