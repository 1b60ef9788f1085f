package recipe

import (
	"errors"
	"fmt"
	"math"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds on the text of a recipe. The YAML parser recurses, and a recipe needs little of either.
const (
	maxText  = 1 << 16 // bytes
	maxDepth = 64
)

// source reads YAML nodes strictly: plain maps, lists and scalars, every error with its place.
type source struct{ file string }

func (s source) errorf(at position, format string, args ...any) error {
	return &Error{File: s.file, Line: max(at.line, 1), Column: max(at.column, 1), Err: fmt.Errorf(format, args...)}
}

// document parses text and gives its one document.
func (s source) document(text []byte) (ast.Node, error) {
	if len(text) > maxText {
		return nil, s.errorf(position{}, "recipe has %d bytes, more than %d", len(text), maxText)
	}
	if at, ok := tooDeep(text); ok {
		return nil, s.errorf(at, "lists and maps are more than %d deep", maxDepth)
	}
	file, err := parse(text)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil && syntax.Token.Position != nil {
			p := syntax.Token.Position
			return nil, s.errorf(position{p.Line, p.Column}, "%s", syntax.Message)
		}
		return nil, s.errorf(position{}, "%w", err)
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil || d.Body.Type() == ast.CommentType || d.Body.Type() == ast.CommentGroupType {
			continue
		}
		if body != nil {
			return nil, s.errorf(place(d.Body), "a recipe is one document, and here begins a second one")
		}
		body = d.Body
	}
	if body == nil {
		return nil, s.errorf(position{}, "recipe is empty: it needs steps")
	}
	return body, nil
}

// parse keeps a panic of the YAML parser on text it was not written for from ending the program.
func parse(text []byte) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			file, err = nil, fmt.Errorf("the text cannot be read as YAML")
		}
	}()
	return parser.ParseBytes(text, 0)
}

// tooDeep finds the bracket, or the dash of lists within lists on one line, that opens a level too many. Brackets
// in strings and comments count too: a recipe has no use for that many. Levels by indentation need no bound beyond that of
// the text, since each costs more bytes than the one before.
func tooDeep(text []byte) (position, bool) {
	at, brackets, dashes, leading := position{1, 0}, 0, 0, true
	for _, c := range text {
		at.column++
		switch c {
		case '\n':
			at, dashes, leading = position{at.line + 1, 0}, 0, true
		case '[', '{':
			brackets++
			leading = false
		case ']', '}':
			brackets = max(brackets-1, 0)
			leading = false
		case '-', '?':
			if leading {
				dashes++
			}
		case ' ', '\t':
		default:
			leading = false
		}
		if brackets > maxDepth || dashes > maxDepth {
			return at, true
		}
	}
	return position{}, false
}

// place is where a node begins.
func place(n ast.Node) position {
	switch v := n.(type) {
	case *ast.MappingNode:
		if len(v.Values) > 0 && v.Start != nil && v.Start.Value != "{" {
			return place(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return place(v.Key)
	}
	if n == nil {
		return position{}
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return position{}
	}
	return position{t.Position.Line, t.Position.Column}
}

// pair is one key of a map.
type pair struct {
	key   string
	at    position // of the key
	value ast.Node
}

// fields reads a map in the order of the text and refuses a key that comes twice.
func (s source) fields(n ast.Node, what string) ([]pair, error) {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		return nil, s.wrong(n, what, "a map of keys and values")
	}
	out := make([]pair, 0, len(values))
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return nil, s.errorf(place(v.Key), "keys of %s are plain names", what)
		}
		if seen[key.Value] {
			return nil, s.errorf(place(key), "key %q of %s stands here a second time", key.Value, what)
		}
		seen[key.Value] = true
		out = append(out, pair{key.Value, place(key), v.Value})
	}
	return out, nil
}

// items reads a list.
func (s source) items(n ast.Node, what string) ([]ast.Node, error) {
	v, ok := n.(*ast.SequenceNode)
	if !ok {
		return nil, s.wrong(n, what, "a list")
	}
	return v.Values, nil
}

// texts reads a list of strings, or one string as a list of one.
func (s source) texts(n ast.Node, what string) ([]string, []position, error) {
	nodes := []ast.Node{n}
	if _, ok := n.(*ast.SequenceNode); ok {
		var err error
		if nodes, err = s.items(n, what); err != nil {
			return nil, nil, err
		}
	}
	out, at := make([]string, len(nodes)), make([]position, len(nodes))
	for i, v := range nodes {
		var err error
		if out[i], err = s.text(v, what); err != nil {
			return nil, nil, err
		}
		at[i] = place(v)
	}
	return out, at, nil
}

// text reads a string.
func (s source) text(n ast.Node, what string) (string, error) {
	v, err := s.scalar(n, what)
	if err != nil {
		return "", err
	}
	t, ok := v.(string)
	if !ok {
		return "", s.wrong(n, what, "text, in quotes if it looks like something else")
	}
	return t, nil
}

// scalar reads an int64, uint64 (beyond int64 only), float64, bool or string.
func (s source) scalar(n ast.Node, what string) (any, error) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, nil
	case *ast.LiteralNode:
		return v.Value.Value, nil
	case *ast.BoolNode:
		return v.Value, nil
	case *ast.IntegerNode:
		switch i := v.Value.(type) {
		case int64:
			return i, nil
		case uint64:
			if i <= math.MaxInt64 {
				return int64(i), nil
			}
			return i, nil
		}
	case *ast.FloatNode:
		if !math.IsInf(v.Value, 0) && !math.IsNaN(v.Value) {
			return v.Value, nil
		}
	}
	return nil, s.wrong(n, what, "one value")
}

// wrong refuses a node that is not what it should be.
func (s source) wrong(n ast.Node, what, want string) error {
	have := "nothing"
	switch v := n.(type) {
	case nil, *ast.NullNode:
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		have = "an anchor or alias, which recipes do not use (write names that begin with * or & in quotes)"
	case *ast.TagNode:
		have = "a tag, which recipes do not use"
	case *ast.MappingNode, *ast.MappingValueNode:
		have = "a map"
	case *ast.SequenceNode:
		have = "a list"
	case ast.ScalarNode:
		have = fmt.Sprintf("%v", v.GetValue())
	default:
		have = n.Type().YAMLName()
	}
	return s.errorf(place(n), "%s needs %s, and has %s", what, want, have)
}
