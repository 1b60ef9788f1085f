package chat

import "errors"

// statement is a part of a template that does something.
type statement interface {
	run(e *env) error
}

var (
	errBreak    = errors.New("break")
	errContinue = errors.New("continue")
)

// block reads statements up to a tag that ends a block or begins its next part, and gives that tag's name, which is taken.
func (p *parser) block() ([]statement, string, error) {
	if err := p.deeper(); err != nil {
		return nil, "", err
	}
	defer func() { p.depth-- }()
	var body []statement
	for {
		switch t := p.take(); t.kind {
		case eof:
			return body, "", nil
		case textToken:
			body = append(body, plain(t.text))
		case beginOutput:
			x, err := p.expression()
			if err != nil {
				return nil, "", err
			}
			if err := p.expect(endOutput, "}}"); err != nil {
				return nil, "", err
			}
			body = append(body, output{x})
		default:
			tag := p.take()
			if tag.kind != name {
				return nil, "", invalidf("line %d: a tag without a name", tag.line)
			}
			switch tag.text {
			case "elif", "else", "endif", "endfor":
				return body, tag.text, nil
			}
			s, err := p.tag(tag.text)
			if err != nil {
				return nil, "", err
			}
			body = append(body, s)
		}
	}
}

func (p *parser) tag(word string) (statement, error) {
	switch word {
	case "if":
		return p.branch()
	case "for":
		return p.loop()
	case "set":
		return p.assignment()
	case "break", "continue":
		if p.loops == 0 {
			return nil, invalidf("line %d: %s outside of a loop", p.line(), word)
		}
		if word == "break" {
			return jump{errBreak}, p.expect(endTag, "%}")
		}
		return jump{errContinue}, p.expect(endTag, "%}")
	}
	return nil, unsupported("statement", word)
}

type plain string

func (s plain) run(e *env) error {
	return e.write(string(s))
}

type output struct {
	x expr
}

func (s output) run(e *env) error {
	v, err := e.eval(s.x)
	if err != nil {
		return err
	}
	t, err := text(v)
	if err != nil {
		return err
	}
	return e.write(t)
}

type jump struct {
	where error
}

func (s jump) run(*env) error {
	return s.where
}

// branch is an if with what follows it: conditions and bodies, and one body more if there is an else.
type branch struct {
	conditions []expr
	bodies     [][]statement
}

func (p *parser) branch() (statement, error) {
	var s branch
	for word := "if"; word != "endif"; {
		if word == "else" {
			if len(s.bodies) > len(s.conditions) {
				return nil, invalidf("line %d: a second else", p.line())
			}
		} else {
			if len(s.bodies) > len(s.conditions) {
				return nil, invalidf("line %d: %s after else", p.line(), word)
			}
			condition, err := p.expression()
			if err != nil {
				return nil, err
			}
			s.conditions = append(s.conditions, condition)
		}
		if err := p.expect(endTag, "%}"); err != nil {
			return nil, err
		}
		body, next, err := p.block()
		if err != nil {
			return nil, err
		}
		if next == "" || next == "endfor" {
			return nil, invalidf("line %d: an if without endif", p.line())
		}
		s.bodies = append(s.bodies, body)
		word = next
	}
	return s, p.expect(endTag, "%}")
}

func (s branch) run(e *env) error {
	for i, condition := range s.conditions {
		v, err := e.eval(condition)
		if err != nil {
			return err
		}
		if truth(v) {
			return e.run(s.bodies[i])
		}
	}
	if len(s.bodies) > len(s.conditions) {
		return e.run(s.bodies[len(s.conditions)])
	}
	return nil
}

// assignment sets a name of the scope, or a member of a namespace.
type assignment struct {
	name, member string
	x            expr
}

func (p *parser) assignment() (statement, error) {
	var s assignment
	var err error
	if s.name, err = p.identifier(); err != nil {
		return nil, err
	}
	if p.accept(operator, ".") {
		if s.member, err = p.identifier(); err != nil {
			return nil, err
		}
	}
	if p.is(operator, ",") || p.is(endTag, "%}") {
		return nil, unsupported("form of set for", s.name)
	}
	if err := p.expect(operator, "="); err != nil {
		return nil, err
	}
	if s.x, err = p.expression(); err != nil {
		return nil, err
	}
	return s, p.expect(endTag, "%}")
}

