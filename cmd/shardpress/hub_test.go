package main

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore/hub"
	"github.com/shardpress/shardpress/objstore/hub/hubtest"
)

// A model is read from the hub that the environment names, with the token that it gives, and comes out as from a directory.
func TestCompressFromTheHub(t *testing.T) { //nolint:paralleltest // sets the environment
	const token = "hf_notSaid"
	root, model := checkpoint(t, safetensors(tiny()...))
	repository := map[string][]byte{}
	for name, text := range contents(t, model) {
		repository[name] = []byte(text)
	}
	h := hubtest.New(t, repository)
	h.Token = token
	t.Setenv("HF_ENDPOINT", h.Endpoint)
	t.Setenv("HF_TOKEN", "")
	t.Setenv("HOME", root)
	here, there := filepath.Join(root, "here"), filepath.Join(root, "there")
	args := []string{"compress", "--recipe", "w4a16-rtn", "--model", hub.Scheme + hubtest.ID, "--out", there, "--store", filepath.Join(root, "store")}
	if code, _, said := call(args...); code == 0 || !strings.Contains(said, "HF_TOKEN") {
		t.Errorf("without a token: exit %d, %s", code, said)
	}
	t.Setenv("HF_TOKEN", token)
	said := mustCall(t, args...)
	mustCall(t, "compress", "--recipe", "w4a16-rtn", "--model", model, "--out", here)
	if !maps.Equal(contents(t, here), contents(t, there)) {
		t.Error("the results differ")
	}
	if strings.Contains(said, token) {
		t.Errorf("the token is printed: %s", said)
	}
}
