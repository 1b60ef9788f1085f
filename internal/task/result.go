package task

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"time"
)

// Keys of a task's objects, relative to the store.
//
//	tasks/<2 hex>/<id>/task.json               the spec
//	tasks/<2 hex>/<id>/result.json             the commit
//	tasks/<2 hex>/<id>/<attempt>/<name>        output bytes
func dir(id ID) string {
	s := id.String()
	return "tasks/" + s[:2] + "/" + s
}

// Prefix is the prefix of all keys of a task, with its final slash.
func Prefix(id ID) string { return dir(id) + "/" }

// SpecKey is where the spec of a task lies.
func SpecKey(id ID) string { return dir(id) + "/task.json" }

// ResultKey is where the result of a task is committed.
func ResultKey(id ID) string { return dir(id) + "/result.json" }

// OutputKey is where an attempt at a task writes the output of that name.
func OutputKey(id ID, attempt, name string) string { return path.Join(dir(id), attempt, name) }

// FailurePrefix is the prefix of the keys of a task's failures in a run.
func FailurePrefix(run string, id ID) string { return "runs/" + run + "/failures/" + id.String() + "-" }

// FailureKey is where a run keeps the failure of an attempt at a task.
func FailureKey(run string, id ID, attempt string) string {
	return FailurePrefix(run, id) + attempt + ".json"
}

// Result is the commit of a task: what came out, and of what. Only successes are
// results; a failure is kept with its run.
type Result struct {
	Version int    `json:"version"`
	ID      ID     `json:"id"`
	Op      string `json:"op"`
	Class   string `json:"class"`
	// Attempt is the folder that holds the outputs, Worker who made them.
	Attempt string `json:"attempt"`
	Worker  string `json:"worker"`
	// Outputs are in the order in which the operation declares them.
	Outputs []Written `json:"outputs"`
	// Consumed repeats what was really read, in the order of the spec's inputs.
	Consumed []Consumed    `json:"consumed"`
	Elapsed  time.Duration `json:"elapsed"`
}

// Written is one output object.
type Written struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Stored is the store's own tag of the bytes at the time of writing; while it
	// is unchanged the bytes need not be read to know that they are these.
	Stored string `json:"stored"`
}

// Consumed is what a task read for one of its inputs: the hash of another task's
// output, or the identity of a source file as checked at every read.
type Consumed struct {
	SHA256 string  `json:"sha256,omitempty"`
	Source *Source `json:"source,omitempty"`
}

const resultVersion = 1

// Bounds of documents in a store, in bytes. What is longer counts as damaged, on
// every side.
const (
	MaxSpec    = 64 << 20
	MaxResult  = 64 << 20
	MaxFailure = 1 << 20
)

// sealed wraps a result with the checksum of its bytes.
type sealed struct {
	Result json.RawMessage `json:"result"`
	SHA256 string          `json:"sha256"`
}

// Encode returns the bytes of result.json, with their own checksum.
func (r *Result) Encode() ([]byte, error) {
	c := *r
	c.Version = resultVersion
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode result of task %s: %w", r.ID.Short(), err)
	}
	sum := sha256.Sum256(b)
	return json.Marshal(sealed{Result: b, SHA256: hex.EncodeToString(sum[:])})
}

// ParseResult reads a result.json of the task that id names. A result that is
// unreadable in any way is an error, which callers treat as its absence.
func ParseResult(id ID, b []byte) (*Result, error) {
	var s sealed
	if err := decodeStrict(b, &s); err != nil {
		return nil, fmt.Errorf("result of task %s: %w: %w", id.Short(), ErrInvalid, err)
	}
	if sum := sha256.Sum256(s.Result); hex.EncodeToString(sum[:]) != s.SHA256 {
		return nil, fmt.Errorf("result of task %s: %w: checksum does not match", id.Short(), ErrInvalid)
	}
	var r Result
	if err := decodeStrict(s.Result, &r); err != nil {
		return nil, fmt.Errorf("result of task %s: %w: %w", id.Short(), ErrInvalid, err)
	}
	switch {
	case r.Version != resultVersion:
		return nil, fmt.Errorf("result of task %s: %w: version %d", id.Short(), ErrInvalid, r.Version)
	case r.ID != id:
		return nil, fmt.Errorf("result of task %s: %w: it is of task %s", id.Short(), ErrInvalid, r.ID.Short())
	case !ValidToken(r.Attempt):
		return nil, fmt.Errorf("result of task %s: %w: attempt %q", id.Short(), ErrInvalid, r.Attempt)
	}
	for _, o := range r.Outputs {
		if o.Key != OutputKey(id, r.Attempt, o.Name) || path.Base(o.Key) != o.Name {
			return nil, fmt.Errorf("result of task %s: %w: output %q at key %q", id.Short(), ErrInvalid, o.Name, o.Key)
		}
		if h, err := hex.DecodeString(o.SHA256); err != nil || len(h) != sha256.Size || o.Size < 0 {
			return nil, fmt.Errorf("result of task %s: %w: size or hash of output %q", id.Short(), ErrInvalid, o.Name)
		}
	}
	return &r, nil
}

