package chat

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// examples are conversations under templates, and what transformers makes of them.
type examples struct {
	Templates     map[string]string
	Conversations map[string][]Message
	Cases         []struct {
		Template, Conversation string
		Prompt                 bool `json:"add_generation_prompt"`
		Vars                   map[string]any
		Want                   *string // null: the template refuses it
	}
}

func read(t testing.TB, file string) examples {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all examples
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all.Cases {
		for name, v := range c.Vars {
			if f, ok := v.(float64); ok {
				c.Vars[name] = int(f)
			}
		}
	}
	return all
}

// The cases were written by tools/interop/golden/chat.py, with transformers 4.57.6 and Jinja 3.1.6.
func TestGolden(t *testing.T) {
	t.Parallel()
	all := read(t, "testdata/cases.json")
	for _, c := range all.Cases {
		name := c.Template + " " + c.Conversation
		tmpl, err := Parse(all.Templates[c.Template])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := tmpl.Render(all.Conversations[c.Conversation], Options{AddGenerationPrompt: c.Prompt, BOS: "<s>", EOS: "</s>", Vars: c.Vars})
		switch {
		case c.Want == nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrRender):
			t.Errorf("%s: %q, %v, but transformers refuses it", name, got, err)
		case c.Want != nil && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.Want != nil && got != *c.Want:
			t.Errorf("%s: %q\nwant %q", name, got, *c.Want)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for source, says := range map[string]string{
		"{% macro f(x) %}{% endmacro %}":         `statement "macro": not supported`,
		"{% include 'x' %}":                      `statement "include"`,
		"{% raw %}{% endraw %}":                  `statement "raw"`,
		"{% set x %}y{% endset %}":               `form of set for "x"`,
		"{{ x | frobnicate }}":                   `filter "frobnicate"`,
		"{{ x is prime }}":                       `test "prime"`,
		"{{ x.title() }}":                        `method "title"`,
		"{{ cycler(1) }}":                        `function "cycler"`,
		"{{ {'a': 1} }}":                         `operator "{"`,
		"{{ 1.5 }}":                              `number "1."`,
		"{{ 1 / 2 }}":                            `operator "/"`,
		"{{ (1, 2) }}":                           `tuple`,
		"{{ 1 < 2 < 3 }}":                        `chain of comparisons`,
		"{{ '\\x41' }}":                          `escape`,
		"{{ x | tojson(sort_keys=true) }}":       `argument of tojson "sort_keys"`,
		"{% for x in y recursive %}{% endfor %}": `loop "recursive"`,
		"{% if x %}":                             `an if without endif`,
		"{% for x in y %}{% endif %}":            `a for without endfor`,
		"{% endif %}":                            `endif without a beginning`,
		"{{ x":                                   `"}}" is missing`,
		"{{ 'x }}":                               `a string without an end`,
		"{# x":                                   `a comment without an end`,
		"{{ }}":                                  `a value is missing`,
		"{% break %}":                            `break outside of a loop`,
		"{{ " + strings.Repeat("(", 100) + "x" + strings.Repeat(")", 100) + " }}": `nested deeper`,
		strings.Repeat("{% if x %}", 100):                                         `nested deeper`,
		strings.Repeat("x", maxTemplate+1):                                        `bytes, more than`,
		"{{ " + strings.Repeat("not ", 100) + "x }}":                              `nested deeper`,
	} {
		_, err := Parse(source)
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("Parse(%.40q): %v", source, err)
		}
	}
}

// Templates that would take all memory or all time.
func TestBounded(t *testing.T) {
	t.Parallel()
	grow := "{% set n = namespace(x='0123456789abcdef') %}{% for i in range(60000) %}{% set n.x = n.x + n.x %}{% endfor %}"
	for _, source := range []string{
		grow,
		"{% for i in range(60000) %}{% for j in range(60000) %}{% endfor %}{% endfor %}",
		"{% set n = namespace(x=[1]) %}{% for i in range(60000) %}{% set n.x = n.x + n.x %}{% endfor %}",
		"{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
		"{{ range(1000000) }}",
		"{{ strftime_now('%d') }}",
		"{{ none + 1 }}",
		"{{ nothing.at.all }}",
		"{{ 1 // 0 }}",
		"{{ messages[::0] }}",
		"{% set x.y = 1 %}",
	} {
		tmpl, err := Parse(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if _, err := tmpl.Render(nil, Options{}); !errors.Is(err, ErrRender) {
			t.Errorf("%s: %v", source, err)
		}
	}
	long, err := Parse("{{ " + strings.Repeat("1+", maxTemplate/2-10) + "1 }}")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := long.Render(nil, Options{}); err != nil || got != "65527" {
		t.Errorf("a long sum: %s, %v", got, err)
	}
	if _, err := (&Template{}).Render(nil, Options{Vars: map[string]any{"x": 1.5}}); err == nil {
		t.Error("a variable that is a float is taken")
	}
}

func FuzzRender(f *testing.F) {
	for _, source := range read(f, "testdata/cases.json").Templates {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		tmpl, err := Parse(source)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		_, err = tmpl.Render([]Message{{"system", "s"}, {"user", "two\n boats"}}, Options{BOS: "<s>", AddGenerationPrompt: true})
		if err != nil && !errors.Is(err, ErrRender) && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}
