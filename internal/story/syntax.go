package story

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The notation of a grammar. A line that starts in column one begins a list or
// a rule; indented lines continue it. In a rule, a line break with the blanks
// around it is one space and \n is a newline of the story.
//
//	list NAME: FIELD ...        entries WORD/FIELD/FIELD ..., _ for a space
//	list NAME by OTHER: ...     a line "KEY: entries" for each entry of list OTHER
//	NAME: body                  a rule; a story derives from the rule "story"
//
//	{a|3:b}        one of the alternatives, with weights 1 and 3
//	<rule>         the rule's body
//	<v=list>       an entry, uniform; binds v and writes the word. Suffixes:
//	               @u  the entries listed by the entry that u is bound to
//	               -u  not the entry that u is bound to (may be repeated)
//	               .f  writes field f
//	<v=2,3,5>      one of these numbers, uniform; writes the number word
//	<v:=u+w>       binds v to a number computed with +, - or / from variables or digits
//	[v] [v.f]      the word or a field of what v is bound to; [^v] with a capital
//	[v#n]          the word when n is one, else the field "many"
const (
	fieldMany = "many"
	start     = "story" // the rule that every derivation starts from
)

type list struct {
	fields  []string
	by      string     // name of the list whose entries select the entries here; "" for none
	entries [][]string // word, then fields; the sublists of a `by` list one after the other
	span    int        // entries in each sublist; len(entries) for a plain list
}

type nodeKind uint8

const (
	nodeLiteral nodeKind = iota
	nodeChoice           // alternatives
	nodePick             // entry or number, bound to variable
	nodeCompute          // number, bound to variable
	nodeRecall           // writes a variable
	nodeRule             // expands a rule
)

type node struct {
	kind     nodeKind
	text     string // literal; name of the rule
	weights  []uint64
	bodies   [][]node
	variable int
	source   string // list of a pick
	numbers  []int  // numbers of a pick, instead of a list
	by       int    // variable that selects the sublist, -1 for none
	without  []int  // variables whose entries are left out
	field    string
	capital  bool
	count    int     // variable of "#", -1 for none
	operator byte    // of a computation
	operands [2]term // of a computation
}

type term struct{ variable, number int } // variable -1: the number

type grammar struct {
	lists     map[string]*list
	rules     map[string][]node
	variables []string
}

// parseGrammar reads the notation above. The text comes from this repository,
// so an error is a mistake of the author; tests show it.
func parseGrammar(text string) (*grammar, error) {
	g := &grammar{lists: map[string]*list{}, rules: map[string][]node{}}
	var blocks [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.TrimSpace(line) == "":
		case line[0] != ' ':
			blocks = append(blocks, []string{line})
		case len(blocks) == 0:
			return nil, fmt.Errorf("read grammar: text before the first list or rule: %q", line)
		default:
			blocks[len(blocks)-1] = append(blocks[len(blocks)-1], strings.TrimSpace(line))
		}
	}
	for _, b := range blocks {
		head, rest, ok := strings.Cut(b[0], ":")
		if !ok {
			return nil, fmt.Errorf("read grammar: no colon in %q", b[0])
		}
		rest = strings.TrimSpace(rest)
		var err error
		if name, isList := strings.CutPrefix(head, "list "); isList {
			err = g.addList(name, strings.Fields(rest), b[1:])
		} else {
			p := parser{g: g, s: strings.ReplaceAll(strings.TrimSpace(strings.Join(append([]string{rest}, b[1:]...), " ")), `\n`, "\n")}
			p.s = strings.ReplaceAll(p.s, "\n ", "\n")
			g.rules[head], err = p.body("")
		}
		if err != nil {
			return nil, fmt.Errorf("read grammar: %s: %w", head, err)
		}
	}
	if g.rules[start] == nil {
		return nil, fmt.Errorf("read grammar: no rule %q", start)
	}
	return g, nil
}

func (g *grammar) addList(name string, fields, lines []string) error {
	name, by, _ := strings.Cut(name, " by ")
	l := &list{fields: fields, by: by}
	g.lists[name] = l
	for i, line := range lines {
		if by != "" {
			key, entries, ok := strings.Cut(line, ": ")
			outer := g.lists[by]
			if !ok || outer == nil || i >= len(outer.entries) || outer.entries[i][0] != key {
				return fmt.Errorf("line %q does not match entry %d of list %q", line, i, by)
			}
			line = entries
		}
		words := strings.Fields(line)
		for _, w := range words {
			entry := strings.Split(strings.ReplaceAll(w, "_", " "), "/")
			if len(entry) != 1+len(fields) {
				return fmt.Errorf("entry %q has %d fields, not %d", w, len(entry)-1, len(fields))
			}
			l.entries = append(l.entries, entry)
		}
		if by != "" && len(words)*(i+1) != len(l.entries) {
			return fmt.Errorf("line %q: all sublists must have the same length, or the entropy is no plain sum", line)
		}
	}
	l.span = len(l.entries)
	if by != "" {
		l.span = len(l.entries) / len(g.lists[by].entries)
	}
	return nil
}

