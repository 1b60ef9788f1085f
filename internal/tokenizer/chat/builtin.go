package chat

import (
	"fmt"
	"strings"
)

// call reads the arguments of a function and refuses those that are not known.
func (p *parser) call(function string) (expr, error) {
	switch function {
	case "raise_exception":
		args, err := p.positional(function, 1, 1)
		if err != nil {
			return nil, err
		}
		return func(e *env) (any, error) {
			v, err := e.eval(args[0])
			if err != nil {
				return nil, err
			}
			s, err := text(v)
			if err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %s", ErrRefused, s)
		}, nil
	case "namespace":
		args, names, named, err := p.arguments()
		if err != nil {
			return nil, err
		}
		if len(args) > 0 {
			return nil, unsupported("argument without a name of", function)
		}
		return func(e *env) (any, error) {
			values, err := e.all(named)
			if err != nil {
				return nil, err
			}
			d := newDict()
			d.space = true
			for i, n := range names {
				d.set(n, values[i])
			}
			return d, nil
		}, nil
	case "range":
		args, err := p.positional(function, 1, 2)
		if err != nil {
			return nil, err
		}
		return func(e *env) (any, error) {
			values, err := e.all(args)
			if err != nil {
				return nil, err
			}
			from := 0
			to, ok := values[len(values)-1].(int)
			if len(values) == 2 && ok {
				from, ok = values[0].(int)
			}
			if !ok || to-from > maxList {
				return nil, failf("range takes integers, at most %d apart", maxList)
			}
			list := []any{}
			for i := from; i < to; i++ {
				list = append(list, i)
			}
			return list, nil
		}, nil
	case "strftime_now":
		// Templates ask whether it is defined before they call it, and it is not.
		if _, _, _, err := p.arguments(); err != nil {
			return nil, err
		}
		return func(*env) (any, error) {
			return nil, failf("strftime_now is not defined: set the variable date_string")
		}, nil
	}
	return nil, unsupported("function", function)
}

// method reads a call of a method of a string or a mapping.
func (p *parser) method(x expr, method string) (expr, error) {
	least, most := 0, 0
	switch method {
	case "strip", "lstrip", "rstrip", "split":
		most = 1
	case "startswith", "endswith":
		least, most = 1, 1
	case "replace":
		least, most = 2, 2
	case "get":
		least, most = 1, 2
	case "upper", "lower", "items", "keys", "values":
	default:
		return nil, unsupported("method", method)
	}
	args, err := p.positional(method, least, most)
	if err != nil {
		return nil, err
	}
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		values, err := e.all(args)
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case *dict:
			if !v.space {
				return dictMethod(v, method, values)
			}
		case string:
			words := make([]string, len(values))
			for i, w := range values {
				s, ok := w.(string)
				if !ok {
					return nil, failf("%s of a string and %s", method, kindOf(w))
				}
				words[i] = s
			}
			return stringMethod(v, method, words)
		}
		return nil, failf("%s of %s", method, kindOf(v))
	}, nil
}

func dictMethod(d *dict, method string, args []any) (any, error) {
	list := []any{}
	switch method {
	case "get":
		if key, ok := args[0].(string); ok {
			if v, ok := d.members[key]; ok {
				return v, nil
			}
		}
		if len(args) == 2 {
			return args[1], nil
		}
		return nil, nil
	case "items":
		for _, key := range d.keys {
			list = append(list, []any{key, d.members[key]})
		}
	case "keys":
		for _, key := range d.keys {
			list = append(list, key)
		}
	case "values":
		for _, key := range d.keys {
			list = append(list, d.members[key])
		}
	default:
		return nil, failf("%s of a mapping", method)
	}
	return list, nil
}

func stringMethod(s, method string, args []string) (any, error) {
	space := isSpace
	if len(args) > 0 {
		space = func(r rune) bool { return strings.ContainsRune(args[0], r) }
	}
	switch method {
	case "strip":
		return strings.TrimFunc(s, space), nil
	case "lstrip":
		return strings.TrimLeftFunc(s, space), nil
	case "rstrip":
		return strings.TrimRightFunc(s, space), nil
	case "startswith":
		return strings.HasPrefix(s, args[0]), nil
	case "endswith":
		return strings.HasSuffix(s, args[0]), nil
	case "upper":
		return strings.ToUpper(s), nil
	case "lower":
		return strings.ToLower(s), nil
	case "replace":
		if n := len(s) + strings.Count(s, args[0])*len(args[1]); n > maxText {
			return nil, failf("a string of %d bytes", n)
		}
		return strings.ReplaceAll(s, args[0], args[1]), nil
	case "split":
		var parts []string
		if len(args) == 0 {
			parts = strings.FieldsFunc(s, isSpace)
		} else if args[0] == "" {
			return nil, failf("split by an empty string")
		} else {
			parts = strings.Split(s, args[0])
		}
		if len(parts) > maxList {
			return nil, failf("split into %d parts", len(parts))
		}
		list := make([]any, len(parts))
		for i, part := range parts {
			list[i] = part
		}
		return list, nil
	}
	return nil, failf("%s of a string", method)
}

