package chat

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Values are nil (none), bool, int, string, []any, *dict and missing.

// missing is what a name or a member is that is not there.
type missing struct {
	name string
}

// dict keeps the order of its members. A namespace is one whose members can be set.
type dict struct {
	keys    []string
	members map[string]any
	space   bool
}

func newDict(pairs ...any) *dict {
	d := &dict{members: map[string]any{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		if key, ok := pairs[i].(string); ok {
			d.set(key, pairs[i+1])
		}
	}
	return d
}

func (d *dict) set(key string, v any) {
	if _, ok := d.members[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.members[key] = v
}

// kindOf names the kind of a value in errors.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case bool:
		return "a boolean"
	case int:
		return "an integer"
	case string:
		return "a string"
	case []any:
		return "a list"
	case *dict:
		return "a mapping"
	case missing:
		return strconv.Quote(v.name) + ", which is not defined"
	}
	return "a function"
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil, missing:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case *dict:
		return v.space || len(v.keys) > 0
	}
	return true
}

// equal is Python's ==, in which True is 1. Mappings and lists within what is compared are not looked into: no template needs it, and a hostile one could
// make that take forever.
func equal(a, b any) (bool, error) {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x == y, nil
	}
	switch a := a.(type) {
	case nil:
		return b == nil, nil
	case string:
		s, ok := b.(string)
		return ok && a == s, nil
	case missing:
		_, ok := b.(missing)
		return ok, nil
	case []any:
		l, ok := b.([]any)
		if !ok || len(a) != len(l) || len(a) == 0 {
			return ok && len(a) == len(l), nil
		}
	case *dict:
		d, ok := b.(*dict)
		if !ok || a == d || len(a.keys) != len(d.keys) || a.space || d.space {
			return ok && a == d, nil
		}
		return sameMembers(a, d)
	}
	return false, unsupported("comparison of", kindOf(a))
}

func sameMembers(a, b *dict) (bool, error) {
	for _, key := range a.keys {
		v, w := a.members[key], b.members[key]
		switch v.(type) {
		case []any, *dict:
			return false, unsupported("comparison of mappings with", kindOf(v))
		}
		if _, ok := b.members[key]; !ok {
			return false, nil
		}
		if same, err := equal(v, w); !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

func number(v any) (int, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int:
		return v, true
	}
	return 0, false
}

// text is what {{ }} prints of a value, as Python's str does.
func text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "None", nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case int:
		return strconv.Itoa(v), nil
	case string:
		return v, nil
	case missing:
		return "", nil
	}
	return "", unsupported("printing", kindOf(v))
}

// toJSON is json.dumps with ensure_ascii off.
func toJSON(b *strings.Builder, v any, indent, depth int) error {
	if depth > maxDepth || b.Len() > maxText {
		return failf("tojson: the value is too large")
	}
	separator := ", "
	line := func(depth int) {
		if indent >= 0 {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(" ", indent*depth))
		}
	}
	if indent >= 0 {
		separator = ","
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int:
		b.WriteString(strconv.Itoa(v))
	case string:
		quoteJSON(b, v)
	case []any:
		b.WriteByte('[')
		for i, member := range v {
			if i > 0 {
				b.WriteString(separator)
			}
			line(depth + 1)
			if err := toJSON(b, member, indent, depth+1); err != nil {
				return err
			}
		}
		if len(v) > 0 {
			line(depth)
		}
		b.WriteByte(']')
	case *dict:
		if v.space {
			return failf("tojson of a namespace")
		}
		b.WriteByte('{')
		for i, key := range v.keys {
			if i > 0 {
				b.WriteString(separator)
			}
			line(depth + 1)
			quoteJSON(b, key)
			b.WriteString(": ")
			if err := toJSON(b, v.members[key], indent, depth+1); err != nil {
				return err
			}
		}
		if len(v.keys) > 0 {
			line(depth)
		}
		b.WriteByte('}')
	default:
		return failf("tojson of %s", kindOf(v))
	}
	return nil
}

func quoteJSON(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r >= 0x20:
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		default:
			code, err := json.Marshal(string(r)) // \b, \f, \r, \t and \u00XX are the same everywhere
			if err == nil {
				b.Write(code[1 : len(code)-1])
			}
		}
	}
	b.WriteByte('"')
}
