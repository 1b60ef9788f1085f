package chat

import (
	"strconv"
)

// An expr gives its value in an environment.
type expr func(*env) (any, error)

// parser reads expressions by precedence, lowest first, as the Jinja documentation lists them.
type parser struct {
	tokens []token
	at     int
	depth  int
	loops  int
}

func (p *parser) peek() token {
	return p.tokens[p.at]
}

func (p *parser) line() int {
	return p.peek().line
}

// take moves on, but never behind the end.
func (p *parser) take() token {
	t := p.tokens[p.at]
	if t.kind != eof {
		p.at++
	}
	return t
}

func (p *parser) is(kind tokenKind, text string) bool {
	t := p.peek()
	return t.kind == kind && t.text == text
}

func (p *parser) accept(kind tokenKind, text string) bool {
	if p.is(kind, text) {
		p.take()
		return true
	}
	return false
}

func (p *parser) expect(kind tokenKind, text string) error {
	if !p.accept(kind, text) {
		return invalidf("line %d: %q where %q should be", p.line(), p.peek().text, text)
	}
	return nil
}

func (p *parser) identifier() (string, error) {
	t := p.take()
	if t.kind != name {
		return "", invalidf("line %d: %q where a name should be", t.line, t.text)
	}
	switch t.text {
	case "and", "or", "not", "in", "is", "if", "else", "elif", "true", "false", "none", "True", "False", "None":
		return "", invalidf("line %d: the word %q where a name should be", t.line, t.text)
	}
	return t.text, nil
}

// deeper counts nesting, which recursion follows.
func (p *parser) deeper() error {
	if p.depth++; p.depth > maxDepth {
		return invalidf("line %d: it is nested deeper than %d", p.line(), maxDepth)
	}
	return nil
}

// expression is `a if b else c`, the lowest.
func (p *parser) expression() (expr, error) {
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	then, err := p.or()
	if err != nil {
		return nil, err
	}
	for p.accept(name, "if") {
		condition, err := p.or()
		if err != nil {
			return nil, err
		}
		otherwise := func(*env) (any, error) { return missing{"the else of an expression"}, nil }
		var last expr = otherwise
		if p.accept(name, "else") {
			if last, err = p.expression(); err != nil {
				return nil, err
			}
		}
		yes := then
		then = func(e *env) (any, error) {
			c, err := e.eval(condition)
			if err != nil {
				return nil, err
			}
			if truth(c) {
				return e.eval(yes)
			}
			return e.eval(last)
		}
	}
	return then, nil
}

// either joins operands by a word; the second is not looked at when the first decides, and the value is that of the operand that decided.
func (p *parser) either(word string, decides bool, operand func() (expr, error)) (expr, error) {
	left, err := operand()
	for err == nil && p.accept(name, word) {
		a := left
		var b expr
		if b, err = operand(); err != nil {
			return nil, err
		}
		left = func(e *env) (any, error) {
			v, err := e.eval(a)
			if err != nil || truth(v) == decides {
				return v, err
			}
			return e.eval(b)
		}
	}
	return left, err
}

func (p *parser) or() (expr, error) {
	return p.either("or", true, p.and)
}

func (p *parser) and() (expr, error) {
	return p.either("and", false, p.not)
}

func (p *parser) not() (expr, error) {
	if !p.accept(name, "not") {
		return p.compare()
	}
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	x, err := p.not()
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		return !truth(v), err
	}, err
}

// compare reads one comparison: a < b < c has another meaning in Python, and no template needs it.
func (p *parser) compare() (expr, error) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	op := p.comparison()
	if op == "" {
		return left, nil
	}
	right, err := p.sum()
	if err != nil {
		return nil, err
	}
	if p.comparison() != "" {
		return nil, unsupported("chain of comparisons with", op)
	}
	return binary(op, left, right), nil
}

func (p *parser) comparison() string {
	t := p.peek()
	switch {
	case t.kind == operator && (t.text == "==" || t.text == "!=" || t.text == "<" || t.text == ">" || t.text == "<=" || t.text == ">="):
		return p.take().text
	case p.accept(name, "in"):
		return "in"
	case t.kind == name && t.text == "not" && p.tokens[p.at+1].kind == name && p.tokens[p.at+1].text == "in":
		p.at += 2
		return "not in"
	}
	return ""
}

// chain reads operands joined by some operators, from left to right.
func (p *parser) chain(operand func() (expr, error), operators ...string) (expr, error) {
	left, err := operand()
	for err == nil {
		op := ""
		for _, o := range operators {
			if p.accept(operator, o) {
				op = o
				break
			}
		}
		if op == "" {
			return left, nil
		}
		var right expr
		if right, err = operand(); err == nil {
			left = binary(op, left, right)
		}
	}
	return nil, err
}

func (p *parser) sum() (expr, error) {
	return p.chain(p.concat, "+", "-")
}

func (p *parser) concat() (expr, error) {
	return p.chain(p.product, "~")
}

func (p *parser) product() (expr, error) {
	return p.chain(p.unary, "*", "//", "%")
}

func (p *parser) unary() (expr, error) {
	x, err := p.signed()
	if err != nil {
		return nil, err
	}
	return p.filtered(x)
}

// signed is a number with its sign, or a thing with what follows it. Filters stand outside the sign.
func (p *parser) signed() (expr, error) {
	if !p.accept(operator, "-") {
		return p.primary()
	}
	if err := p.deeper(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	x, err := p.signed()
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		n, ok := v.(int)
		if !ok {
			return nil, failf("the negative of %s", kindOf(v))
		}
		return -n, nil
	}, err
}

