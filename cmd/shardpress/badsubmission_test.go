package main

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shardpress/shardpress/objstore"
)

// TestBadSubmission has a fleet's client say what is wrong with a command line
// before it has uploaded anything.
func TestBadSubmission(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	out := filepath.Join(f.dir, "out")
	compress := func(more ...string) []string {
		return append([]string{"compress", "--nats", f.nats, "--model", story, "--recipe", "w4a16-rtn"}, more...)
	}
	none := "01JD3YQ8V6S4Z0W3T1N5K7M9RA"
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"priority":     {compress("--out", out, "--priority", "urgent"), exitInvalid, "--priority urgent: want low, normal or high"},
		"workers":      {compress("--out", out, "--max-workers", "-1"), exitInvalid, "--max-workers -1: want 1 or more"},
		"the store's":  {compress("--out", f.store+"/tasks/mine"), exitInvalid, "--out " + f.store + "/tasks/mine"},
		"store":        {compress("--out", out, "--store", "s3://No_Bucket/x"), exitInvalid, "no name of a bucket"},
		"endpoint":     {compress("--out", out, "--s3-endpoint", "localhost:9000"), exitInvalid, `S3 endpoint "localhost:9000": want http://host:port`},
		"nats":         {compress("--out", out, "--nats", "http://localhost:4222"), exitInvalid, `scheme "http": want nats, tls, ws or wss`},
		"nats creds":   {[]string{"status", none, "--nats-creds", filepath.Join(f.dir, "none")}, exitInvalid, "read credentials"},
		"doctor":       {[]string{"doctor", "--nats", "://", "--wait", "1s"}, exitInvalid, "not a URL: want nats://HOST:PORT"},
		"small worker": {[]string{"worker", "--memory", "1M"}, exitInvalid, "--memory 1M: no task needs less than 64.00 MiB"},
		"logs":         {[]string{"logs", none}, exitFailed, "there is no such run"},
		"cancel":       {[]string{"cancel", none}, exitFailed, "there is no such run"},
		"status":       {[]string{"status", none}, exitFailed, "there is no such run"},
		"broker":       {[]string{"broker", "--dir", filepath.Join(f.dir, "state"), "--listen", "127.0.0.1:0"}, exitFailed, "in use by another broker"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := f.call(tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
			if strings.Contains(stdout, "upload") {
				t.Errorf("it was uploaded first:\n%s", stdout)
			}
		})
	}
}

// TestBadWeightsOnAFleet ends as on one machine: a fault of the checkpoint, which is
// the client's, is no failure of the fleet.
func TestBadWeightsOnAFleet(t *testing.T) {
	t.Parallel()
	all := tiny()
	named(t, all, "model.layers.1.mlp.down_proj.weight").set(77*tinyMLP+201, float32(math.NaN()))
	root, model := checkpoint(t, safetensors(all...))
	f := newFleet(t)
	f.coordinator("c1")
	f.worker("w1", "256M", 1)
	code, stdout, stderr := f.call("compress", "--nats", f.nats, "--model", model, "--recipe", "w4a16-rtn", "--out", filepath.Join(root, "out"))
	if code != exitInvalid || !strings.Contains(stderr, "model.layers.1.mlp.down_proj") || !strings.Contains(stderr, "row 77") {
		t.Errorf("exit code %d, want %d and the weight:\n%s%s", code, exitInvalid, stdout, stderr)
	}
}

// TestUploadFails says once what could not be uploaded.
func TestUploadFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	store, err := objstore.CreateDir(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	// An object where the uploads should lie.
	if _, err := store.Put(t.Context(), "sources", strings.NewReader("x"), 1, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := f.call("compress", "--nats", f.nats, "--store", store.Root(), "--model", story, "--recipe", "w4a16-rtn", "--out", filepath.Join(f.dir, "out"))
	if code != exitFailed || strings.Count(stderr, "upload ") != 1 || !strings.Contains(stderr, "models/story: put sources/") {
		t.Errorf("exit code %d, want %d and one word of the upload:\n%s%s", code, exitFailed, stdout, stderr)
	}
}
