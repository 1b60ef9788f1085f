package source

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
)

// Schemes of locations.
const (
	schemeFile  = "file:"
	schemeStore = "store:"
	schemeHub   = "hf:"
)

// File is the location of a directory, or of one weight file in it, on this machine.
func File(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// Store is the location of a checkpoint in the store, below the store's own prefix.
func Store(prefix string) string { return schemeStore + strings.Trim(prefix, "/") }

// filePath is the path of a file location.
func filePath(location string) (string, error) {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "file" || u.Host != "" || u.RawQuery != "" || u.Fragment != "" || !filepath.IsAbs(filepath.FromSlash(u.Path)) ||
		strings.ContainsRune(u.Path, 0) {
		return "", fmt.Errorf("source location %q: %w: want file:///path", location, task.ErrInvalid)
	}
	return filepath.Clean(filepath.FromSlash(u.Path)), nil
}

// storePrefix is the key prefix of a store location.
func storePrefix(location string) (string, error) {
	prefix := strings.TrimPrefix(location, schemeStore)
	if err := objstore.CheckKey(prefix); err != nil {
		return "", fmt.Errorf("source location %q: %w: %w", location, task.ErrInvalid, err)
	}
	return prefix, nil
}
