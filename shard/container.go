package shard

import "encoding/json"

// containerVersion is the version of FormatShardpress. docs/container.md describes it.
const containerVersion = 1

// containerQuantization is the quantization_config of FormatShardpress.
type containerQuantization struct {
	QuantMethod string           `json:"quant_method"`
	Version     int              `json:"version"`
	Groups      []containerGroup `json:"groups"`
	Ignore      []string         `json:"ignore"`
}

// containerGroup is one scheme and the linears that have it.
type containerGroup struct {
	Scheme  json.RawMessage `json:"scheme"`
	Linears []string        `json:"linears"`
}

// containerConfig gathers linears by their schemes, in the order of their first linears.
func containerConfig(m *Manifest, quantized []QuantizedLinear) containerQuantization {
	c := containerQuantization{QuantMethod: string(FormatShardpress), Version: containerVersion, Groups: []containerGroup{}, Ignore: Ignored(m, quantized)}
	at := map[string]int{}
	for _, q := range quantized {
		key := string(q.Description)
		i, ok := at[key]
		if !ok {
			i = len(c.Groups)
			at[key] = i
			c.Groups = append(c.Groups, containerGroup{Scheme: q.Description})
		}
		c.Groups[i].Linears = append(c.Groups[i].Linears, q.Name)
	}
	return c
}