func (s assignment) run(e *env) error {
	v, err := e.eval(s.x)
	if err != nil {
		return err
	}
	if s.member == "" {
		e.scopes[len(e.scopes)-1][s.name] = v
		return nil
	}
	d, ok := e.lookup(s.name).(*dict)
	if !ok || !d.space {
		return failf("set %s.%s: %s is not a namespace", s.name, s.member, s.name)
	}
	d.set(s.member, v)
	return nil
}

// loop runs its body for every member of a list, each time in a scope of its own.
type loop struct {
	names     []string // one, or two for the members of items()
	over      expr
	condition expr // nil: none
	body      []statement
	otherwise []statement // when there is no member
}

func (p *parser) loop() (statement, error) {
	var s loop
	for {
		n, err := p.identifier()
		if err != nil {
			return nil, err
		}
		s.names = append(s.names, n)
		if !p.accept(operator, ",") {
			break
		}
	}
	if err := p.expect(name, "in"); err != nil {
		return nil, err
	}
	var err error
	if s.over, err = p.or(); err != nil { // an if that follows is the loop's
		return nil, err
	}
	if p.accept(name, "if") {
		if s.condition, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.is(name, "recursive") {
		return nil, unsupported("loop", "recursive")
	}
	if err := p.expect(endTag, "%}"); err != nil {
		return nil, err
	}
	var end string
	p.loops++
	s.body, end, err = p.block()
	p.loops--
	if err != nil {
		return nil, err
	}
	if end == "else" {
		if err := p.expect(endTag, "%}"); err != nil {
			return nil, err
		}
		if s.otherwise, end, err = p.block(); err != nil {
			return nil, err
		}
	}
	if end != "endfor" {
		return nil, invalidf("line %d: a for without endfor", p.line())
	}
	return s, p.expect(endTag, "%}")
}

// bind gives the names of the loop their values.
func (s loop) bind(scope map[string]any, v any) error {
	if len(s.names) == 1 {
		scope[s.names[0]] = v
		return nil
	}
	parts, ok := v.([]any)
	if !ok || len(parts) != len(s.names) {
		return failf("for %d names: the member is %s", len(s.names), kindOf(v))
	}
	for i, n := range s.names {
		scope[n] = parts[i]
	}
	return nil
}

func (s loop) run(e *env) error {
	v, err := e.eval(s.over)
	if err != nil {
		return err
	}
	list, err := members(v)
	if err != nil {
		return err
	}
	if s.condition != nil {
		var kept []any
		for _, v := range list {
			if err := e.step(); err != nil {
				return err
			}
			ok, err := e.within(func(scope map[string]any) (any, error) {
				if err := s.bind(scope, v); err != nil {
					return nil, err
				}
				return e.eval(s.condition)
			})
			if err != nil {
				return err
			}
			if truth(ok) {
				kept = append(kept, v)
			}
		}
		list = kept
	}
	if len(list) == 0 {
		return e.run(s.otherwise)
	}
	for i, v := range list {
		if err := e.step(); err != nil {
			return err
		}
		_, err := e.within(func(scope map[string]any) (any, error) {
			if err := s.bind(scope, v); err != nil {
				return nil, err
			}
			about := newDict("index", i+1, "index0", i, "first", i == 0, "last", i == len(list)-1, "length", len(list), "revindex", len(list)-i, "revindex0", len(list)-i-1)
			if i > 0 {
				about.set("previtem", list[i-1])
			}
			if i < len(list)-1 {
				about.set("nextitem", list[i+1])
			}
			scope["loop"] = about
			return nil, e.run(s.body)
		})
		if errors.Is(err, errBreak) {
			return nil
		}
		if err != nil && !errors.Is(err, errContinue) {
			return err
		}
	}
	return nil
}
