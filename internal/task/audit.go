package task

import (
	"encoding/json"
	"fmt"
)

// AuditKey is where a run keeps the audit of a task.
func AuditKey(run string, id ID) string { return "runs/" + run + "/audits/" + id.String() + ".json" }

// Audit compares what another worker makes of a task with what stands in the store.
type Audit struct {
	ID      ID     `json:"id"`
	Audited string `json:"audited"` // the attempt whose bytes stand
	First   string `json:"first"`   // the worker that made them
	Worker  string `json:"worker"`  // the worker that made them again
	Equal   bool   `json:"equal"`
	Detail  string `json:"detail,omitempty"` // what differs
}

// Encode returns the audit's bytes for the store.
func (a *Audit) Encode() ([]byte, error) { return json.Marshal(a) }

// ParseAudit reads the audit of the task that id names.
func ParseAudit(id ID, b []byte) (*Audit, error) {
	var a Audit
	if err := decodeStrict(b, &a); err != nil {
		return nil, fmt.Errorf("audit of task %s: %w: %w", id.Short(), ErrInvalid, err)
	}
	if a.ID != id || !ValidToken(a.Audited) {
		return nil, fmt.Errorf("audit of task %s: %w: it is of task %s, attempt %q", id.Short(), ErrInvalid, a.ID.Short(), a.Audited)
	}
	return &a, nil
}
