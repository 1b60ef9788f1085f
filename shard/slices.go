package shard

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Slices splits a fused linear into the ones it is made of, under the names that most engines give them: Phi-3's qkv_proj into q_proj,
// k_proj and v_proj by the head counts of config.json, gate_up_proj into its halves. A linear that is not fused comes back alone.
// Manifest.Linears never holds slices of matrices: engines of those families expect the fused module.
func Slices(l Linear, configJSON json.RawMessage) ([]Linear, error) {
	parent, last := splitLeaf(l.Name)
	c, err := parseConfig(ConfigName, configJSON)
	if err != nil {
		return nil, err
	}
	var names []string
	var rows []int64
	switch last {
	case "gate_up_proj":
		names, rows = []string{"gate_proj", "up_proj"}, []int64{l.Rows / 2, l.Rows / 2}
	case "qkv_proj":
		names = []string{"q_proj", "k_proj", "v_proj"}
		if rows, err = c.heads(); err != nil {
			return nil, err
		}
	default:
		return []Linear{l}, nil
	}
	total := int64(0)
	for _, n := range rows {
		total += n
	}
	if total != l.Rows {
		return nil, fmt.Errorf("split linear %q: %d rows are not %s of %v: %w; correct the head counts in %s",
			l.Name, l.Rows, strings.Join(names, ", "), rows, ErrMalformed, ConfigName)
	}
	out := make([]Linear, len(names))
	at := l.Row
	for i, name := range names {
		out[i] = l
		out[i].Name, out[i].Row, out[i].Rows = joinName(parent, name), at, rows[i]
		at += rows[i] * l.RowStep
	}
	return out, nil
}

// heads returns the rows of q, k and v.
func (c *config) heads() ([]int64, error) {
	var q, kv, dim, hidden int64
	for _, f := range []struct {
		to   *int64
		keys []string
	}{{&q, []string{"num_attention_heads", "n_head"}}, {&kv, []string{"num_key_value_heads"}}, {&dim, []string{"head_dim"}}, {&hidden, []string{"hidden_size"}}} {
		var err error
		if *f.to, err = c.integer(f.keys...); err != nil {
			return nil, err
		}
	}
	if kv == 0 {
		kv = q
	}
	if dim == 0 && q > 0 && hidden%q == 0 {
		dim = hidden / q
	}
	const limit = 1 << 30 // far above any model, low enough that products of two fit
	if q < 1 || kv < 1 || dim < 1 || q > limit || kv > limit || dim > limit {
		return nil, fmt.Errorf("read %s: num_attention_heads %d, num_key_value_heads %d, head_dim %d do not give rows of q, k and v: %w; add them",
			c.file, q, kv, dim, ErrMissing)
	}
	return []int64{q * dim, kv * dim, kv * dim}, nil
}
