package compress

import (
	"errors"
	"fmt"
)

// ErrInvalid marks what can never work, however often it is tried: a parameter out of range,
// a group that does not divide, a weight that is not a number. Everything else (a read
// that failed, a cancelled context) may be tried again.
var ErrInvalid = errors.New("invalid")

// Invalidf makes an error that says exactly the given text and matches [ErrInvalid]. The
// format may wrap another error with %w.
func Invalidf(format string, args ...any) error {
	return &invalidError{err: fmt.Errorf(format, args...)}
}

type invalidError struct{ err error }

func (e *invalidError) Error() string   { return e.err.Error() }
func (e *invalidError) Unwrap() []error { return []error{e.err, ErrInvalid} }
