package compress

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ParameterKind is the type of a parameter's values.
type ParameterKind string

// Kinds of parameters, and the Go type of their values.
const (
	ParameterInt    ParameterKind = "int"    // int64
	ParameterBool   ParameterKind = "bool"   // bool
	ParameterFloat  ParameterKind = "float"  // float64, finite
	ParameterString ParameterKind = "string" // string
)

// Parameter describes one parameter of a method, for recipes and for people.
type Parameter struct {
	Name    string        `json:"name"`
	Kind    ParameterKind `json:"kind"`
	Default any           `json:"default"`
	Min     float64       `json:"min,omitempty"` // both 0: not bounded
	Max     float64       `json:"max,omitempty"`
	Choices []string      `json:"choices,omitempty"`
	// The parameter has a meaning only while the parameter When has the value Is.
	When string `json:"when,omitempty"`
	Is   string `json:"is,omitempty"`
	Doc  string `json:"doc"`
}

// Parse reads a value from text, as on a command line.
func (p Parameter) Parse(text string) (any, error) {
	var v any
	var err error
	switch p.Kind {
	case ParameterInt:
		v, err = strconv.ParseInt(text, 10, 64)
	case ParameterFloat:
		v, err = strconv.ParseFloat(text, 64)
	case ParameterBool:
		switch text {
		case "true":
			v = true
		case "false":
			v = false
		default:
			err = strconv.ErrSyntax
		}
	default:
		v = text
	}
	if err != nil {
		return nil, Invalidf("%s is %q, and takes %s", p.Name, text, p.Takes())
	}
	return p.Check(v)
}

// Check refuses a value of the wrong type or out of range. It returns the value as the
// parameter's own type: an int64 given to a float parameter becomes a float64.
func (p Parameter) Check(v any) (any, error) {
	refuse := func() (any, error) {
		shown := fmt.Sprint(v)
		switch x := v.(type) {
		case string:
			shown = strconv.Quote(x)
		case float64:
			if x == math.Trunc(x) && math.Abs(x) < 1e15 {
				shown = strconv.FormatFloat(x, 'f', 1, 64) // 4.0 is not the whole number 4
			}
		}
		return nil, Invalidf("%s is %s, and takes %s", p.Name, shown, p.Takes())
	}
	bounded := p.Min != 0 || p.Max != 0
	switch p.Kind {
	case ParameterInt:
		n, ok := v.(int64)
		if !ok || bounded && (float64(n) < p.Min || float64(n) > p.Max) {
			return refuse()
		}
	case ParameterFloat:
		if n, ok := v.(int64); ok {
			v = float64(n)
		}
		f, ok := v.(float64)
		if !ok || math.IsNaN(f) || math.IsInf(f, 0) || bounded && (f < p.Min || f > p.Max) {
			return refuse()
		}
	case ParameterBool:
		if _, ok := v.(bool); !ok {
			return refuse()
		}
	default:
		s, ok := v.(string)
		if !ok || len(p.Choices) > 0 && !slices.Contains(p.Choices, s) {
			return refuse()
		}
	}
	return v, nil
}

// Takes says in words which values the parameter takes.
func (p Parameter) Takes() string {
	word := "a number"
	switch {
	case p.Kind == ParameterBool:
		return "true or false"
	case len(p.Choices) > 0:
		return strings.Join(p.Choices, ", ")
	case p.Kind == ParameterString:
		return "text"
	case p.Kind == ParameterInt:
		word = "a whole number"
	}
	if p.Min == 0 && p.Max == 0 {
		return word
	}
	return word + " from " + strconv.FormatFloat(p.Min, 'f', -1, 64) + " to " + strconv.FormatFloat(p.Max, 'f', -1, 64)
}
