package shard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// containerVersion is the version of FormatShardpress. docs/container.md describes it.
const containerVersion = 1

// Container is the quantization_config of FormatShardpress: which linears are stored as what.
type Container struct {
	QuantMethod string           `json:"quant_method"`
	Version     int              `json:"version"`
	Groups      []ContainerGroup `json:"groups"`
	Ignore      []string         `json:"ignore"` // linears that are stored as they were
}

// ContainerGroup is one scheme and the linears that have it. Tensors are named for a linear and a component: "NAME.codes".
type ContainerGroup struct {
	Scheme  json.RawMessage `json:"scheme"`
	Linears []string        `json:"linears"`
}

// containerConfig gathers linears by their schemes, in the order of their first linears.
func containerConfig(m *Manifest, quantized []QuantizedLinear) Container {
	c := Container{QuantMethod: string(FormatShardpress), Version: containerVersion, Groups: []ContainerGroup{}, Ignore: Ignored(m, quantized)}
	at := map[string]int{}
	for _, q := range quantized {
		key := string(q.Description)
		i, ok := at[key]
		if !ok {
			i = len(c.Groups)
			at[key] = i
			c.Groups = append(c.Groups, ContainerGroup{Scheme: q.Description})
		}
		c.Groups[i].Linears = append(c.Groups[i].Linears, q.Name)
	}
	return c
}

// Container reads what config.json says of a result in FormatShardpress, nil of any other checkpoint. It refuses what contradicts itself; what
// the schemes mean is not looked at.
func (c *Checkpoint) Container() (*Container, error) {
	return parseContainer(ConfigName, c.Config)
}

func parseContainer(file string, raw []byte) (*Container, error) {
	conf, err := parseConfig(file, raw)
	if err != nil {
		return nil, err
	}
	_, q := conf.field("quantization_config")
	if len(q) == 0 || q[0] != '{' {
		return nil, nil //nolint:nilnil // it is no container
	}
	if method, _, err := conf.quantization(); err != nil || method != string(FormatShardpress) {
		return nil, err
	}
	refuse := func(format string, args ...any) (*Container, error) {
		return nil, fmt.Errorf("read %s: quantization_config: %w; make the result again", file, fmt.Errorf(format, args...))
	}
	c := &Container{}
	d := json.NewDecoder(bytes.NewReader(q))
	if err := d.Decode(c); err != nil {
		return refuse("%w: %w", ErrMalformed, err)
	}
	if c.Version != containerVersion {
		return nil, fmt.Errorf("read %s: quantization_config: version %d of format %s: %w; this program knows version %d", file, c.Version, FormatShardpress, ErrUnsupported, containerVersion)
	}
	seen := map[string]struct{}{}
	for i, g := range c.Groups {
		if len(g.Scheme) == 0 || g.Scheme[0] != '{' || len(g.Linears) == 0 {
			return refuse("group %d has no scheme or no linears: %w", i, ErrMalformed)
		}
		for _, name := range g.Linears {
			if _, twice := seen[name]; twice || name == "" {
				return refuse("linear %q: %w", name, ErrDuplicate)
			}
			seen[name] = struct{}{}
		}
	}
	return c, nil
}

// Stored is what a container holds of the linears of one group.
type Stored struct {
	Tensors int
	Bytes   int64
	Missing []string // linears without a tensor
}

// Stored finds the tensors of each group, in the order of the groups. Biases are no part of it.
func (c *Container) Stored(m *Manifest) []Stored {
	out := make([]Stored, len(c.Groups))
	group := map[string]int{}
	for i, g := range c.Groups {
		for _, name := range g.Linears {
			group[name] = i
		}
	}
	found := map[string]struct{}{}
	for _, t := range m.Tensors {
		if strings.HasSuffix(t.Name, ".bias") {
			continue
		}
		// Components of schemes in schemes have dots in their names.
		for name, _ := splitLeaf(t.Name); name != ""; name, _ = splitLeaf(name) {
			if i, ok := group[name]; ok {
				out[i].Tensors++
				out[i].Bytes += t.Length
				found[name] = struct{}{}
				break
			}
		}
	}
	for i, g := range c.Groups {
		for _, name := range g.Linears {
			if _, ok := found[name]; !ok {
				out[i].Missing = append(out[i].Missing, name)
			}
		}
	}
	return out
}
