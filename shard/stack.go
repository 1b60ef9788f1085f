package shard

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// blockOf splits a tensor name at its first whole-number component: "model.layers.3.mlp.up_proj.weight" is block 3 of the stack
// "model.layers". ok is false for a name without one, or with nothing before it.
func blockOf(name string) (stack string, block int, ok bool) {
	for start := 0; start < len(name); {
		end := strings.IndexByte(name[start:], '.')
		if end < 0 {
			return "", 0, false
		}
		if n, isIndex := index(name[start : start+end]); isIndex && start > 0 {
			return name[:start-1], n, true
		}
		start += end + 1
	}
	return "", 0, false
}

// index reads a component that is a block index in its one canonical spelling.
func index(component string) (int, bool) {
	n, err := strconv.Atoi(component)
	if err != nil || n < 0 || n >= maxBlocks || strconv.Itoa(n) != component {
		return 0, false
	}
	return n, true
}

// findStack chooses the decoder among the numbered stacks of a checkpoint: not a tower for images or sound; if config.json gives the
// number of layers then one that has them all; then the one with the most tensors. blocks is the number of decoder blocks: blocks
// beyond what config.json says are prediction layers (DeepSeek-V3 stores its one after the last block) and do not count.
func findStack(tensors []Tensor, layers int64) (prefix string, blocks int) {
	type stack struct {
		prefix         string
		tensors, last  int
		tower, fitting bool
	}
	byPrefix := map[string]*stack{}
	for _, t := range tensors {
		p, b, ok := blockOf(t.Name)
		if !ok {
			continue
		}
		s := byPrefix[p]
		if s == nil {
			s = &stack{prefix: p, tower: isTower(p)}
			byPrefix[p] = s
		}
		s.tensors++
		s.last = max(s.last, b)
	}
	var stacks []*stack
	for _, s := range byPrefix {
		s.fitting = layers > 0 && int64(s.last) >= layers-1
		stacks = append(stacks, s)
	}
	if len(stacks) == 0 {
		return "", 0
	}
	best := slices.MinFunc(stacks, func(a, b *stack) int {
		return cmp.Or(compareBool(a.tower, b.tower), compareBool(b.fitting, a.fitting),
			cmp.Compare(b.tensors, a.tensors), strings.Compare(a.prefix, b.prefix))
	})
	blocks = best.last + 1
	if layers > 0 && layers < int64(blocks) {
		blocks = int(layers)
	}
	return best.prefix, blocks
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// isTower reports whether a module belongs to an encoder of something else than the text.
func isTower(module string) bool {
	for part := range strings.SplitSeq(strings.ToLower(module), ".") {
		for _, word := range []string{"vision", "visual", "audio", "image", "speech", "encoder", "mtp", "projector"} {
			if strings.Contains(part, word) {
				return true
			}
		}
	}
	return false
}
