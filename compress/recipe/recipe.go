// Package recipe says which linears are encoded by which method: strict YAML, presets, overrides, and
// the registry of methods.
//
// A recipe is a list of steps. A step has a method, targets and that method's parameters:
//
//	version: 1
//	name: mixed
//	steps:
//	  - method: rtn
//	    targets: Linear
//	    bits: 4
//	  - method: rtn
//	    targets: ["*.down_proj", "re:model\\.layers\\.[01]\\."]
//	    bits: 8
//	ignore: [model.layers.0.self_attn.q_proj]
//	output:
//	  format: pack-quantized
//
// # Which step takes a linear
//
// The last step with a target that matches: the general rule stands first, exceptions
// after it. A linear that matches an ignore pattern is left as it is. Patterns of both are:
//
//   - Linear: every linear of a decoder block;
//   - an exact module name, without ".weight";
//   - a glob, as soon as the pattern has one of * ? [ : * stands for any characters, dots included,
//     ? for one, [a-c] for one of a class, and the whole name must match;
//   - re: and a regular expression (RE2), which must match at the start of the name; end it with $ for the
//     whole name. Engines read their targets the same way.
//
// Heads, embeddings, routers and matrices outside of the decoder are touched only when a target is their exact name:
// no glob or expression reaches them by accident.
package recipe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shardpress/shardpress/compress"
)

// Version of the recipe format that this package reads and writes.
const Version = 1

// Recipe says what to do with a model. It is plain data; one made by hand needs Validate.
type Recipe struct {
	Version     int
	Name        string
	Description string
	Steps       []Step
	Ignore      []string
	Output      Output
	KVCache     *KVCache // nil: keys and values are kept as they are
	Numerics    string   // numeric class, "" means f32
	Seed        uint64

	file string
	at   map[string]position // "steps.0.group" → where it stands in file
}

// Step applies one method to the linears its targets match.
type Step struct {
	Method  string
	Targets []string
	// Params holds the parameters that were given, by name: int64, float64, bool or string.
	// The others have their defaults.
	Params map[string]any
	// Then encodes what the method makes of a linear: pruned weights, factors. nil: nothing does.
	Then *Next
	// Activations says how an engine should quantize the linear's inputs as it runs. It changes nothing in
	// the encoded weights.
	Activations *Activations
}

// Next is the second of two methods of a step.
type Next struct {
	Method string
	Params map[string]any // as in Step
}

// Activations describes activations quantized at run time.
type Activations struct {
	Bits    int64  `json:"bits"`
	Type    string `json:"type,omitempty"`  // int, which "" means, or float
	Dynamic string `json:"dynamic"`         // what shares a scale: token, or a group of columns of one
	Group   int64  `json:"group,omitempty"` // columns, with group
}

// Output says how the result is written.
type Output struct {
	Format string // "" means the default of the methods, see Recipe.Format
}

// Output formats.
const (
	FormatPack         = "pack-quantized"
	FormatInt          = "int-quantized"
	FormatFloat        = "float-quantized"
	FormatNVFP4        = "nvfp4-pack-quantized"
	FormatMXFP4        = "mxfp4-pack-quantized"
	FormatMXFP8        = "mxfp8-quantized"
	FormatMixed        = "mixed-precision" // each linear in the format its method prefers
	FormatBitsAndBytes = "bitsandbytes"
	FormatShardpress   = "shardpress"
	FormatDense        = "dense"
)

const (
	defaultNumerics = "f32"
	dynamicToken    = "token"
	dynamicGroup    = "group"
	typeInt         = "int"
	typeFloat       = "float"
)

// maxName bounds a recipe's name in characters. Names are printed in lines with others.
const maxName = 100

func printable(name string) bool {
	return utf8.ValidString(name) && utf8.RuneCountInString(name) <= maxName &&
		!strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) })
}

func formats() []string {
	return []string{FormatPack, FormatInt, FormatFloat, FormatNVFP4, FormatMXFP4, FormatMXFP8, FormatMixed, FormatBitsAndBytes, FormatShardpress, FormatDense}
}

func numerics() []string { return []string{defaultNumerics} }

