package recipe

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/shardpress/shardpress/compress"
)

// ParseCanonical reads what Canonical wrote, as a result's documents hold it. file
// is the name for errors.
func ParseCanonical(file string, text []byte) (*Recipe, error) {
	var c struct {
		Version int    `json:"version"`
		Name    string `json:"name"`
		Steps   []struct {
			Method      string          `json:"method"`
			Targets     []string        `json:"targets"`
			Params      json.RawMessage `json:"params"`
			Activations *Activations    `json:"activations"`
			Then        *struct {
				Method string          `json:"method"`
				Params json.RawMessage `json:"params"`
			} `json:"then"`
		} `json:"steps"`
		Ignore   []string `json:"ignore"`
		Output   struct{ Format string }
		KVCache  *KVCache `json:"kv_cache"`
		Numerics string   `json:"numerics"`
		Seed     string   `json:"seed"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, compress.Invalidf("%s: read recipe: %w", file, err)
	}
	seed, err := strconv.ParseUint(c.Seed, 10, 64)
	if err != nil {
		return nil, compress.Invalidf("%s: read recipe: seed %q is no number", file, c.Seed)
	}
	r := &Recipe{
		Version: c.Version, Name: c.Name, Ignore: c.Ignore, Output: Output{Format: c.Output.Format}, KVCache: c.KVCache, Numerics: c.Numerics, Seed: seed, file: file,
	}
	for _, s := range c.Steps {
		e, ok := lookup(s.Method)
		if !ok {
			return nil, compress.Invalidf("%s: method %q is not known%s", file, s.Method, didYouMean(s.Method, methodNames()))
		}
		params, err := e.given(s.Params)
		if err != nil {
			return nil, err
		}
		step := Step{Method: s.Method, Targets: s.Targets, Params: params, Activations: s.Activations}
		if s.Then != nil {
			e, ok := lookup(s.Then.Method)
			if !ok {
				return nil, compress.Invalidf("%s: method %q is not known%s", file, s.Then.Method, didYouMean(s.Then.Method, methodNames()))
			}
			step.Then = &Next{Method: s.Then.Method}
			if step.Then.Params, err = e.given(s.Then.Params); err != nil {
				return nil, err
			}
		}
		r.Steps = append(r.Steps, step)
	}
	return r, r.Validate()
}
