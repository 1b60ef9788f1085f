package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func spec() *Spec {
	return &Spec{
		Op: "encode@1", Class: "f32@1",
		Params: []byte(`{"b":1, "a":[{"z":1e-3,"y":"<"}]}`),
		Inputs: []Input{{Source: &Source{Kind: "local", Value: "x"}}},
	}
}

func TestSpecIDDependsOnEveryPart(t *testing.T) {
	t.Parallel()
	id, canonical, err := spec().ID()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"class":"f32@1","inputs":[{"source":{"kind":"local","value":"x"}}],"op":"encode@1","params":{"a":[{"y":"<","z":1e-3}],"b":1}}`; string(canonical) != want {
		t.Errorf("canonical bytes\n got %s\nwant %s", canonical, want)
	}
	for name, change := range map[string]func(*Spec){
		"op":     func(s *Spec) { s.Op = "encode@2" },
		"class":  func(s *Spec) { s.Class = "bf16@1" },
		"salt":   func(s *Spec) { s.Salt = "dev" },
		"params": func(s *Spec) { s.Params = []byte(`{"b":2}`) },
		"value":  func(s *Spec) { s.Inputs[0].Source.Value = "y" },
		"kind":   func(s *Spec) { s.Inputs[0].Source.Kind = "sha256" },
		"more":   func(s *Spec) { s.Inputs = append(s.Inputs, Input{Task: &Output{Name: "o"}}) },
	} {
		s := spec()
		change(s)
		if other, _, err := s.ID(); err != nil || other == id {
			t.Errorf("changing %s leaves the ID as it was (%v)", name, err)
		}
	}
	same := spec()
	same.Params = []byte(" {\"a\" : [{\"y\":\"\\u003c\",\"z\":1e-3}],\"b\":1}")
	if other, _, _ := same.ID(); other != id {
		t.Error("equal parameters in other spelling give another ID")
	}
	back, err := ParseSpec(id, canonical)
	if err != nil {
		t.Fatal(err)
	}
	if again, _, _ := back.ID(); again != id {
		t.Error("a parsed spec has another ID")
	}
	if _, err := ParseSpec(id, append(bytes.Clone(canonical), ' ')); !errors.Is(err, ErrInvalid) {
		t.Errorf("spec with other bytes: %v", err)
	}
}

func result(id ID) *Result {
	return &Result{
		ID: id, Op: "encode@1", Class: "f32@1", Attempt: "01A", Worker: "w",
		Outputs: []Written{{Name: "o", Key: OutputKey(id, "01A", "o"), Size: 3, SHA256: strings.Repeat("ab", 32), Stored: "1-2-3"}},
	}
}

func TestResultEveryDamagedByteIsSeen(t *testing.T) {
	t.Parallel()
	id, _, _ := spec().ID()
	b, err := result(id).Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseResult(id, b)
	if err != nil {
		t.Fatal(err)
	}
	if !SameBytes(r, result(id)) {
		t.Error("result changed on the way")
	}
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 1
		if got, err := ParseResult(id, damaged); err == nil && !SameBytes(got, r) {
			t.Fatalf("byte %d flipped gives another result without an error", i)
		}
		if _, err := ParseResult(id, b[:i]); err == nil {
			t.Fatalf("result cut to %d bytes is accepted", i)
		}
	}
	var other ID
	if _, err := ParseResult(other, b); !errors.Is(err, ErrInvalid) {
		t.Errorf("result of another task: %v", err)
	}
}

func TestResultKeysStayInsideTheirTask(t *testing.T) {
	t.Parallel()
	id, _, _ := spec().ID()
	for name, change := range map[string]func(*Result){
		"attempt":     func(r *Result) { r.Attempt = "../x" },
		"key":         func(r *Result) { r.Outputs[0].Key = "tasks/../../secret" },
		"name":        func(r *Result) { r.Outputs[0].Name = "../o" },
		"size":        func(r *Result) { r.Outputs[0].Size = -1 },
		"hash":        func(r *Result) { r.Outputs[0].SHA256 = "zz" },
		"joined name": func(r *Result) { r.Outputs[0].Name, r.Outputs[0].Key = "../o", OutputKey(id, "01A", "../o") },
	} {
		r := result(id)
		change(r)
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseResult(id, b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	good := Message{Run: "01RUN", Class: "f32", Memory: 5, Location: "file:///m", Files: []File{{Name: "a", Size: 1}}}
	b, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseMessage(b); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Message){
		"run":    func(m *Message) { m.Run = "a.b" },
		"class":  func(m *Message) { m.Class = ">" },
		"memory": func(m *Message) { m.Memory = -1 },
		"repair": func(m *Message) { m.Repair = "a/b" },
		"raised": func(m *Message) { m.Escalate = -1 },
	} {
		m := good
		change(&m)
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseMessage(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := good
	long.Location = strings.Repeat("x", MaxMessage)
	if _, err := long.Encode(); !errors.Is(err, ErrInvalid) {
		t.Errorf("message too long: %v", err)
	}
}

// TestNewerMessage tells what a newer program may have sent from what nobody has.
func TestNewerMessage(t *testing.T) {
	t.Parallel()
	m := Message{ID: ID{1}, Run: "01RUN", Class: "f32"}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for text, newer := range map[string]bool{
		strings.Replace(string(b), "{", `{"pace":3,`, 1):                 true,
		strings.Replace(string(b), "{", `{"copy":"triple",`, 1):          true,
		strings.Replace(string(b), "{", `{"pace":3,"memory":"much",`, 1): false,
		`{"pace":3}`: false, `{`: false, `[]`: false, string(b) + "{}": false,
	} {
		if _, err := ParseMessage([]byte(text)); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrNewer) != newer {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	id, other := ID{1}, ID{2}
	for _, c := range []struct {
		name    string
		failure Failure
		bad     bool
	}{
		{"a dead attempt", Failure{ID: id, Attempt: "a", Kind: Died, Memory: 1 << 30}, false},
		{"a lost input", Failure{ID: id, Attempt: "a", Kind: Lost, Producer: &Producer{ID: other, Attempt: "b"}}, false},
		{"an input whose result is lost", Failure{ID: id, Attempt: "a", Kind: Lost, Producer: &Producer{ID: other}}, false},
		{"a lost input of no real attempt", Failure{ID: id, Attempt: "a", Kind: Lost, Producer: &Producer{ID: other, Attempt: "../b"}}, true},
		{"another task's", Failure{ID: other, Attempt: "a", Kind: Storage}, true},
	} {
		b, err := json.Marshal(c.failure)
		if err != nil {
			t.Fatal(err)
		}
		switch f, err := ParseFailure(id, b); {
		case c.bad && !errors.Is(err, ErrInvalid):
			t.Errorf("%s: %v", c.name, err)
		case !c.bad && (err != nil || !reflect.DeepEqual(*f, c.failure)):
			t.Errorf("%s: %v, %v", c.name, f, err)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind              Kind
		permanent, counts bool
	}{
		{Invalid, true, true}, {Changed, true, true}, {Full, true, true}, {Nondeterministic, true, true},
		{Transient, false, true}, {Internal, false, true}, {Died, false, true},
		{Lost, false, false}, {Storage, false, false},
	} {
		if c.kind.Permanent() != c.permanent || c.kind.Counts() != c.counts {
			t.Errorf("%s: permanent %v, counts %v", c.kind, c.kind.Permanent(), c.kind.Counts())
		}
	}
}

func FuzzParse(f *testing.F) {
	id, canonical, _ := spec().ID()
	r, _ := result(id).Encode()
	m, _ := (&Message{Run: "r", Class: "f32"}).Encode()
	n, _ := (&Notice{ID: id, State: Done}).Encode()
	for _, seed := range [][]byte{canonical, r, m, n} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseMessage(b); err == nil {
			if again, err := m.Encode(); err == nil {
				if _, err := ParseMessage(again); err != nil {
					t.Errorf("message does not survive its own encoding: %v", err)
				}
			}
		}
		if r, err := ParseResult(id, b); err == nil && r.ID != id {
			t.Error("result of another task accepted")
		}
		if c, err := CanonicalJSON(b); err == nil {
			if again, err := CanonicalJSON(c); err != nil || !bytes.Equal(again, c) {
				t.Errorf("canonical form is not a fixed point: %s -> %s (%v)", c, again, err)
			}
		}
		_, _ = ParseNotice(b)
	})
}
