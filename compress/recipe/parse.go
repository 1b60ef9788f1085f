package recipe

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Keys of a recipe, in the order that the documentation has them.
func recipeKeys() []string {
	return []string{"version", "name", "description", "steps", "ignore", "output", "kv_cache", "numerics", "seed"}
}

// Keys of a step beside its method's parameters.
func stepKeys() []string { return []string{"method", "targets", "activations", "then"} }

func outputKeys() []string     { return []string{"format"} }
func activationKeys() []string { return []string{"bits", "type", "dynamic", "group"} }

// Parse reads a recipe. Whatever it does not know, it refuses, with file, line and column in the
// error and the known name that comes nearest. file is the name for errors; without a name key it gives the
// recipe's name too.
func Parse(file string, text []byte) (*Recipe, error) {
	s := source{file}
	// Some editors write a byte order mark, which is no part of the text (YAML 1.2.2, 5.2).
	doc, err := s.document(bytes.TrimPrefix(text, []byte("\ufeff")))
	if err != nil {
		return nil, err
	}
	r := &Recipe{
		Version: Version,
		Name:    strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)),
		file:    file,
		at:      map[string]position{"": {1, 1}},
	}
	fields, err := s.fields(doc, "the recipe")
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		r.at[f.key] = f.at
		if err := r.field(s, f); err != nil {
			return nil, err
		}
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Recipe) field(s source, f pair) error {
	var err error
	switch f.key {
	case "version":
		var n int64
		if n, err = s.integer(f.value, "version"); err == nil {
			r.Version = int(n)
		}
	case "name":
		r.Name, err = s.text(f.value, "name")
	case "description":
		r.Description, err = s.text(f.value, "description")
	case "numerics":
		r.Numerics, err = s.text(f.value, "numerics")
	case "seed":
		r.Seed, err = s.unsigned(f.value, "seed")
	case "ignore":
		r.Ignore, err = r.patterns(s, f.value, "ignore")
	case "output":
		err = r.output(s, f.value)
	case "kv_cache":
		err = r.kvCache(s, f.value)
	case "steps":
		var nodes []ast.Node
		if nodes, err = s.items(f.value, "steps"); err != nil {
			return err
		}
		r.Steps = make([]Step, len(nodes))
		for i, n := range nodes {
			if err := r.step(s, i, n); err != nil {
				return err
			}
		}
	default:
		return s.errorf(f.at, "key %q is not known%s", f.key, didYouMean(f.key, recipeKeys()))
	}
	return err
}