// filter reads the filter that follows a value.
func (p *parser) filter(x expr) (expr, error) {
	filter, err := p.identifier()
	if err != nil {
		return nil, err
	}
	var args []expr
	switch filter {
	case "trim", "length", "count", "string", "lower", "upper", "first", "last", "list":
		args, err = p.positional(filter, 0, 0)
	case "join":
		args, err = p.positional(filter, 0, 1)
	case "default", "d":
		args, err = p.positional(filter, 1, 2)
	case "tojson":
		args, err = p.positional(filter, 0, 0, "indent")
	case "replace":
		args, err = p.positional(filter, 2, 2)
	case "selectattr", "rejectattr":
		args, err = p.positional(filter, 1, 3)
	default:
		return nil, unsupported("filter", filter)
	}
	if err != nil {
		return nil, err
	}
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		values, err := e.all(args)
		if err != nil {
			return nil, err
		}
		return apply(filter, v, values)
	}, nil
}

func apply(filter string, v any, args []any) (any, error) {
	switch filter {
	case "default", "d":
		if _, absent := v.(missing); absent || len(args) == 2 && truth(args[1]) && !truth(v) {
			return args[0], nil
		}
		return v, nil
	case "trim", "string", "lower", "upper", "replace":
		s, err := text(v)
		if err != nil || filter == "string" {
			return s, err
		}
		if filter == "trim" {
			filter = "strip"
		}
		words := make([]string, len(args))
		for i, w := range args {
			if words[i], err = text(w); err != nil {
				return nil, err
			}
		}
		return stringMethod(s, filter, words)
	case "tojson":
		indent := -1
		if len(args) == 1 && args[0] != nil {
			n, ok := args[0].(int)
			if !ok || n < 0 || n > 16 {
				return nil, failf("tojson with an indent that is not within 0 and 16")
			}
			indent = n
		}
		var b strings.Builder
		err := toJSON(&b, v, indent, 0)
		return b.String(), err
	case "length", "count":
		if s, ok := v.(string); ok {
			return len([]rune(s)), nil
		}
	}
	list, err := members(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filter, err)
	}
	switch filter {
	case "length", "count":
		return len(list), nil
	case "first", "last":
		if len(list) == 0 {
			return missing{"the " + filter + " of nothing"}, nil
		}
		if filter == "first" {
			return list[0], nil
		}
		return list[len(list)-1], nil
	case "join":
		return joined(list, args)
	case "selectattr", "rejectattr":
		return selected(list, args, filter == "selectattr")
	}
	return list, nil
}

func joined(list, args []any) (any, error) {
	between := ""
	if len(args) > 0 {
		var err error
		if between, err = text(args[0]); err != nil {
			return nil, err
		}
	}
	var b strings.Builder
	for i, v := range list {
		s, err := text(v)
		if err != nil {
			return nil, err
		}
		if b.Len()+len(s)+len(between) > maxText {
			return nil, failf("a string of more than %d bytes", maxText)
		}
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// selected keeps mappings by a member: whether it is true, or whether it equals a value, or whether it is defined.
func selected(list, args []any, keep bool) (any, error) {
	key, ok := args[0].(string)
	if !ok || strings.Contains(key, ".") {
		return nil, unsupported("attribute", kindOf(args[0]))
	}
	out := []any{}
	for _, v := range list {
		d, ok := v.(*dict)
		if !ok {
			return nil, failf("an attribute of %s", kindOf(v))
		}
		member, ok := d.members[key]
		if !ok {
			member = missing{key}
		}
		yes := truth(member)
		if len(args) > 1 {
			var err error
			if yes, err = attributeTest(member, args[1:]); err != nil {
				return nil, err
			}
		}
		if yes == keep {
			out = append(out, v)
		}
	}
	return out, nil
}

// attributeTest is a test of selectattr, by its name and at most one argument.
func attributeTest(member any, args []any) (bool, error) {
	switch name := fmt.Sprint(args[0]); {
	case len(args) == 2 && (name == "equalto" || name == "==" || name == "eq"):
		return equal(member, args[1])
	case len(args) == 2 && (name == "ne" || name == "!="):
		same, err := equal(member, args[1])
		return !same, err
	case len(args) == 1 && (name == "defined" || name == "undefined"):
		_, absent := member.(missing)
		return absent == (name == "undefined"), nil
	case len(args) == 1 && name == "none":
		return member == nil, nil
	default:
		return false, unsupported("test of an attribute", name)
	}
}

// test reads the test that follows `is`.
func (p *parser) test(x expr) (expr, error) {
	negative := p.accept(name, "not")
	word := p.take()
	if word.kind != name {
		return nil, invalidf("line %d: %q where a test should be", word.line, word.text)
	}
	var is func(any) bool
	switch word.text {
	case "defined":
		is = func(v any) bool { _, absent := v.(missing); return !absent }
	case "undefined":
		is = func(v any) bool { _, absent := v.(missing); return absent }
	case "none":
		is = func(v any) bool { return v == nil }
	case "true":
		is = func(v any) bool { return v == true }
	case "false":
		is = func(v any) bool { return v == false }
	case "boolean":
		is = func(v any) bool { _, ok := v.(bool); return ok }
	case "integer":
		is = func(v any) bool { _, ok := v.(int); return ok }
	case "string":
		is = func(v any) bool { _, ok := v.(string); return ok }
	case "mapping":
		is = func(v any) bool { d, ok := v.(*dict); return ok && !d.space }
	case "iterable", "sequence":
		is = func(v any) bool {
			switch v := v.(type) {
			case string, []any, missing:
				return true
			case *dict:
				return !v.space
			}
			return false
		}
	default:
		return nil, unsupported("test", word.text)
	}
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		return is(v) != negative, err
	}, nil
}
