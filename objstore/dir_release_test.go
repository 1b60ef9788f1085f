//go:build unix

package objstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

func TestReleaseDirLeavesOnlyObjects(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "out")
	d, err := objstore.CreateDir(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Put(t.Context(), "a", strings.NewReader("x"), 1, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	// What a killed writer leaves behind.
	if err := os.WriteFile(filepath.Join(root, ".tmp", "half"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // releasing again is no error
		if err := objstore.ReleaseDir(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "a" {
		t.Errorf("left over: %v, %v", entries, err)
	}
}