func (r *Recipe) output(s source, n ast.Node) error {
	fields, err := s.fields(n, "output")
	if err != nil {
		return err
	}
	for _, f := range fields {
		if f.key != "format" {
			return s.errorf(f.at, "key %q of output is not known%s", f.key, didYouMean(f.key, outputKeys()))
		}
		r.at["output.format"] = place(f.value)
		if r.Output.Format, err = s.text(f.value, "output.format"); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recipe) step(s source, i int, n ast.Node) error {
	path := "steps." + strconv.Itoa(i)
	fields, err := s.fields(n, path)
	if err != nil {
		return err
	}
	r.at[path] = place(n)
	step := &r.Steps[i]
	// The method says which other keys there are, wherever it stands.
	at := slices.IndexFunc(fields, func(f pair) bool { return f.key == "method" })
	if at < 0 {
		return s.errorf(place(n), "step %d names no method, known are %s", i, strings.Join(methodNames(), ", "))
	}
	r.at[path+".method"] = place(fields[at].value)
	if step.Method, err = s.text(fields[at].value, "method"); err != nil {
		return err
	}
	m, ok := lookup(step.Method)
	if !ok {
		return r.errorf(path+".method", "method %q is not known%s", step.Method, didYouMean(step.Method, methodNames()))
	}
	for _, f := range fields {
		key := path + "." + f.key
		switch f.key {
		case "method":
		case "targets":
			if step.Targets, err = r.patterns(s, f.value, key); err != nil {
				return err
			}
		case "activations":
			if err := r.activations(s, step, key, f.value); err != nil {
				return err
			}
		case "then":
			if step.Then, err = r.next(s, i, f.value); err != nil {
				return err
			}
		default:
			if _, ok := m.parameter(f.key); !ok {
				known := append(stepKeys(), m.parameterNames()...)
				return s.errorf(f.at, "step %d has a key %q that method %s does not know%s", i, f.key, m.name, didYouMean(f.key, known))
			}
			if err := r.param(s, m, path, f, &step.Params); err != nil {
				return err
			}
		}
	}
	return nil
}

// param reads a parameter of method m.
func (r *Recipe) param(s source, m entry, path string, f pair, to *map[string]any) error {
	p, ok := m.parameter(f.key)
	if !ok {
		return s.errorf(f.at, "method %s has no parameter %q%s", m.name, f.key, didYouMean(f.key, m.parameterNames()))
	}
	v, err := s.scalar(f.value, f.key)
	if err != nil {
		return err
	}
	if v, err = p.Check(v); err != nil {
		return s.errorf(place(f.value), "%w", err)
	}
	if *to == nil {
		*to = map[string]any{}
	}
	r.at[path+"."+f.key] = place(f.value)
	(*to)[f.key] = v
	return nil
}

// next reads the second method of step i.
func (r *Recipe) next(s source, i int, n ast.Node) (*Next, error) {
	path := fmt.Sprintf("steps.%d.then", i)
	fields, err := s.fields(n, path)
	if err != nil {
		return nil, err
	}
	r.at[path] = place(n)
	at := slices.IndexFunc(fields, func(f pair) bool { return f.key == "method" })
	if at < 0 {
		return nil, s.errorf(place(n), "then of step %d names no method, known are %s", i, strings.Join(methodNames(), ", "))
	}
	r.at[path+".method"] = place(fields[at].value)
	next := &Next{}
	if next.Method, err = s.text(fields[at].value, "method"); err != nil {
		return nil, err
	}
	m, ok := lookup(next.Method)
	if !ok {
		return nil, r.errorf(path+".method", "method %q is not known%s", next.Method, didYouMean(next.Method, methodNames()))
	}
	for _, f := range fields {
		if f.key == "method" {
			continue
		}
		if err := r.param(s, m, path, f, &next.Params); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func (r *Recipe) activations(s source, step *Step, path string, n ast.Node) error {
	fields, err := s.fields(n, "activations")
	if err != nil {
		return err
	}
	r.at[path] = place(n)
	a := &Activations{Bits: 8, Dynamic: dynamicToken}
	for _, f := range fields {
		r.at[path+"."+f.key] = place(f.value)
		switch f.key {
		case "bits":
			a.Bits, err = s.integer(f.value, "activations.bits")
		case "type":
			a.Type, err = s.text(f.value, "activations.type")
		case "group":
			a.Group, err = s.integer(f.value, "activations.group")
		case "dynamic":
			a.Dynamic, err = s.text(f.value, "activations.dynamic")
		default:
			err = s.errorf(f.at, "key %q of activations is not known%s", f.key, didYouMean(f.key, activationKeys()))
		}
		if err != nil {
			return err
		}
	}
	step.Activations = a
	return nil
}

// patterns reads targets or ignore patterns and notes their places.
func (r *Recipe) patterns(s source, n ast.Node, path string) ([]string, error) {
	out, at, err := s.texts(n, path)
	if err != nil {
		return nil, err
	}
	r.at[path] = place(n)
	for i, p := range at {
		r.at[fmt.Sprintf("%s.%d", path, i)] = p
	}
	return out, nil
}

func (s source) integer(n ast.Node, what string) (int64, error) {
	v, err := s.scalar(n, what)
	if err != nil {
		return 0, err
	}
	i, ok := v.(int64)
	if !ok {
		return 0, s.wrong(n, what, "a whole number")
	}
	return i, nil
}

func (s source) unsigned(n ast.Node, what string) (uint64, error) {
	v, err := s.scalar(n, what)
	if err != nil {
		return 0, err
	}
	switch i := v.(type) {
	case uint64:
		return i, nil
	case int64:
		if i >= 0 {
			return uint64(i), nil
		}
	}
	return 0, s.wrong(n, what, "a whole number from 0 to 2^64-1")
}

// clone copies everything that Set may change.
func (r *Recipe) clone() *Recipe {
	c := *r
	c.Ignore = slices.Clone(r.Ignore)
	if r.KVCache != nil {
		kv := *r.KVCache
		c.KVCache = &kv
	}
	c.at = maps.Clone(r.at)
	c.Steps = slices.Clone(r.Steps)
	for i := range c.Steps {
		s := &c.Steps[i]
		s.Targets = slices.Clone(s.Targets)
		s.Params = maps.Clone(s.Params)
		if s.Activations != nil {
			a := *s.Activations
			s.Activations = &a
		}
		if s.Then != nil {
			s.Then = &Next{s.Then.Method, maps.Clone(s.Then.Params)}
		}
	}
	return &c
}
