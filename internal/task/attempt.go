package task

import (
	"encoding/json"
	"fmt"
	"time"
)

// AttemptPrefix is the prefix of the keys of a run's attempts at a task.
func AttemptPrefix(run string, id ID) string { return "runs/" + run + "/attempts/" + id.String() + "-" }

// AttemptKey is where a run keeps what is known of one attempt at a task.
func AttemptKey(run string, id ID, attempt string) string {
	return AttemptPrefix(run, id) + attempt + ".json"
}

// AttemptRecord says what became of an attempt. It is written when the attempt
// starts and again when it ends: one that says it has started while its task is
// offered again is of a worker that died.
type AttemptRecord struct {
	ID      ID     `json:"id"`
	Attempt string `json:"attempt"`
	Worker  string `json:"worker"`
	// Memory is the memory class, in bytes, for which the task was offered.
	Memory int64  `json:"memory"`
	Copy   string `json:"copy,omitempty"`
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
	// Started and Ended are by the worker's clock, for people.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Log is the end of what the worker logged of the attempt.
	Log string `json:"log,omitempty"`
}

// States of an attempt. Only one that stays AttemptStarted counts against its task.
const (
	AttemptStarted = "started"
	AttemptDone    = "done"
	AttemptFailed  = "failed"  // a failure is stored
	AttemptLate    = "late"    // another attempt had committed first
	AttemptDrained = "drained" // the worker was told to stop
	AttemptStorage = "storage" // the store failed, not the task
)

// Bounds of an attempt's record and of the log in it, in bytes.
const (
	MaxAttempt = 1 << 20
	MaxLog     = 64 << 10
)

// Encode returns the record's bytes for the store.
func (a *AttemptRecord) Encode() ([]byte, error) { return json.Marshal(a) }

// ParseAttempt reads the record of an attempt at the task that id names.
func ParseAttempt(id ID, b []byte) (*AttemptRecord, error) {
	var a AttemptRecord
	if err := decodeStrict(b, &a); err != nil {
		return nil, fmt.Errorf("attempt at task %s: %w: %w", id.Short(), ErrInvalid, err)
	}
	switch {
	case a.ID != id:
		return nil, fmt.Errorf("attempt at task %s: %w: it is at task %s", id.Short(), ErrInvalid, a.ID.Short())
	case !ValidToken(a.Attempt):
		return nil, fmt.Errorf("attempt at task %s: %w: attempt %q", id.Short(), ErrInvalid, a.Attempt)
	case a.Memory < 0:
		return nil, fmt.Errorf("attempt at task %s: %w: memory %d", id.Short(), ErrInvalid, a.Memory)
	}
	return &a, nil
}
