// Package task holds the types that travel between coordinator, queue, store
// and workers.
//
// A task is a pure function of what it names, and is named by it: the ID of a
// task is the SHA-256 of the canonical bytes of its Spec, and nothing else (not
// the run, not where the source lies, not the fleet) enters it. So a finished
// task is never done again by anyone, and delivering one twice is harmless.
//
// Nothing in this package does I/O.
package task

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sort"
)

// ErrInvalid marks a spec, message or result that cannot be what it says.
var ErrInvalid = errors.New("invalid task data")

// ErrNewer marks a message that says more than this program understands: it may be
// of a newer one.
var ErrNewer = errors.New("message of a newer version")

// ID names a task: the SHA-256 of its Spec's canonical bytes.
type ID [sha256.Size]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short is enough of the ID for a person to tell tasks apart.
func (id ID) Short() string { return hex.EncodeToString(id[:6]) }

// MarshalText writes the ID in hexadecimal.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseID reads 64 lower-case hexadecimal digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("task id %q: %w: want %d hexadecimal digits", s, ErrInvalid, 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("task id %q: %w: not lower-case hexadecimal", s, ErrInvalid)
	}
	return id, nil
}

// Input is one thing a task reads. Exactly one of the two forms is used.
type Input struct {
	// Source is a file of the checkpoint, by the strongest identity that was
	// known without reading its weights.
	Source *Source `json:"source,omitempty"`
	// Task is an output of another task.
	Task *Output `json:"task,omitempty"`
}

// Source identifies a file of a checkpoint. The kind is part of the identity, so
// that a weak one never stands in for a strong one.
type Source struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

// Output names one output of another task.
type Output struct {
	ID   ID     `json:"id"`
	Name string `json:"name"`
}

// Spec is everything that decides the bytes of a task's outputs.
type Spec struct {
	// Op is the operation with its version, "encode@1".
	Op string `json:"op"`
	// Class is the numeric class with its version, "f32@1".
	Class string `json:"class"`
	// Salt separates the results of development builds from those of releases.
	Salt string `json:"salt,omitempty"`
	// Params are the operation's resolved parameters in canonical JSON.
	Params json.RawMessage `json:"params"`
	Inputs []Input         `json:"inputs"`
}

// Canonical returns the one encoding of a spec, whose SHA-256 is the task's ID.
func (s *Spec) Canonical() ([]byte, error) {
	params, err := CanonicalJSON(s.Params)
	if err != nil {
		return nil, fmt.Errorf("encode parameters of %s: %w", s.Op, err)
	}
	c := *s
	c.Params = params
	if c.Inputs == nil {
		c.Inputs = []Input{}
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode spec of %s: %w", s.Op, err)
	}
	return CanonicalJSON(b)
}

// ID returns the task's name together with the canonical bytes that it hashes.
func (s *Spec) ID() (ID, []byte, error) {
	b, err := s.Canonical()
	if err != nil {
		return ID{}, nil, err
	}
	return sha256.Sum256(b), b, nil
}

// ParseSpec reads the canonical bytes of the task that id names. Bytes that do
// not hash to id are refused, so that a worker need not trust where they came
// from.
func ParseSpec(id ID, b []byte) (*Spec, error) {
	if got := ID(sha256.Sum256(b)); got != id {
		return nil, fmt.Errorf("spec of task %s: %w: its bytes hash to %s", id.Short(), ErrInvalid, got.Short())
	}
	var s Spec
	if err := decodeStrict(b, &s); err != nil {
		return nil, fmt.Errorf("spec of task %s: %w: %w", id.Short(), ErrInvalid, err)
	}
	for i, in := range s.Inputs {
		if (in.Source == nil) == (in.Task == nil) {
			return nil, fmt.Errorf("spec of task %s: %w: input %d is not exactly one of source and task", id.Short(), ErrInvalid, i)
		}
	}
	return &s, nil
}

// token is what may stand in a queue subject or as one element of a key.
var token = regexp.MustCompile(`^[A-Za-z0-9_@-]{1,64}$`)

// ValidToken reports whether s may be part of a subject or a key.
func ValidToken(s string) bool { return token.MatchString(s) }

