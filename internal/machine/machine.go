// Package machine says what the machine that one runs on has to offer.
package machine

import (
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Budget is how much of memory bytes tasks may use together. The rest is for the
// program itself, for the connections to store and broker, and for what the system
// keeps of files: an eighth of it, and at least 384 MiB where there is twice that.
func Budget(memory int64) int64 {
	return memory - max(memory/8, min(384<<20, memory/2))
}

// Slots is how many tasks at once suit a budget of memory bytes, of which the
// smallest task needs least: one for each processor that this program may use.
func Slots(memory, least int64) int {
	return int(max(1, min(int64(runtime.GOMAXPROCS(0)), memory/max(least, 1))))
}

// Host is the machine's name, "unknown" if it has none.
func Host() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "unknown"
	}
	return name
}

// Name makes a name for a process on host that no other one has, and which may be
// part of a key or a subject.
func Name(host string) string {
	host, _, _ = strings.Cut(host, ".") // the domain is the same for all
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, host)
	if safe == "" {
		safe = "worker"
	}
	return safe[:min(len(safe), 48)] + "-" + strings.ToLower(rand.Text()[:6])
}

// Scratch makes a directory for what need not outlive this process: below dir, or
// where the system keeps such things if dir is empty. remove deletes it.
func Scratch(dir string) (path string, remove func() error, err error) {
	if dir == "" {
		dir = os.TempDir()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make scratch directory: %w; name another one", err)
	}
	path, err = os.MkdirTemp(dir, "shardpress-")
	if err != nil {
		return "", nil, fmt.Errorf("make scratch directory in %s: %w; name another one", dir, err)
	}
	return path, func() error { return os.RemoveAll(path) }, nil
}
