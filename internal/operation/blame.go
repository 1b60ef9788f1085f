package operation

import (
	"fmt"

	"github.com/shardpress/shardpress/internal/task"
)

// LostInput is an operation's error that the stored bytes of an input, which another
// task made, are gone or are not those that were hashed. It is no fault of the task
// that finds it: the other one must be run again.
type LostInput struct {
	ID task.ID
	// Attempt wrote the bytes; empty if not even the result is there that names it.
	Attempt string
	Err     error
}

func (e *LostInput) Error() string {
	return fmt.Sprintf("input from task %s (attempt %q) is lost: %v", e.ID.Short(), e.Attempt, e.Err)
}

// Unwrap returns what was found.
func (e *LostInput) Unwrap() error { return e.Err }

// StoreError marks an error of a store or of the way to it, as opposed to one of what
// is stored: another attempt, perhaps elsewhere or later, may well succeed.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return e.Err.Error() }

// Unwrap returns the store's own error.
func (e *StoreError) Unwrap() error { return e.Err }
