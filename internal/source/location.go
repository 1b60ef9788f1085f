package source

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/shardpress/shardpress/internal/task"
	"github.com/shardpress/shardpress/objstore"
	"github.com/shardpress/shardpress/shard"
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

// Uploaded is the location of a checkpoint that shard.Upload put into the store.
func Uploaded(id string) string { return Store(shard.UploadedPrefix(id)) }

// uploadID is the ID of an uploaded checkpoint, "" for another location.
func uploadID(location string) string {
	m := uploadLocation.FindStringSubmatch(location)
	if m == nil {
		return ""
	}
	return m[1]
}

var uploadLocation = regexp.MustCompile(`^store:sources/([0-9a-f]{64})$`)

// Of is the location of an opened checkpoint as workers are to open it: of what was found, so that a branch of the hub is a commit.
func Of(ck *shard.Checkpoint) string {
	if at := ck.Location(); filepath.IsAbs(at) {
		return File(at)
	}
	return ck.Location()
}

// Memory is what a task needs, in bytes, beyond what its operation says, for reading from a location.
func Memory(location string) int64 {
	if strings.HasPrefix(location, schemeFile) {
		return 0
	}
	return shard.BucketMemory
}

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
