package coordinator

import (
	"encoding/json"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"recipe":{},"source":[],"files":[{"name":"a","size":1,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"files":[{"name":"../a"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, e := range m.Files {
			if objstore.CheckKey(e.Name) != nil || e.Size < 0 {
				t.Errorf("entry %q of %d bytes is accepted", e.Name, e.Size)
			}
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(again); err != nil {
			t.Errorf("a manifest does not survive its own encoding: %v", err)
		}
	})
}
