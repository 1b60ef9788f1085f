package hub

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrRef says that a reference cannot name a repository.
var ErrRef = errors.New("invalid reference to the hub")

// Ref names a repository of models at a revision.
type Ref struct {
	ID       string // owner/name
	Revision string // a branch, a tag or a commit
}

// Scheme begins a reference.
const Scheme = "hf://"

// defaultRevision is the branch that is meant when none is named.
const defaultRevision = "main"

var (
	// A part of a name is letters, digits and "-", "_" or "." inside.
	namePart = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$`)
	// A revision may have slashes, as refs/pr/1 has.
	revision = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9_])?$`)
	commit   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Parse reads hf://owner/name@revision; without @revision it is the main branch.
func Parse(s string) (Ref, error) {
	fail := func(what string) (Ref, error) {
		return Ref{}, fmt.Errorf("%w %q: %s: want hf://owner/name@revision", ErrRef, clip(s), what)
	}
	rest, ok := strings.CutPrefix(s, Scheme)
	if !ok {
		return fail("no " + Scheme)
	}
	id, rev, named := strings.Cut(rest, "@")
	if !named {
		rev = defaultRevision
	}
	owner, name, ok := strings.Cut(id, "/")
	switch {
	case !ok || !namePart.MatchString(owner) || !namePart.MatchString(name) || strings.Contains(id, "..") || strings.Contains(id, "--"):
		return fail("owner or name")
	case !revision.MatchString(rev) || strings.Contains(rev, "..") || strings.Contains(rev, "//"):
		return fail("revision")
	}
	return Ref{ID: id, Revision: rev}, nil
}

// String gives the reference as Parse reads it.
func (r Ref) String() string { return Scheme + r.ID + "@" + r.Revision }

// Pinned reports whether the revision is a commit, so that the reference will never mean anything else.
func (r Ref) Pinned() bool { return commit.MatchString(r.Revision) }

// clip keeps hostile text from filling error messages.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "..."
	}
	return s
}