// Validate refuses a recipe that can never work. Errors match compress.ErrInvalid and, where the recipe
// came from text, are of type *Error.
func (r *Recipe) Validate() error {
	if r.Version != Version {
		return r.errorf("version", "recipe version %d is not known, this program reads %d", r.Version, Version)
	}
	if !printable(r.Name) {
		return r.errorf("name", "name %.120q cannot be printed: write one of at most %d printable characters", r.Name, maxName)
	}
	if n := r.Numerics; n != "" && !slices.Contains(numerics(), n) {
		return r.errorf("numerics", "numeric class %q is not known%s", n, didYouMean(n, numerics()))
	}
	if f := r.Output.Format; f != "" && !slices.Contains(formats(), f) {
		return r.errorf("output.format", "output format %q is not known%s", f, didYouMean(f, formats()))
	}
	if err := r.validateKVCache(); err != nil {
		return err
	}
	if len(r.Steps) == 0 {
		return r.errorf("steps", "recipe has no steps")
	}
	for i := range r.Steps {
		if err := r.validateStep(i); err != nil {
			return err
		}
	}
	for i, p := range r.Ignore {
		if _, err := compilePattern(p); err != nil {
			return r.errorf(fmt.Sprintf("ignore.%d", i), "ignore pattern %w", err)
		}
	}
	f, err := r.format()
	if err == nil && r.KVCache != nil && f != FormatMixed && !mixes(f) {
		return r.errorf("kv_cache", "output format %s has no place for kv_cache: choose a format of compressed-tensors, or leave kv_cache out", f)
	}
	return err
}

func (r *Recipe) validateStep(i int) error {
	s, path := &r.Steps[i], "steps."+strconv.Itoa(i)
	m, ok := lookup(s.Method)
	if !ok {
		return r.errorf(path+".method", "method %q is not known%s", s.Method, didYouMean(s.Method, methodNames()))
	}
	if len(s.Targets) == 0 {
		return r.errorf(path+".targets", "step %d has no targets: write targets: Linear for every linear of the blocks", i)
	}
	for j, p := range s.Targets {
		if _, err := compilePattern(p); err != nil {
			return r.errorf(fmt.Sprintf("%s.targets.%d", path, j), "target %w", err)
		}
	}
	if a := s.Activations; a != nil {
		if a.Bits < 2 || a.Bits > 8 {
			return r.errorf(path+".activations.bits", "activations.bits is %d, and takes a whole number from 2 to 8", a.Bits)
		}
		if a.Dynamic != dynamicToken && a.Dynamic != dynamicGroup {
			return r.errorf(path+".activations.dynamic", "activations.dynamic is %q, and takes %s or %s", a.Dynamic, dynamicToken, dynamicGroup)
		}
		if a.Type != "" && a.Type != typeInt && a.Type != typeFloat {
			return r.errorf(path+".activations.type", "activations.type is %q, and takes %s or %s", a.Type, typeInt, typeFloat)
		}
		if (a.Dynamic == dynamicGroup) != (a.Group > 0) {
			return r.errorf(path+".activations.group", "activations.group is %d, and takes a number of columns with dynamic: %s only", a.Group, dynamicGroup)
		}
	}
	first, err := r.validateMethod(path, m, s.Params)
	if err != nil || s.Then == nil {
		return err
	}
	path += ".then"
	n, ok := lookup(s.Then.Method)
	if !ok {
		return r.errorf(path+".method", "method %q is not known%s", s.Then.Method, didYouMean(s.Then.Method, methodNames()))
	}
	next, err := r.validateMethod(path, n, s.Then.Params)
	if err != nil {
		return err
	}
	if _, err := Chain(first, next); err != nil {
		return r.errorf(path, "%w", err)
	}
	return nil
}

// validateMethod checks the parameters of a method at path.
func (r *Recipe) validateMethod(path string, m entry, given map[string]any) (compress.Method, error) {
	for _, name := range sortedKeys(given) {
		if err := m.checkParam(given, name); err != nil {
			return nil, r.errorf(path+"."+name, "%w", err)
		}
	}
	params, err := m.resolve(given)
	if err != nil {
		return nil, r.errorf(path, "%w", err)
	}
	built, err := m.build(params)
	if err != nil {
		return nil, r.errorf(path, "%w", err)
	}
	return built, nil
}

// Format is the output format: the one given, else the one that the steps' methods prefer, mixed-precision if those are several that mix.
func (r *Recipe) Format() string {
	f, err := r.format()
	if err != nil {
		return "" // Validate has refused the recipe
	}
	return f
}

