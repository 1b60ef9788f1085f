package story

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// binding is what a variable stands for: a number, or an entry of a list.
type binding struct {
	list  *list // nil: the number
	value int   // number, or index into list.entries
	bound bool
}

type environment []binding

// rest is what remains to be written: nodes, then what follows them.
type rest struct {
	nodes []node
	next  *rest
}

// option is one outcome of a choice: how likely it is, what it binds and what
// remains to be written then.
type option struct {
	weight   uint64
	rest     *rest
	variable int // -1: binds nothing
	binding  binding
}

func (o *option) bind(env environment) {
	if o.variable >= 0 {
		env[o.variable] = o.binding
	}
}

var errAmbiguous = errors.New("two options of a choice begin alike")

// advance writes everything up to the next choice, which it returns with what
// follows; nil at the end of the story.
func (g *grammar) advance(out *strings.Builder, r *rest, env environment) (*node, *rest, error) {
	for r != nil {
		if len(r.nodes) == 0 {
			r = r.next
			continue
		}
		n := &r.nodes[0]
		r = &rest{r.nodes[1:], r.next}
		switch n.kind {
		case nodeLiteral:
			out.WriteString(n.text)
		case nodeRule:
			body, ok := g.rules[n.text]
			if !ok {
				return nil, nil, fmt.Errorf("expand rule %q: no such rule", n.text)
			}
			r = &rest{body, r}
		case nodeRecall:
			if err := g.recall(out, n, env); err != nil {
				return nil, nil, err
			}
		case nodeCompute:
			value, err := compute(n, env)
			if err != nil {
				return nil, nil, fmt.Errorf("compute %s: %w", g.variables[n.variable], err)
			}
			env[n.variable] = binding{nil, value, true}
			if err := g.recall(out, n, env); err != nil {
				return nil, nil, err
			}
		case nodeChoice, nodePick:
			return n, r, nil
		}
	}
	return nil, nil, nil
}

func compute(n *node, env environment) (int, error) {
	var v [2]int
	for i, t := range n.operands {
		v[i] = t.number
		if t.variable >= 0 {
			if b := env[t.variable]; !b.bound || b.list != nil {
				return 0, fmt.Errorf("operand %d is no number", i+1)
			}
			v[i] = env[t.variable].value
		}
	}
	switch {
	case n.operator == '+':
		return v[0] + v[1], nil
	case n.operator == '-':
		return v[0] - v[1], nil
	case v[1] != 0 && v[0]%v[1] == 0:
		return v[0] / v[1], nil
	}
	return 0, fmt.Errorf("%d does not divide %d", v[1], v[0])
}

// recall writes the variable of a node: its word, or a field of its entry.
func (g *grammar) recall(out *strings.Builder, n *node, env environment) error {
	b := env[n.variable]
	if !b.bound {
		return fmt.Errorf("recall %s: not bound", g.variables[n.variable])
	}
	if b.list == nil {
		word, err := numberWord(b.value)
		out.WriteString(word)
		return err
	}
	field := n.field
	if n.count >= 0 {
		if !env[n.count].bound {
			return fmt.Errorf("recall %s: count %s is not bound", g.variables[n.variable], g.variables[n.count])
		}
		if env[n.count].value != 1 {
			field = fieldMany
		}
	}
	word := b.list.entries[b.value][0]
	if field != "" {
		i := slices.Index(b.list.fields, field)
		if i < 0 {
			return fmt.Errorf("recall %s: no field %q", g.variables[n.variable], field)
		}
		word = b.list.entries[b.value][1+i]
	}
	if n.capital {
		word = strings.ToUpper(word[:1]) + word[1:]
	}
	out.WriteString(word)
	return nil
}

func numberWord(n int) (string, error) {
	words := [...]string{"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if n < 0 || n >= len(words) {
		return "", fmt.Errorf("write number %d: no word for it", n)
	}
	return words[n], nil
}

