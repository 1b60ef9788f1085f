package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shardpress/shardpress/compress"
	"github.com/shardpress/shardpress/shard"
)

func newInspect() *cobra.Command {
	var tensors, asJSON bool
	c := &cobra.Command{
		Use:   "inspect CHECKPOINT",
		Short: "Show what is in a checkpoint, from headers only",
		Example: `  shardpress inspect ./Llama-3.1-8B
  shardpress inspect ./Llama-3.1-8B --tensors
  shardpress inspect ./model.safetensors --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ck, err := shard.Open(c.Context(), args[0], shard.OpenOptions{})
			if err != nil {
				return err
			}
			defer ck.Close() //nolint:errcheck // opened for reading
			m := ck.Manifest
			if asJSON {
				b, err := m.MarshalCanonical()
				if err != nil {
					return err
				}
				var v any
				if err := json.Unmarshal(b, &v); err != nil {
					return err
				}
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(v)
			}
			box, err := ck.Container()
			if err != nil {
				return err
			}
			return inspect(c, m, box, tensors)
		},
	}
	c.Flags().BoolVar(&tensors, "tensors", false, "list every tensor")
	c.Flags().BoolVar(&asJSON, "json", false, "print the manifest as JSON")
	return c
}

// inspect prints what headers say. box is nil unless the checkpoint is a result in the format shardpress.
func inspect(c *cobra.Command, m *shard.Manifest, box *shard.Container, tensors bool) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0)
	var size int64
	for _, f := range m.Files {
		size += f.Size
	}
	type sum struct {
		tensors int
		weights int64
		bytes   int64
	}
	roles := []shard.Role{shard.RoleLinear, shard.RoleRouter, shard.RoleEmbedding, shard.RoleHead, shard.RoleNorm, shard.RoleBias, shard.RoleOther}
	byRole, byType := map[shard.Role]sum{}, map[shard.DType]sum{}
	var types []shard.DType
	role := map[string]shard.Place{}
	for _, p := range m.Places {
		role[p.Tensor] = p
	}
	add := func(s sum, t shard.Tensor, n int64) sum { return sum{s.tensors + 1, s.weights + n, s.bytes + t.Length} }
	// Packed integers hold several weights each and come with scales: what can be
	// counted of them without their meaning are values.
	what := "weights"
	if m.CheckSource() != nil {
		what = "stored values"
	}
	var weights int64
	for _, t := range m.Tensors {
		n := int64(1)
		for _, d := range t.Shape {
			n *= d
		}
		if _, ok := byType[t.DType]; !ok {
			types = append(types, t.DType)
		}
		byType[t.DType] = add(byType[t.DType], t, n)
		if p, ok := role[t.Name]; ok {
			byRole[p.Role] = add(byRole[p.Role], t, n)
			weights += n
		}
	}
	model := m.Model
	fmt.Fprintf(w, "architecture\t%s (%s)\n", or(model.Architecture, "unknown"), or(model.ModelType, "no config.json"))
	fmt.Fprintf(w, "blocks\t%d, as %s\n", model.Blocks, or(model.BlockPrefix, "-"))
	fmt.Fprintf(w, "%s\t%d in %d tensors\n", what, weights, len(m.Tensors))
	fmt.Fprintf(w, "size\t%s in %d files, %d more files carried over\n", formatBytes(size), len(m.Files), len(m.Extras))
	fmt.Fprintf(w, "tied embedding\t%v\n", model.Tied)
	if model.Quantization != "" {
		fmt.Fprintf(w, "quantized by\t%s\n", model.Quantization)
	}
	if box != nil {
		fmt.Fprintf(w, "kept as they were\t%d linears\n", len(box.Ignore))
		for i, s := range box.Stored(m) {
			g := box.Groups[i]
			fmt.Fprintf(w, "stored as\t%s: %d linears in %d tensors, %s\n", scheme(g.Scheme), len(g.Linears), s.Tensors, formatBytes(s.Bytes))
			if n := len(s.Missing); n > 0 {
				fmt.Fprintf(w, "missing\t%d of these linears have no tensor, such as %s: copy the result again\n", n, s.Missing[0])
			}
		}
	}
	for _, t := range types {
		s := byType[t]
		fmt.Fprintf(w, "%s\t%d tensors, %s\n", t, s.tensors, formatBytes(s.bytes))
	}
	for _, r := range roles {
		if s := byRole[r]; s.tensors > 0 {
			fmt.Fprintf(w, "%s\t%d tensors, %d %s, %s\n", r, s.tensors, s.weights, what, formatBytes(s.bytes))
		}
	}
	if tensors {
		fmt.Fprintln(w, "\nTENSOR\tDTYPE\tSHAPE\tBLOCK\tROLE\tFILE\tBYTES")
		for _, t := range m.Tensors {
			p, ok := role[t.Name]
			block, r := "-", "scale of another"
			if ok {
				r = string(p.Role)
				if p.Block >= 0 {
					block = fmt.Sprint(p.Block)
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", t.Name, t.DType, shape(t.Shape), block, r, m.Files[t.File].Name, t.Length)
		}
	}
	for _, s := range m.Skipped {
		fmt.Fprintf(w, "skipped %s\t%s\n", s.Name, s.Reason)
	}
	return w.Flush()
}

// scheme says in a line what a scheme is: its kind, and its other members.
func scheme(raw json.RawMessage) string {
	s, err := compress.ParseScheme(raw)
	if err != nil {
		return fmt.Sprintf("%.80q (not known to this program)", raw)
	}
	return strings.TrimSpace(s.Kind() + " " + schemeMembers(raw))
}

// schemeMembers lists what a scheme that was read says besides its kind, schemes within it in parentheses.
func schemeMembers(raw json.RawMessage) string {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return ""
	}
	delete(members, "kind")
	var text []string
	for _, key := range slices.Sorted(maps.Keys(members)) {
		value := strings.Trim(string(members[key]), `"`)
		var within struct{ Kind string }
		if err := json.Unmarshal(members[key], &within); err == nil && strings.HasPrefix(value, "{") {
			value = "(" + strings.TrimSpace(within.Kind+" "+schemeMembers(members[key])) + ")"
		}
		text = append(text, key+"="+value)
	}
	return strings.Join(text, " ")
}

func shape(dims []int64) string {
	parts := make([]string, len(dims))
	for i, d := range dims {
		parts[i] = fmt.Sprint(d)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