func (r *Recipe) format() (string, error) {
	if f := r.Output.Format; f == FormatMixed {
		return f, r.validateMixed()
	} else if f != "" {
		for i := range r.Steps {
			if known := r.stepFormats(i); !slices.Contains(known, f) {
				return "", r.errorf("output.format", "output format %s cannot hold what step %d makes with method %s: choose %s", f, i, r.Steps[i].Method, strings.Join(known, " or "))
			}
		}
		return f, nil
	}
	format := FormatDense // which any other can stand beside
	for i := range r.Steps {
		f := r.stepFormat(i)
		switch {
		case f == "" || f == format || f == FormatDense || format == FormatMixed && mixes(f):
		case format == FormatDense:
			format = f
		case mixes(f) && mixes(format):
			format = FormatMixed
		default:
			return "", r.errorf(fmt.Sprintf("steps.%d", i),
				"step %d is written as %s by default and the steps before it as %s: choose with output.format", i, f, format)
		}
	}
	return format, nil
}

// validateMixed refuses steps that cannot be in a result of several formats of compressed-tensors. Decoded weights can, but not alone.
func (r *Recipe) validateMixed() error {
	held := false
	for i := range r.Steps {
		switch f := r.stepFormat(i); {
		case mixes(f):
			held = true
		case f != FormatDense:
			return r.errorf("output.format", "output format %s cannot hold what step %d makes with method %s: choose %s",
				FormatMixed, i, r.Steps[i].Method, strings.Join(r.stepFormats(i), " or "))
		}
	}
	if !held {
		return r.errorf("output.format", "output format %s has no step that a format of compressed-tensors holds: choose %s", FormatMixed, strings.Join(r.stepFormats(0), " or "))
	}
	return nil
}

// mixes reports whether a format can stand beside others in one result.
func mixes(format string) bool {
	switch format {
	case FormatPack, FormatInt, FormatFloat, FormatNVFP4, FormatMXFP4, FormatMXFP8:
		return true
	}
	return false
}

// stepFormats lists the formats that can hold what a step makes, the one it prefers first.
func (r *Recipe) stepFormats(i int) []string {
	s := &r.Steps[i]
	m, ok := lookup(s.Method)
	if !ok {
		return nil
	}
	known := m.formats
	if s.Then != nil {
		known = []string{FormatShardpress, FormatDense}
		if next, ok := lookup(s.Then.Method); ok && m.passes {
			known = next.formats
		}
	}
	if s.Activations != nil && slices.Contains(known, FormatInt) {
		known = append([]string{FormatInt}, known...) // integer products want one plain integer a weight
	}
	return known
}

// stepFormat is the format of a step's linears.
func (r *Recipe) stepFormat(i int) string {
	f, known := r.Output.Format, r.stepFormats(i)
	if f != "" && f != FormatMixed {
		return f
	}
	if at := slices.IndexFunc(known, mixes); f == FormatMixed && at >= 0 {
		return known[at] // a method may prefer another family
	}
	if len(known) > 0 {
		return known[0]
	}
	return ""
}

// Canonical is the resolved recipe as canonical JSON: keys sorted, every default filled in, no
// spaces. Equal recipes have equal bytes. The description is left out.
//
// A task of one linear is named by what Select gives for it rather than by the whole recipe, so that a change
// elsewhere in the recipe keeps its result.
func (r *Recipe) Canonical() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	steps := make([]any, len(r.Steps))
	for i, s := range r.Steps {
		m, _ := lookup(s.Method)
		params, err := m.resolve(s.Params)
		if err != nil {
			return nil, err
		}
		step := map[string]any{"method": s.Method, "targets": s.Targets, "params": params}
		if s.Activations != nil {
			step["activations"] = s.Activations
		}
		if s.Then != nil {
			next, _ := lookup(s.Then.Method)
			params, err := next.resolve(s.Then.Params)
			if err != nil {
				return nil, err
			}
			step["then"] = map[string]any{"method": s.Then.Method, "params": params}
		}
		steps[i] = step
	}
	ignore := r.Ignore
	if ignore == nil {
		ignore = []string{}
	}
	numerics := r.Numerics
	if numerics == "" {
		numerics = defaultNumerics
	}
	out := map[string]any{
		"version":  r.Version,
		"name":     r.Name,
		"steps":    steps,
		"ignore":   ignore,
		"output":   map[string]any{"format": r.Format()},
		"numerics": numerics,
		"seed":     strconv.FormatUint(r.Seed, 10), // text: readers of JSON lose integers beyond 2^53
	}
	if r.KVCache != nil {
		out["kv_cache"] = r.KVCache
	}
	return canonical(out)
}