func constant(v any) expr {
	return func(*env) (any, error) { return v, nil }
}

// primary is a literal, a name, a call of a function, a list or something in brackets, with the members and slices that follow.
func (p *parser) primary() (expr, error) {
	var x expr
	var err error
	switch t := p.take(); t.kind {
	case literal:
		s := t.text
		for p.peek().kind == literal { // neighbours are one
			s += p.take().text
		}
		x = constant(s)
	case integer:
		n, err := strconv.Atoi(t.text)
		if err != nil {
			return nil, invalidf("line %d: %w", t.line, err)
		}
		x = constant(n)
	case name:
		p.at--
		if x, err = p.named(); err != nil {
			return nil, err
		}
	case operator:
		switch t.text {
		case "(":
			if x, err = p.expression(); err != nil {
				return nil, err
			}
			if p.is(operator, ",") {
				return nil, unsupported("tuple at line", strconv.Itoa(t.line))
			}
			if err := p.expect(operator, ")"); err != nil {
				return nil, err
			}
		case "[":
			if x, err = p.list(); err != nil {
				return nil, err
			}
		default:
			return nil, invalidf("line %d: %q where a value should be", t.line, t.text)
		}
	default:
		return nil, invalidf("line %d: a value is missing", t.line)
	}
	return p.members(x)
}

func (p *parser) named() (expr, error) {
	switch word := p.peek().text; word {
	case "true", "True", "false", "False":
		p.take()
		return constant(word == "true" || word == "True"), nil
	case "none", "None":
		p.take()
		return constant(nil), nil
	}
	word, err := p.identifier()
	if err != nil {
		return nil, err
	}
	if p.is(operator, "(") {
		return p.call(word)
	}
	return func(e *env) (any, error) { return e.lookup(word), nil }, nil
}

func (p *parser) list() (expr, error) {
	var all []expr
	for !p.accept(operator, "]") {
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		all = append(all, x)
		if !p.is(operator, "]") {
			if err := p.expect(operator, ","); err != nil {
				return nil, err
			}
		}
	}
	return func(e *env) (any, error) { return e.all(all) }, nil
}

// members reads what follows a value: .member, .method(), [index], [from:to:step].
func (p *parser) members(x expr) (expr, error) {
	for {
		switch {
		case p.accept(operator, "."):
			member, err := p.identifier()
			if err != nil {
				return nil, err
			}
			if !p.is(operator, "(") {
				x = index(x, constant(member), true)
				continue
			}
			if x, err = p.method(x, member); err != nil {
				return nil, err
			}
		case p.accept(operator, "["):
			var err error
			if x, err = p.subscript(x); err != nil {
				return nil, err
			}
		case p.is(operator, "("):
			return nil, unsupported("call of a value at line", strconv.Itoa(p.line()))
		default:
			return x, nil
		}
	}
}

func (p *parser) subscript(x expr) (expr, error) {
	var bounds [3]expr // nil: left out
	n := 0
	for {
		if !p.is(operator, ":") && !p.is(operator, "]") {
			b, err := p.expression()
			if err != nil {
				return nil, err
			}
			bounds[n] = b
		}
		if n < 2 && p.accept(operator, ":") {
			n++
			continue
		}
		if err := p.expect(operator, "]"); err != nil {
			return nil, err
		}
		break
	}
	if n > 0 {
		return slice(x, bounds), nil
	}
	if bounds[0] == nil {
		return nil, invalidf("line %d: an index is missing", p.line())
	}
	return index(x, bounds[0], false), nil
}

// arguments reads those of a call, by place and by name.
func (p *parser) arguments() (args []expr, names []string, named []expr, err error) {
	if err := p.expect(operator, "("); err != nil {
		return nil, nil, nil, err
	}
	for !p.accept(operator, ")") {
		if p.peek().kind == name && p.tokens[p.at+1].kind == operator && p.tokens[p.at+1].text == "=" {
			names = append(names, p.take().text)
			p.take()
			x, err := p.expression()
			if err != nil {
				return nil, nil, nil, err
			}
			named = append(named, x)
		} else {
			x, err := p.expression()
			if err != nil {
				return nil, nil, nil, err
			}
			if len(names) > 0 {
				return nil, nil, nil, invalidf("line %d: an argument without a name after one with a name", p.line())
			}
			args = append(args, x)
		}
		if !p.is(operator, ")") {
			if err := p.expect(operator, ","); err != nil {
				return nil, nil, nil, err
			}
		}
	}
	return args, names, named, nil
}

// positional reads the arguments of what takes at least and at most so many, none by name but those listed, which stand behind the others.
func (p *parser) positional(what string, least, most int, keywords ...string) ([]expr, error) {
	if !p.is(operator, "(") && least == 0 {
		return nil, nil
	}
	args, names, named, err := p.arguments()
	if err != nil {
		return nil, err
	}
	if len(args) < least || len(args) > most {
		return nil, unsupported("number of arguments of "+what, strconv.Itoa(len(args)))
	}
	for i, n := range names {
		if i >= len(keywords) || n != keywords[i] || len(names) > 1 {
			return nil, unsupported("argument of "+what, n)
		}
		args = append(args, named[i])
	}
	return args, nil
}

// filtered reads filters and tests.
func (p *parser) filtered(x expr) (expr, error) {
	for {
		var err error
		switch {
		case p.accept(operator, "|"):
			x, err = p.filter(x)
		case p.accept(name, "is"):
			x, err = p.test(x)
		default:
			return x, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
