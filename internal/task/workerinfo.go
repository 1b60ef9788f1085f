package task

import (
	"encoding/json"
	"fmt"
	"time"
)

// WorkerInfo is what a worker says of itself, again and again while it lives.
// People and forecasts read it; no schedule depends on it.
type WorkerInfo struct {
	Name     string       `json:"name"`
	Version  string       `json:"version"` // of the program
	Host     string       `json:"host"`
	Classes  []string     `json:"classes"` // numeric classes whose self-test it passed
	Ops      []string     `json:"ops"`     // operations with versions
	Kernel   string       `json:"kernel"`
	Memory   int64        `json:"memory"` // bytes that its tasks may need together
	Slots    int          `json:"slots"`
	Draining bool         `json:"draining,omitempty"`
	Started  time.Time    `json:"started"`
	Done     int64        `json:"done"`  // tasks since then
	Bytes    int64        `json:"bytes"` // of source since then
	Tasks    []WorkerTask `json:"tasks"` // being worked on
}

// WorkerTask is a task that a worker is at.
type WorkerTask struct {
	ID      ID        `json:"id"`
	Run     string    `json:"run"`
	Attempt string    `json:"attempt"`
	Copy    string    `json:"copy,omitempty"`
	Bytes   int64     `json:"bytes"` // of source so far
	Since   time.Time `json:"since"`
}

// Encode returns the bytes of the registry's entry.
func (w *WorkerInfo) Encode() ([]byte, error) {
	b, err := json.Marshal(w)
	if err == nil && len(b) > MaxMessage {
		return nil, fmt.Errorf("encode entry of worker %s: %w: %d bytes, at most %d", w.Name, ErrInvalid, len(b), MaxMessage)
	}
	return b, err
}

// ParseWorkerInfo reads an entry of the registry. Fields that it does not know are
// those of a newer program and ignored.
func ParseWorkerInfo(b []byte) (*WorkerInfo, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("entry of a worker: %w: %d bytes", ErrInvalid, len(b))
	}
	var w WorkerInfo
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("entry of a worker: %w: %w", ErrInvalid, err)
	}
	if !ValidToken(w.Name) || w.Memory < 0 || w.Slots < 0 {
		return nil, fmt.Errorf("entry of worker %q: %w", w.Name, ErrInvalid)
	}
	return &w, nil
}
