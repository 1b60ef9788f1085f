package verify_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/shardpress/shardpress/coordinator"
)

// agree makes a result's table of contents agree with a file.
func agree(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, coordinator.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	m, err := coordinator.ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Files {
		if m.Files[i].Name == name {
			sum := sha256.Sum256(b)
			m.Files[i].SHA256, m.Files[i].Size = hex.EncodeToString(sum[:]), int64(len(b))
		}
	}
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	write(t, dir, coordinator.ManifestFile, text)
}

// blank reports whether a change is one of white space, which says nothing.
func blank(a, b byte) bool {
	space := func(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }
	return space(a) && space(b)
}
