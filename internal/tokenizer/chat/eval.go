package chat

import (
	"slices"
	"strings"
)

// env is one rendering.
type env struct {
	scopes []map[string]any // innermost last
	out    *strings.Builder
	steps  int
}

func (e *env) step() error {
	if e.steps++; e.steps > maxSteps {
		return failf("it takes more than %d steps", maxSteps)
	}
	return nil
}

func (e *env) eval(x expr) (any, error) {
	if err := e.step(); err != nil {
		return nil, err
	}
	v, err := x(e)
	switch v := v.(type) { // long values cost as much as many short ones
	case string:
		e.steps += len(v) >> 10
	case []any:
		e.steps += len(v) >> 6
	}
	return v, err
}

func (e *env) all(list []expr) ([]any, error) {
	values := make([]any, len(list))
	for i, x := range list {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

func (e *env) run(body []statement) error {
	for _, s := range body {
		if err := e.step(); err != nil {
			return err
		}
		if err := s.run(e); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) write(s string) error {
	if e.out.Len()+len(s) > maxText {
		return failf("the text has more than %d bytes", maxText)
	}
	e.out.WriteString(s)
	return nil
}

func (e *env) lookup(name string) any {
	for _, scope := range slices.Backward(e.scopes) {
		if v, ok := scope[name]; ok {
			return v
		}
	}
	return missing{name}
}

// within runs something in a scope of its own.
func (e *env) within(do func(scope map[string]any) (any, error)) (any, error) {
	scope := map[string]any{}
	e.scopes = append(e.scopes, scope)
	v, err := do(scope)
	e.scopes = e.scopes[:len(e.scopes)-1]
	return v, err
}

// members are what a loop goes through.
func members(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case missing: // Jinja's Undefined is empty
		return nil, nil
	case *dict:
		if !v.space {
			list := make([]any, len(v.keys))
			for i, key := range v.keys {
				list[i] = key
			}
			return list, nil
		}
	case string:
		if len(v) > maxList {
			return nil, failf("a loop over %d bytes", len(v))
		}
		var list []any
		for _, r := range v {
			list = append(list, string(r))
		}
		return list, nil
	}
	return nil, failf("a loop over %s", kindOf(v))
}

// index is x.member or x[key]. What is not there is missing, which only fails when something is done with it.
func index(x, key expr, dot bool) expr {
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		k, err := e.eval(key)
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case missing:
			return nil, failf("a member of %s", kindOf(v))
		case *dict:
			if s, ok := k.(string); ok {
				if member, ok := v.members[s]; ok {
					return member, nil
				}
				return missing{s}, nil
			}
		case []any:
			if n, ok := k.(int); ok {
				if n < 0 {
					n += len(v)
				}
				if 0 <= n && n < len(v) {
					return v[n], nil
				}
			}
		case string:
			if n, ok := k.(int); ok {
				runes := []rune(v)
				if n < 0 {
					n += len(runes)
				}
				if 0 <= n && n < len(runes) {
					return string(runes[n]), nil
				}
			}
		}
		label := "a member"
		if s, ok := k.(string); ok {
			label = s
		}
		return missing{label}, nil
	}
}

// slice is x[from:to:step] of lists and strings, as in Python.
func slice(x expr, bounds [3]expr) expr {
	return func(e *env) (any, error) {
		v, err := e.eval(x)
		if err != nil {
			return nil, err
		}
		var list []any
		var runes []rune
		var length int
		switch v := v.(type) {
		case []any:
			list, length = v, len(v)
		case string:
			runes = []rune(v)
			length = len(runes)
		default:
			return nil, failf("a slice of %s", kindOf(v))
		}
		var given [3]*int
		for i, b := range bounds {
			if b == nil {
				continue
			}
			n, err := e.eval(b)
			if err != nil {
				return nil, err
			}
			if n == nil {
				continue
			}
			k, ok := n.(int)
			if !ok {
				return nil, failf("a slice by %s", kindOf(n))
			}
			given[i] = &k
		}
		places, err := slicePlaces(length, given)
		if err != nil {
			return nil, err
		}
		if _, ok := v.(string); ok {
			out := make([]rune, len(places))
			for i, at := range places {
				out[i] = runes[at]
			}
			return string(out), nil
		}
		out := make([]any, len(places))
		for i, at := range places {
			out[i] = list[at]
		}
		return out, nil
	}
}

