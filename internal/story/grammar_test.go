package story

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// texts enumerates every derivation of a small grammar: the text and its probability.
func texts(t *testing.T, g *grammar) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	var walk func(prefix string, r *rest, env environment, p float64)
	walk = func(prefix string, r *rest, env environment, p float64) {
		var b strings.Builder
		env = append(environment{}, env...)
		n, after, err := g.advance(&b, r, env)
		if err != nil {
			t.Fatal(err)
		}
		prefix += b.String()
		if n == nil {
			out[prefix] += p
			return
		}
		options, total, err := g.options(n, after, env)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range options {
			inner := append(environment{}, env...)
			o.bind(inner)
			walk(prefix, o.rest, inner, p*float64(o.weight)/float64(total))
		}
	}
	walk("", &rest{g.rules[start], nil}, make(environment, len(g.variables)), 1)
	return out
}

const smallGrammar = `
list who: subj
  Ann/she Bob/he Cy/he
list place:
  sea hill
list thing by place: many
  sea: shell/shells fish/fish
  hill: stone/stones goat/goats
story: <a=who>{3:| and <b=who-a>} went to the <p=place>. <find>{2:| <lose>} End.
find: [^a.subj] saw <n=2,4> <x=thing@p.many>{.| and <y=thing@p-x.many>.}
lose: But <m:=n/2> [x#m] fell, so <n:=n-m> and <k:=n+1>\nhere.
`

// TestSmallGrammarExactly enumerates all texts of a grammar that uses the whole
// notation: their probabilities sum to one, Bits finds each, and the entropy by
// exact sum over rules equals the sum over texts.
func TestSmallGrammarExactly(t *testing.T) {
	t.Parallel()
	g, err := parseGrammar(smallGrammar)
	if err != nil {
		t.Fatal(err)
	}
	var sum, entropy float64
	all := texts(t, g)
	for text, p := range all {
		sum += p
		entropy -= p * math.Log2(p)
		bits, err := g.bits(text)
		if err != nil || math.Abs(bits+math.Log2(p)) > 1e-9 {
			t.Errorf("%q: %v bits, error %v, want %v", text, bits, err, -math.Log2(p))
		}
	}
	if want := 9 * 2 * 2 * 2 * 2 * 2; len(all) != want { // who (3 alone + 6 pairs), place, number, thing, second thing or not, fall or not
		t.Errorf("%d texts, want %d", len(all), want)
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("probabilities sum to %v", sum)
	}
	if got := g.entropy(g.rules[start]); math.Abs(got-entropy) > 1e-9 {
		t.Errorf("entropy %v by rules, %v by texts", got, entropy)
	}
	if want := "Bob and Ann went to the sea. He saw four shells. But two shells fell, so two and three\nhere. End."; all[want] == 0 {
		t.Errorf("no derivation of %q", want)
	}
	if want := "Ann went to the hill. She saw two goats. But one goat fell, so one and two\nhere. End."; all[want] == 0 {
		t.Errorf("no derivation of %q", want)
	}
}

func TestAmbiguousGrammarIsNoticed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"same":          "story: {a|a}",
		"prefix":        "story: {a|ab}{c|bc}",
		"late":          "story: {a{x|y}|a{z|w}}",
		"empty option":  "story: {| a}{ a| b}",
		"through rules": "story: {<r>|<s>}\nr: x{1|2}\ns: x{3|4}",
	} {
		g, err := parseGrammar(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sample, _, err := g.draw(&random{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := g.bits(sample); !errors.Is(err, errAmbiguous) {
			t.Errorf("%s: error %v, want errAmbiguous", name, err)
		}
	}
}

func TestGrammarErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no story":        {"other: x", "no rule"},
		"indented first":  {"  x", "before the first"},
		"no colon":        {"story", "no colon"},
		"no end of brace": {"story: {a|b", "without end"},
		"no end of angle": {"story: <a", "no '>'"},
		"stray bar":       {"story: a}b", "stray"},
		"no list":         {"story: <a=l>", "no such list"},
		"by without key":  {"list p:\n  a b\nlist q by p:\n  b: x\nstory: x", "does not match"},
		"uneven sublists": {"list p:\n  a b\nlist q by p:\n  a: x\n  b: y z\nstory: x", "same length"},
		"fields":          {"list p: f\n  a\nstory: x", "fields"},
		"no operator":     {"story: <a:=3>", "no operator"},
		"number":          {"story: <a=3,b>", "invalid syntax"},
	} {
		if _, err := parseGrammar(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestDerivationErrors(t *testing.T) {
	t.Parallel()
	const list = "list l: f\n  a/b c/d\n"
	for name, c := range map[string]struct{ text, want string }{
		"unbound":        {"story: [x]", "not bound"},
		"no field":       {list + "story: <x=l> [x.g]", "no field"},
		"no rule":        {"story: <r>", "no such rule"},
		"count unbound":  {list + "story: <x=l> [x#n]", "is not bound"},
		"other list":     {list + "story: <n=1> <x=l-n>", "not one of the entries"},
		"by unbound":     {"list p:\n  a\nlist q by p:\n  a: x\nstory: <y=q@p>", "is not bound"},
		"divides":        {"story: <n=3> <m:=n/2>", "does not divide"},
		"no word":        {"story: <n=3> <m:=n-4>", "no word"},
		"operand":        {list + "story: <x=l> <m:=x+1>", "no number"},
		"operand unset":  {"story: <m:=x+1>", "no number"},
		"pick too large": {"story: <n=13>", "no word"},
	} {
		g, err := parseGrammar(c.text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, _, err := g.draw(&random{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}