// options lists the outcomes of a choice, with the total of their weights.
func (g *grammar) options(n *node, r *rest, env environment) ([]option, uint64, error) {
	var out []option
	if n.kind == nodeChoice {
		var total uint64
		for i, body := range n.bodies {
			out = append(out, option{n.weights[i], &rest{body, r}, -1, binding{}})
			total += n.weights[i]
		}
		return out, total, nil
	}
	candidates, err := g.candidates(n, env)
	if err != nil {
		return nil, 0, fmt.Errorf("pick %s: %w", g.variables[n.variable], err)
	}
	written := &rest{[]node{{kind: nodeRecall, variable: n.variable, field: n.field, count: -1}}, r}
	for _, b := range candidates {
		out = append(out, option{1, written, n.variable, b})
	}
	return out, uint64(len(out)), nil
}

func (g *grammar) candidates(n *node, env environment) ([]binding, error) {
	var out []binding
	for _, value := range n.numbers {
		out = append(out, binding{nil, value, true})
	}
	if n.numbers != nil {
		return out, nil
	}
	l := g.lists[n.source]
	from := 0
	if n.by >= 0 {
		if !env[n.by].bound {
			return nil, fmt.Errorf("%s is not bound", g.variables[n.by])
		}
		from = env[n.by].value * l.span
	}
	for i := from; i < from+l.span; i++ {
		out = append(out, binding{l, i, true})
	}
	for _, v := range n.without {
		before := len(out)
		out = slices.DeleteFunc(out, func(b binding) bool { return b == env[v] })
		if len(out) != before-1 {
			return nil, fmt.Errorf("%s is not one of the entries", g.variables[v])
		}
	}
	return out, nil
}

// draw writes one story and returns its information content in bits.
func (g *grammar) draw(rng *random) (string, float64, error) {
	var out strings.Builder
	env := make(environment, len(g.variables))
	r, bits := &rest{g.rules[start], nil}, 0.0
	for {
		n, after, err := g.advance(&out, r, env)
		if err != nil || n == nil {
			return out.String(), bits, err
		}
		options, total, err := g.options(n, after, env)
		if err != nil {
			return "", 0, err
		}
		k, at := 0, rng.below(total)
		for at >= options[k].weight {
			at -= options[k].weight
			k++
		}
		options[k].bind(env)
		bits += surprise(options[k].weight, total)
		r = options[k].rest
	}
}

// surprise is the information content of an outcome of probability weight/total.
func surprise(weight, total uint64) float64 { return math.Log2(float64(total) / float64(weight)) }

// bits recomputes the information content from the text alone: at every choice,
// it takes the option that begins as the text goes on. An option's beginning is
// all that it writes up to the next choice. It fails with errAmbiguous when one
// beginning at any choice on the way is a prefix of another, so that where it
// succeeds there is no second derivation.
func (g *grammar) bits(text string) (float64, error) {
	env := make(environment, len(g.variables))
	var begin strings.Builder
	n, after, err := g.advance(&begin, &rest{g.rules[start], nil}, env)
	if err != nil {
		return 0, err
	}
	at, bits := 0, 0.0
	ok := strings.HasPrefix(text, begin.String())
	if ok {
		at = begin.Len()
	}
	for ok && n != nil {
		options, total, err := g.options(n, after, env)
		if err != nil {
			return 0, err
		}
		ok = false
		beginnings := make([]string, len(options))
		before := slices.Clone(env)
		scratch := make(environment, len(env))
		width := 0
		for i := range options {
			o := &options[i]
			copy(scratch, before)
			o.bind(scratch)
			var b strings.Builder
			m, follow, err := g.advance(&b, o.rest, scratch)
			if err != nil {
				return 0, err
			}
			beginnings[i] = b.String()
			if strings.HasPrefix(text[at:], beginnings[i]) {
				ok, n, after, width = true, m, follow, b.Len()
				copy(env, scratch)
				bits += surprise(o.weight, total)
			}
		}
		if err := prefixFree(beginnings); err != nil {
			return 0, err
		}
		at += width
	}
	if !ok || at != len(text) {
		return 0, fmt.Errorf("read story at byte %d: %w", at, ErrNotStory)
	}
	return bits, nil
}

// prefixFree reports two beginnings of which one is a prefix of the other. In
// sorted order such a pair stands side by side somewhere.
func prefixFree(beginnings []string) error {
	s := slices.Sorted(slices.Values(beginnings))
	for i := 1; i < len(s); i++ {
		if strings.HasPrefix(s[i], s[i-1]) {
			return fmt.Errorf("%w: %q and %q", errAmbiguous, s[i-1], s[i])
		}
	}
	return nil
}