// slicePlaces gives the places that a slice takes of so many members.
func slicePlaces(length int, given [3]*int) ([]int, error) {
	step := 1
	if given[2] != nil {
		step = *given[2]
	}
	if step == 0 {
		return nil, failf("a slice with step 0")
	}
	low, high := 0, length // what bounds are cut to
	if step < 0 {
		low, high = -1, length-1
	}
	cut := func(n *int, left int) int {
		if n == nil {
			return left
		}
		k := *n
		if k < 0 {
			k += length
		}
		return min(max(k, low), high)
	}
	var places []int
	if step > 0 {
		for i, to := cut(given[0], 0), cut(given[1], length); i < to; i += min(step, length) {
			places = append(places, i)
		}
		return places, nil
	}
	for i, to := cut(given[0], length-1), cut(given[1], -1); i > to; i += max(step, -length) {
		places = append(places, i)
	}
	return places, nil
}

func binary(op string, left, right expr) expr {
	return func(e *env) (any, error) {
		a, err := e.eval(left)
		if err != nil {
			return nil, err
		}
		b, err := e.eval(right)
		if err != nil {
			return nil, err
		}
		switch op {
		case "==", "!=":
			same, err := equal(a, b)
			return same == (op == "=="), err
		case "in", "not in":
			found, err := contains(b, a)
			return found == (op == "in"), err
		case "~":
			s, err := text(a)
			if err != nil {
				return nil, err
			}
			t, err := text(b)
			if err != nil {
				return nil, err
			}
			return join(s, t)
		}
		switch a := a.(type) {
		case int:
			if b, ok := b.(int); ok {
				return arithmetic(op, a, b)
			}
		case string:
			if b, ok := b.(string); ok {
				if op == "+" {
					return join(a, b)
				}
				if v, ok := ordered(op, strings.Compare(a, b)); ok {
					return v, nil
				}
			}
		case []any:
			if b, ok := b.([]any); ok && op == "+" {
				if len(a)+len(b) > maxList {
					return nil, failf("a list of %d members", len(a)+len(b))
				}
				return slices.Concat(a, b), nil
			}
		}
		return nil, failf("%s %s %s", kindOf(a), op, kindOf(b))
	}
}

func join(a, b string) (any, error) {
	if len(a)+len(b) > maxText {
		return nil, failf("a string of %d bytes", len(a)+len(b))
	}
	return a + b, nil
}

func ordered(op string, order int) (bool, bool) {
	switch op {
	case "<":
		return order < 0, true
	case ">":
		return order > 0, true
	case "<=":
		return order <= 0, true
	case ">=":
		return order >= 0, true
	}
	return false, false
}

// arithmetic is that of Python: division goes down, and the remainder has the sign of the divisor. Numbers stay small.
func arithmetic(op string, a, b int) (any, error) {
	if a > 1<<31 || a < -1<<31 || b > 1<<31 || b < -1<<31 {
		return nil, failf("a number above 2^31")
	}
	switch op {
	case "+":
		return a + b, nil
	case "-":
		return a - b, nil
	case "*":
		return a * b, nil
	case "//", "%":
		if b == 0 {
			return nil, failf("a division by 0")
		}
		quotient, rest := a/b, a%b
		if rest != 0 && (rest < 0) != (b < 0) {
			quotient, rest = quotient-1, rest+b
		}
		if op == "%" {
			return rest, nil
		}
		return quotient, nil
	}
	order := 0
	if a < b {
		order = -1
	} else if a > b {
		order = 1
	}
	v, ok := ordered(op, order)
	if !ok {
		return nil, failf("an integer %s an integer", op)
	}
	return v, nil
}

func contains(whole, part any) (bool, error) {
	switch whole := whole.(type) {
	case string:
		if s, ok := part.(string); ok {
			return strings.Contains(whole, s), nil
		}
	case []any:
		for _, v := range whole {
			if same, err := equal(v, part); same || err != nil {
				return same, err
			}
		}
		return false, nil
	case *dict:
		if s, ok := part.(string); ok && !whole.space {
			_, found := whole.members[s]
			return found, nil
		}
	case missing:
		return false, nil
	}
	return false, failf("%s in %s", kindOf(part), kindOf(whole))
}
