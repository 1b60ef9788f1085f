package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/internal/source"
)

func TestHubFromEnv(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	cache := filepath.Join(home, ".cache", "huggingface")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, cache, "token", []byte("hf_cached\n"))
	write(t, home, "other", []byte("hf_other"))
	write(t, home, "large", []byte(strings.Repeat("x", 5000)))
	for _, c := range []struct {
		name     string
		env      map[string]string
		token    string
		endpoint string
		bad      bool
	}{
		{"nothing", nil, "", "", false},
		{"a mirror", map[string]string{"HF_ENDPOINT": "https://mirror.example"}, "", "https://mirror.example", false},
		{"a variable", map[string]string{"HF_TOKEN": " hf_x\n", "HOME": home}, "hf_x", "", false},
		{"the old variable", map[string]string{"HUGGING_FACE_HUB_TOKEN": "hf_y"}, "hf_y", "", false},
		{"the user's file", map[string]string{"HOME": home}, "hf_cached", "", false},
		{"the cache's file", map[string]string{"XDG_CACHE_HOME": filepath.Join(home, ".cache")}, "hf_cached", "", false},
		{"the hub's file", map[string]string{"HF_HOME": cache, "HOME": "/nowhere"}, "hf_cached", "", false},
		{"a named file", map[string]string{"HF_TOKEN_PATH": filepath.Join(home, "other"), "HOME": home}, "hf_other", "", false},
		{"no file", map[string]string{"HF_TOKEN_PATH": filepath.Join(home, "nothing")}, "", "", false},
		{"a directory", map[string]string{"HF_TOKEN_PATH": home}, "", "", true},
		{"a large file", map[string]string{"HF_TOKEN_PATH": filepath.Join(home, "large")}, "", "", true},
		{"switched off", map[string]string{"HF_TOKEN": "hf_x", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, "", "", false},
	} {
		o, err := source.HubFromEnv(func(name string) string { return c.env[name] })
		if (err != nil) != c.bad || o.Token != c.token || o.Endpoint != c.endpoint {
			t.Errorf("%s: %+v, %v", c.name, o, err)
		}
	}
}
