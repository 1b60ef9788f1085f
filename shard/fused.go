package shard

import (
	"fmt"
	"slices"
	"strings"
)

// fusedWith lists the linears that engines load into one matrix: its parts must share a scheme, or all stay in 16 bits
// (formats.md 2.1). DeepSeek's two low-rank inputs are fused by vLLM.
func fusedWith() [][]string {
	return [][]string{
		{"q_proj", "k_proj", "v_proj"},
		{"gate_proj", "up_proj"},
		{"w1", "w3"},
		{"q_a_proj", "kv_a_proj_with_mqa"},
	}
}

// fusedKey names the matrix or the mixture that an engine puts a linear into, "" for none.
func fusedKey(name string) string {
	// All experts of a layer run through one kernel.
	if i := strings.LastIndex(name, ".experts."); i >= 0 {
		if _, rest, ok := strings.Cut(name[i+len(".experts."):], "."); ok && rest != "" {
			return name[:i+len(".experts")]
		}
	}
	parent, last := splitLeaf(name)
	for _, parts := range fusedWith() {
		for _, part := range parts {
			if last == part {
				return joinName(parent, strings.Join(parts, "+"))
			}
		}
	}
	return ""
}

// FusedGroups lists, by their places in Manifest.Linears, the linears whose weights engines put into one matrix under one scale, in the
// order of their first ones: q, k and v; gate and up, of each expert by itself.
func FusedGroups(m *Manifest) [][]int {
	at := map[string]int{}
	var groups [][]int
	for i, l := range m.Linears {
		parent, last := splitLeaf(l.Name)
		for _, parts := range fusedWith() {
			if !slices.Contains(parts, last) {
				continue
			}
			key := joinName(parent, strings.Join(parts, "+"))
			g, ok := at[key]
			if !ok {
				g = len(groups)
				at[key] = g
				groups = append(groups, nil)
			}
			groups[g] = append(groups[g], i)
		}
	}
	return groups
}

// CheckFused refuses a choice of schemes under which an engine could not fuse what it fuses, and names the linears. It looks at every
// linear of the manifest; those that are not quantized stay in 16 bits. For a format without codes there is nothing to check.
func CheckFused(m *Manifest, quantized []QuantizedLinear) error {
	schemes := make(map[string]string, len(quantized))
	for _, q := range quantized {
		schemes[q.Name] = q.Scheme.String()
	}
	type member struct{ name, scheme string }
	first := map[string]member{}
	for _, l := range m.Linears {
		key := fusedKey(l.Name)
		if key == "" {
			continue
		}
		now := member{l.Name, schemes[l.Name]}
		if now.scheme == "" {
			now.scheme = "16 bits"
		}
		was, ok := first[key]
		if !ok {
			first[key] = now
			continue
		}
		if was.scheme != now.scheme {
			return fmt.Errorf("%w: engines load %q (%s) and %q (%s) into one matrix; give both the same scheme or ignore both",
				ErrFused, was.name, was.scheme, now.name, now.scheme)
		}
	}
	return checkTiles(m, quantized)
}

// checkTiles refuses tiles that would reach from one part of a fused matrix into the next: all parts but the last are whole tiles.
func checkTiles(m *Manifest, quantized []QuantizedLinear) error {
	tiles := make(map[string]int64, len(quantized))
	for _, q := range quantized {
		if q.Scheme.Strategy == StrategyBlock {
			tiles[q.Name] = q.Scheme.Block[0]
		}
	}
	for _, l := range m.Linears {
		rows := tiles[l.Name]
		if rows < 1 || l.Rows%rows == 0 {
			continue
		}
		_, last := splitLeaf(l.Name)
		for _, parts := range fusedWith() {
			if i := slices.Index(parts, last); i >= 0 && i < len(parts)-1 {
				return fmt.Errorf("%w: engines load %q into one matrix with %s, and its %d rows are not whole tiles of %d; choose lower tiles, another strategy for all of them, or ignore them",
					ErrFused, l.Name, strings.Join(parts[i+1:], " and "), l.Rows, rows)
			}
		}
	}
	return nil
}