// Output returns the written output of that name.
func (r *Result) Output(name string) (Written, error) {
	for _, o := range r.Outputs {
		if o.Name == name {
			return o, nil
		}
	}
	return Written{}, fmt.Errorf("result of task %s: %w: no output %q", r.ID.Short(), ErrInvalid, name)
}

// SameBytes reports whether two results of one task hold the same output bytes.
func SameBytes(a, b *Result) bool {
	if len(a.Outputs) != len(b.Outputs) {
		return false
	}
	for i, o := range a.Outputs {
		p := b.Outputs[i]
		if o.Name != p.Name || o.Size != p.Size || o.SHA256 != p.SHA256 {
			return false
		}
	}
	return true
}

// Kind says what a failure means for the run.
type Kind string

// The kinds of failure.
const (
	// Invalid: the input can never work (NaN weights, a spec nobody can serve).
	Invalid Kind = "invalid"
	// Changed: the source is no longer what the plan was made from.
	Changed Kind = "source-changed"
	// Full: the store has no room; retrying cannot help until somebody makes room.
	Full Kind = "store-full"
	// Transient: the store or the network failed; another attempt may succeed.
	Transient Kind = "transient"
	// Nondeterministic: a second run of the task gave other bytes.
	Nondeterministic Kind = "nondeterministic"
	// Internal: a bug or a broken machine.
	Internal Kind = "internal"
	// Died: attempts at the task ended with their workers, at the last alone on one.
	// The task is poison for workers of its memory class.
	Died Kind = "died"
	// Lost: the stored bytes of an input, which Failure.Producer names, are gone or
	// damaged. The fault is not the task's.
	Lost Kind = "lost-input"
	// Storage: the store did not answer, or not in time. The fault is not the task's.
	Storage Kind = "storage"
)

// Permanent reports whether another attempt cannot help.
func (k Kind) Permanent() bool {
	switch k {
	case Transient, Internal, Died, Lost, Storage:
		return false
	}
	return true
}

// Counts reports whether the failure is held against the task, which may fail only
// so often.
func (k Kind) Counts() bool { return k != Lost && k != Storage }

// Failure is what an attempt that gave no result leaves behind.
type Failure struct {
	ID      ID     `json:"id"`
	Attempt string `json:"attempt"`
	Worker  string `json:"worker"`
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
	// Copy is that of the message that the attempt had.
	Copy string `json:"copy,omitempty"`
	// Producer is whose bytes are lost, of a failure of kind Lost.
	Producer *Producer `json:"producer,omitempty"`
	// Memory is the need that the task was offered for, in bytes, of a failure of
	// kind Died: it tells whether a larger memory class has been tried.
	Memory int64 `json:"memory,omitempty"`
}

// Producer names the attempt at a task that wrote an input of another task. Attempt
// is empty if not even the result is there that would name it.
type Producer struct {
	ID      ID     `json:"id"`
	Attempt string `json:"attempt"`
}

// ParseFailure reads a failure that is stored with its run.
func ParseFailure(id ID, b []byte) (*Failure, error) {
	var f Failure
	if err := decodeStrict(b, &f); err != nil {
		return nil, fmt.Errorf("failure of task %s: %w: %w", id.Short(), ErrInvalid, err)
	}
	if f.ID != id {
		return nil, fmt.Errorf("failure of task %s: %w: it is of task %s", id.Short(), ErrInvalid, f.ID.Short())
	}
	if f.Producer != nil && f.Producer.Attempt != "" && !ValidToken(f.Producer.Attempt) {
		return nil, fmt.Errorf("failure of task %s: %w: input of attempt %q", id.Short(), ErrInvalid, f.Producer.Attempt)
	}
	return &f, nil
}

// Notice is news about a task. It is a hint: the store holds the truth.
type Notice struct {
	ID ID `json:"id"`
	// State is one of the constants below.
	State   string   `json:"state"`
	Worker  string   `json:"worker"`
	Failure *Failure `json:"failure,omitempty"` // of Failed
	Audit   *Audit   `json:"audit,omitempty"`   // of Audited
	// Bytes of source that this attempt has worked through so far.
	Bytes int64 `json:"bytes,omitempty"`
}

// States of a notice.
const (
	Began    = "began"
	Done     = "done"
	Failed   = "failed"
	Progress = "progress"
	Audited  = "audited"
)

// Encode returns the notice's bytes for the queue.
func (n *Notice) Encode() ([]byte, error) { return json.Marshal(n) }

// ParseNotice reads a notice that came over the wire.
func ParseNotice(b []byte) (*Notice, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("notice: %w: %d bytes", ErrInvalid, len(b))
	}
	var n Notice
	if err := decodeStrict(b, &n); err != nil {
		return nil, fmt.Errorf("notice: %w: %w", ErrInvalid, err)
	}
	return &n, nil
}