// canonical writes v as JSON; encoding/json sorts the keys of maps and writes the shortest number that reads back.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("write canonical recipe: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Selection is what a recipe does to one linear.
type Selection struct {
	Step        int // index into Recipe.Steps
	Method      compress.Method
	Params      json.RawMessage // canonical, every default filled in, of the first method
	First       compress.Method // the step's own method; Method itself unless there is a Then
	Then        compress.Method // nil: Method is the step's own
	ThenParams  json.RawMessage
	Format      string       // how the linear is stored
	Activations *Activations // nil: left as they are
}

// Select says what the recipe does to l; ok is false when it leaves l alone.
func (r *Recipe) Select(l compress.Linear) (sel Selection, ok bool, err error) {
	for _, p := range r.Ignore {
		c, err := compilePattern(p)
		if err != nil {
			return Selection{}, false, compress.Invalidf("ignore pattern %w", err)
		}
		if c.match(l) {
			return Selection{}, false, nil
		}
	}
	for i := len(r.Steps) - 1; i >= 0; i-- {
		s := r.Steps[i]
		hit, err := anyTarget(s.Targets, l)
		if err != nil {
			return Selection{}, false, err
		}
		if !hit {
			continue
		}
		sel := Selection{Step: i, Activations: s.Activations, Format: r.stepFormat(i)}
		if sel.First, sel.Params, err = resolved(s.Method, s.Params); err != nil {
			return Selection{}, false, err
		}
		sel.Method = sel.First
		if s.Then != nil {
			if sel.Then, sel.ThenParams, err = resolved(s.Then.Method, s.Then.Params); err != nil {
				return Selection{}, false, err
			}
			if sel.Method, err = Chain(sel.First, sel.Then); err != nil {
				return Selection{}, false, err
			}
		}
		return sel, true, nil
	}
	return Selection{}, false, nil
}

// resolved makes a method, and its parameters with every default filled in.
func resolved(name string, given map[string]any) (compress.Method, json.RawMessage, error) {
	m, known := lookup(name)
	if !known {
		return nil, nil, compress.Invalidf("method %q is not known", name)
	}
	params, err := m.resolve(given)
	if err != nil {
		return nil, nil, err
	}
	raw, err := canonical(params)
	if err != nil {
		return nil, nil, err
	}
	method, err := m.build(params)
	return method, raw, err
}

// Miss is a pattern of a recipe that matches nothing.
type Miss struct {
	Path    string // steps.0.targets.1, ignore.0
	Pattern string
	Nearest string // the most similar name there is, "" if none comes close
	Err     error  // the sentence for people, with file and line where known
}

// Unmatched lists the targets and ignore patterns that match none of the linears: a model's linears of all
// roles, heads and routers included. Targets are found missing even where another step would win.
func (r *Recipe) Unmatched(linears []compress.Linear) []Miss {
	var out []Miss
	look := func(path, what, pattern string, target bool) {
		c, err := compilePattern(pattern)
		if err != nil {
			return // Validate has refused it
		}
		protected := ""
		for _, l := range linears {
			if target && c.target(l) || !target && c.match(l) {
				return
			}
			if target && c.match(l) && protected == "" {
				protected = l.Name
			}
		}
		m := Miss{Path: path, Pattern: pattern}
		switch {
		case protected != "":
			m.Nearest = protected
			m.Err = r.errorf(path, "%s %q reaches only heads, embeddings, routers or what lies outside of the decoder, and these have to be targeted by exact name, such as %s", what, pattern, protected)
		default:
			hint := ""
			if c.exact {
				names := make([]string, len(linears))
				for i, l := range linears {
					names[i] = l.Name
				}
				if m.Nearest = nearest(pattern, names); m.Nearest != "" {
					hint = fmt.Sprintf(": did you mean %s?", m.Nearest)
				}
			}
			m.Err = r.errorf(path, "%s %q matches no linear of the model%s", what, pattern, hint)
		}
		out = append(out, m)
	}
	for i, s := range r.Steps {
		for j, p := range s.Targets {
			look(fmt.Sprintf("steps.%d.targets.%d", i, j), "target", p, true)
		}
	}
	for i, p := range r.Ignore {
		look(fmt.Sprintf("ignore.%d", i), "ignore pattern", p, false)
	}
	return out
}