// Message asks for a task to be done. It names the task, where its spec and its
// sources can be found, and what a worker must have to do it; none of this
// changes what comes out.
type Message struct {
	ID ID `json:"id"`
	// Run is the run that published the message; another run may be served by it.
	Run string `json:"run"`
	// Class and Memory decide which workers are offered the task.
	Class string `json:"class"`
	// Memory is the peak need in bytes beyond the worker's own.
	Memory int64 `json:"memory"`
	// Location is where the source files are, a URL.
	Location string `json:"location,omitempty"`
	// Files are the source files in the order of the spec's source inputs.
	Files []File `json:"files,omitempty"`
	// Repair is the attempt whose output bytes were found lost or damaged; the
	// task is run again although its result exists.
	Repair string `json:"repair,omitempty"`
	// Op is the operation of the spec, so that a worker that does not have it need
	// not read the spec to know.
	Op string `json:"op,omitempty"`
	// Chain says that other tasks wait for this one: it goes before those on which
	// nothing waits.
	Chain bool `json:"chain,omitempty"`
	// Copy tells apart messages that ask for one task at the same time: CopyTwin is
	// beside a straggler, CopyAudit compares bytes with those of the attempt Audit.
	Copy  string `json:"copy,omitempty"`
	Audit string `json:"audit,omitempty"`
	// Avoid names the worker that this copy is not for.
	Avoid string `json:"avoid,omitempty"`
	// Escalate is how many memory classes above its own the task is offered to,
	// because it killed workers of smaller ones.
	Escalate int `json:"escalate,omitempty"`
}

// Copies of an outstanding task.
const (
	CopyTwin  = "twin"
	CopyAudit = "audit"
)

// File says which file of the location is meant by a source input.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Header string `json:"header"` // digest of the file's header
}

// MaxMessage bounds a message on the wire, in bytes.
const MaxMessage = 64 << 10

// Encode returns the message's bytes for the queue.
func (m *Message) Encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message of task %s: %w", m.ID.Short(), err)
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("encode message of task %s: %w: %d bytes, at most %d", m.ID.Short(), ErrInvalid, len(b), MaxMessage)
	}
	return b, nil
}

// ParseMessage reads a message that came over the wire. Its numbers and names
// are checked; what it points to must be checked by who reads it.
func ParseMessage(b []byte) (*Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("task message: %w: %d bytes, at most %d", ErrInvalid, len(b), MaxMessage)
	}
	var m Message
	if err := decodeStrict(b, &m); err != nil {
		if newer := new(Message); json.Unmarshal(b, newer) == nil && newer.ID != (ID{}) {
			err = fmt.Errorf("%w: %w", ErrNewer, err) // a field that is not known, and nothing else
		}
		return nil, fmt.Errorf("task message: %w: %w", ErrInvalid, err)
	}
	switch {
	case !ValidToken(m.Run):
		return nil, fmt.Errorf("message of task %s: %w: run %q", m.ID.Short(), ErrInvalid, m.Run)
	case !ValidToken(m.Class):
		return nil, fmt.Errorf("message of task %s: %w: numeric class %q", m.ID.Short(), ErrInvalid, m.Class)
	case m.Memory < 0:
		return nil, fmt.Errorf("message of task %s: %w: memory %d", m.ID.Short(), ErrInvalid, m.Memory)
	case m.Repair != "" && !ValidToken(m.Repair):
		return nil, fmt.Errorf("message of task %s: %w: attempt %q", m.ID.Short(), ErrInvalid, m.Repair)
	case m.Op != "" && !ValidToken(m.Op):
		return nil, fmt.Errorf("message of task %s: %w: operation %q", m.ID.Short(), ErrInvalid, m.Op)
	case m.Copy != "" && m.Copy != CopyTwin && m.Copy != CopyAudit:
		return nil, fmt.Errorf("message of task %s: %w: %w: copy %q", m.ID.Short(), ErrInvalid, ErrNewer, m.Copy)
	case (m.Copy == CopyAudit) != (m.Audit != "") || m.Audit != "" && !ValidToken(m.Audit):
		return nil, fmt.Errorf("message of task %s: %w: copy %q audits attempt %q", m.ID.Short(), ErrInvalid, m.Copy, m.Audit)
	case m.Escalate < 0:
		return nil, fmt.Errorf("message of task %s: %w: escalated %d times", m.ID.Short(), ErrInvalid, m.Escalate)
	case m.Avoid != "" && !ValidToken(m.Avoid):
		return nil, fmt.Errorf("message of task %s: %w: worker %q to avoid", m.ID.Short(), ErrInvalid, m.Avoid)
	}
	return &m, nil
}

// CanonicalJSON rewrites JSON so that equal values have equal bytes: keys sorted,
// no spaces, no escapes of HTML characters, numbers as they were written.
func CanonicalJSON(b []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("more than one JSON value")
	}
	var out bytes.Buffer
	if err := writeCanonical(&out, v); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeCanonical(out *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		out.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeScalar(out, k); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := writeCanonical(out, v[k]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
		return nil
	case []any:
		out.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeCanonical(out, e); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	default:
		return writeScalar(out, v)
	}
}

func writeScalar(out *bytes.Buffer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	out.Truncate(out.Len() - 1) // Encode ends with a newline
	return nil
}

func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}
