package recipe

import (
	"fmt"
	"strings"

	"github.com/shardpress/shardpress/compress"
)

// Error is a mistake in the text of a recipe, with its place. It matches compress.ErrInvalid.
type Error struct {
	File   string
	Line   int // from 1
	Column int // from 1, in characters
	Err    error
}

// Error implements error: "file:line:column: what is wrong".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

// Unwrap gives what is wrong, and compress.ErrInvalid.
func (e *Error) Unwrap() []error { return []error{e.Err, compress.ErrInvalid} }

// position is a place in the text of a recipe; the zero value is none.
type position struct{ line, column int }

// errorf makes an error about the part of the recipe at path, with its place where the part came from text.
func (r *Recipe) errorf(path, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if at, ok := r.place(path); ok {
		return &Error{File: r.file, Line: at.line, Column: at.column, Err: err}
	}
	if r.Name != "" {
		return compress.Invalidf("recipe %s: %w", r.Name, err)
	}
	return compress.Invalidf("recipe: %w", err)
}

// place finds where path, or what encloses it, stands in the text.
func (r *Recipe) place(path string) (position, bool) {
	for {
		if at, ok := r.at[path]; ok {
			return at, at.line > 0
		}
		if path == "" {
			return position{}, false
		}
		path = path[:max(strings.LastIndexByte(path, '.'), 0)]
	}
}