func (g *grammar) variable(name string) int {
	if i := slices.Index(g.variables, name); i >= 0 {
		return i
	}
	g.variables = append(g.variables, name)
	return len(g.variables) - 1
}

type parser struct {
	g *grammar
	s string
	i int
}

// body reads nodes up to one of the bytes in end, which it leaves.
func (p *parser) body(end string) ([]node, error) {
	nodes := []node{}
	for p.i < len(p.s) && !strings.ContainsRune(end, rune(p.s[p.i])) {
		var n node
		var err error
		switch p.s[p.i] {
		case '{':
			n, err = p.choice()
		case '<':
			n, err = p.bracket('>', p.angle)
		case '[':
			n, err = p.bracket(']', p.recall)
		default:
			j := p.i
			for p.i < len(p.s) && !strings.ContainsRune("{}<>[]|", rune(p.s[p.i])) {
				p.i++
			}
			if p.i == j {
				return nil, fmt.Errorf("stray %q at byte %d", p.s[j], j)
			}
			n = node{kind: nodeLiteral, text: p.s[j:p.i]}
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func (p *parser) choice() (node, error) {
	n := node{kind: nodeChoice}
	for p.i < len(p.s) && p.s[p.i] != '}' {
		p.i++ // the brace or the bar
		weight := uint64(1)
		if j := p.i; j+1 < len(p.s) && p.s[j] >= '1' && p.s[j] <= '9' && p.s[j+1] == ':' {
			weight = uint64(p.s[j] - '0')
			p.i += 2
		}
		body, err := p.body("|}")
		if err != nil {
			return n, err
		}
		n.weights = append(n.weights, weight)
		n.bodies = append(n.bodies, body)
	}
	if p.i == len(p.s) {
		return n, fmt.Errorf("brace without end")
	}
	p.i++
	return n, nil
}

func (p *parser) bracket(end byte, parse func(string) (node, error)) (node, error) {
	j := strings.IndexByte(p.s[p.i:], end)
	if j < 0 {
		return node{}, fmt.Errorf("no %q after byte %d", end, p.i)
	}
	inner := p.s[p.i+1 : p.i+j]
	p.i += j + 1
	n, err := parse(inner)
	if err != nil {
		return n, fmt.Errorf("%q: %w", inner, err)
	}
	return n, nil
}

func (p *parser) angle(s string) (node, error) {
	if name, expression, ok := strings.Cut(s, ":="); ok {
		n := node{kind: nodeCompute, variable: p.g.variable(name), count: -1}
		i := strings.IndexAny(expression, "+-/")
		if i < 0 {
			return n, fmt.Errorf("no operator")
		}
		n.operator = expression[i]
		n.operands = [2]term{p.term(expression[:i]), p.term(expression[i+1:])}
		return n, nil
	}
	name, source, ok := strings.Cut(s, "=")
	if !ok {
		return node{kind: nodeRule, text: s}, nil
	}
	n := node{kind: nodePick, variable: p.g.variable(name), by: -1, count: -1}
	if source != "" && source[0] >= '0' && source[0] <= '9' {
		for _, word := range strings.Split(source, ",") {
			value, err := strconv.Atoi(word)
			if err != nil {
				return n, err
			}
			n.numbers = append(n.numbers, value)
		}
		return n, nil
	}
	source, n.field, _ = strings.Cut(source, ".")
	parts := strings.Split(source, "-")
	for _, other := range parts[1:] {
		n.without = append(n.without, p.g.variable(other))
	}
	var by string
	n.source, by, ok = strings.Cut(parts[0], "@")
	if ok {
		n.by = p.g.variable(by)
	}
	l := p.g.lists[n.source]
	if l == nil || ok != (l.by != "") {
		return n, fmt.Errorf("no such list, or @ where none belongs")
	}
	return n, nil
}

func (p *parser) term(s string) term {
	if value, err := strconv.Atoi(s); err == nil {
		return term{-1, value}
	}
	return term{p.g.variable(s), 0}
}

func (p *parser) recall(s string) (node, error) {
	n := node{kind: nodeRecall, count: -1}
	s, n.capital = strings.CutPrefix(s, "^")
	s, count, ok := strings.Cut(s, "#")
	if ok {
		n.count = p.g.variable(count)
	}
	s, n.field, _ = strings.Cut(s, ".")
	n.variable = p.g.variable(s)
	return n, nil
}
