package recipe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/shardpress/shardpress/compress"
)

// Set overrides one value, as --set key=value does:
//
//	group=32                 the parameter of every step whose method has it
//	steps.0.group=32         of one step
//	steps.1.targets=a,b      likewise targets, method, activations.bits and then.group
//	output.format=dense, numerics=f32, seed=7, name=mine
//	ignore=a,b               replaces the list; ignore= empties it
//	kv_cache.type=float      likewise bits, strategy, group; kv_cache= takes it away
//
// Lists are divided at commas; one that begins with [ is read as YAML, for patterns that hold
// commas. When an override takes the meaning of another parameter away (strategy=channel that of group), that
// one is dropped. The recipe stays as it was when Set fails.
func (r *Recipe) Set(key, value string) error {
	return r.SetAll([][2]string{{key, value}})
}

// SetAll overrides several values, each a key and what Set takes for it, of which one may have a meaning only with another
// (group=32 with strategy=group): what they come to together has to be valid, in any order but for a key that is given
// twice. The recipe stays as it was when SetAll fails.
func (r *Recipe) SetAll(overrides [][2]string) error {
	c := r.clone()
	var all []string
	for _, o := range overrides {
		all = append(all, o[0]+"="+o[1])
		if err := c.set(o[0], o[1]); err != nil {
			return compress.Invalidf("set %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := c.Validate(); err != nil {
		return compress.Invalidf("set %s: %w", strings.Join(all, " --set "), err)
	}
	*r = *c
	return nil
}

func (r *Recipe) set(key, value string) error {
	r.forget(key)
	var err error
	switch key {
	case "name":
		r.Name = value
	case "description":
		r.Description = value
	case "numerics":
		r.Numerics = value
	case "output.format":
		r.Output.Format = value
	case "seed":
		if r.Seed, err = strconv.ParseUint(value, 10, 64); err != nil {
			return fmt.Errorf("a seed is a whole number from 0 to 2^64-1")
		}
	case "ignore":
		r.Ignore, err = list(key, value)
	case "kv_cache":
		if value != "" {
			return fmt.Errorf("set its members, as in kv_cache.type=float; only kv_cache= takes it away")
		}
		r.KVCache = nil
	case "version", "steps", "output":
		return fmt.Errorf("%s is not a single value", key)
	default:
		if rest, ok := strings.CutPrefix(key, "steps."); ok {
			return r.setStep(key, rest, value)
		}
		if rest, ok := strings.CutPrefix(key, "kv_cache."); ok {
			return r.setKVCache(rest, value)
		}
		return r.setEverywhere(key, value)
	}
	return err
}

// setEverywhere sets a parameter in every step that has it.
func (r *Recipe) setEverywhere(key, value string) error {
	var known []string
	found := false
	look := func(method, path string, params *map[string]any) error {
		m, ok := lookup(method)
		if !ok {
			return nil
		}
		for _, name := range m.parameterNames() {
			if !slices.Contains(known, name) {
				known = append(known, name)
			}
		}
		if _, ok := m.parameter(key); !ok {
			return nil
		}
		found = true
		return r.setParam(m, path, params, key, value)
	}
	for i := range r.Steps {
		step := &r.Steps[i]
		if err := look(step.Method, fmt.Sprintf("steps.%d", i), &step.Params); err != nil {
			return err
		}
		if step.Then != nil {
			if err := look(step.Then.Method, fmt.Sprintf("steps.%d.then", i), &step.Then.Params); err != nil {
				return err
			}
		}
	}
	if found {
		return nil
	}
	slices.Sort(known)
	known = append(known, "output.format", "ignore", "numerics", "seed", "name")
	return fmt.Errorf("no step has a parameter %q%s", key, didYouMean(key, known))
}

// setStep sets a key of one step; rest is what follows "steps.".
func (r *Recipe) setStep(key, rest, value string) error {
	number, name, ok := strings.Cut(rest, ".")
	i, err := strconv.Atoi(number)
	if !ok || err != nil || i < 0 || i >= len(r.Steps) {
		return fmt.Errorf("steps are numbered from 0 to %d, as in steps.0.targets", len(r.Steps)-1)
	}
	step := &r.Steps[i]
	switch name {
	case "method":
		if value != step.Method {
			step.Method, step.Params = value, nil // parameters of another method
		}
		return nil
	case "targets":
		step.Targets, err = list(key, value)
		return err
	case "then.method":
		if step.Then == nil || value != step.Then.Method {
			step.Then = &Next{Method: value}
		}
		return nil
	}
	if what, ok := strings.CutPrefix(name, "activations."); ok && slices.Contains(activationKeys(), what) {
		return step.setActivations(what, value)
	}
	method, path, params := step.Method, "steps."+number, &step.Params
	if then, ok := strings.CutPrefix(name, "then."); ok {
		if step.Then == nil {
			return fmt.Errorf("step %d has no then: set steps.%d.then.method first", i, i)
		}
		method, path, params, name = step.Then.Method, path+".then", &step.Then.Params, then
	}
	m, ok := lookup(method)
	if !ok {
		return fmt.Errorf("method %q is not known", method)
	}
	if _, ok := m.parameter(name); !ok {
		known := append(stepKeys(), m.parameterNames()...)
		for _, key := range activationKeys() {
			known = append(known, "activations."+key)
		}
		return fmt.Errorf("method %s has no parameter %q%s", method, name, didYouMean(name, known))
	}
	return r.setParam(m, path, params, name, value)
}

// setActivations sets one member of a step's activations.
func (s *Step) setActivations(name, value string) error {
	if s.Activations == nil {
		s.Activations = &Activations{Bits: 8, Dynamic: dynamicToken}
	}
	a, err := s.Activations, error(nil)
	switch name {
	case "type":
		a.Type = value
	case "dynamic":
		a.Dynamic = value
	case "bits":
		a.Bits, err = strconv.ParseInt(value, 10, 64)
	case "group":
		a.Group, err = strconv.ParseInt(value, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("activations.%s takes a whole number", name)
	}
	return nil
}

// setParam sets a parameter of method m, which has it, among those at path.
func (r *Recipe) setParam(m entry, path string, params *map[string]any, name, value string) error {
	p, _ := m.parameter(name)
	v, err := p.Parse(value)
	if err != nil {
		return err
	}
	if *params == nil {
		*params = map[string]any{}
	}
	(*params)[name] = v
	r.forget(path + "." + name)
	for _, other := range m.params() {
		if other.When == name && !m.applies(*params, other) {
			delete(*params, other.Name)
		}
	}
	return nil
}

// forget drops the places of what no longer stands in the text.
func (r *Recipe) forget(path string) {
	if r.at == nil {
		return
	}
	for key := range r.at {
		if strings.HasPrefix(key, path+".") {
			delete(r.at, key)
		}
	}
	r.at[path] = position{}
}

// list reads the value of an override that is a list.
func list(key, value string) ([]string, error) {
	if strings.HasPrefix(value, "[") {
		s := source{"--set " + key}
		doc, err := s.document([]byte(value))
		if err != nil {
			return nil, err
		}
		out, _, err := s.texts(doc, key)
		return out, err
	}
	var out []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out, nil
}
