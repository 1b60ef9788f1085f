package main

import (
	"path/filepath"
	"testing"
)

// TestFleet has unlike workers, two coordinators, a broker and an S3 server, each a
// process of its own, make what one process makes.
func TestFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.mustCall("doctor", "--create")
	f.coordinator("c1")
	f.coordinator("c2")
	for i, memory := range []string{"64M", "128M", "256M", "512M", "1G"} {
		f.worker("w"+string(rune('1'+i)), memory, 1+i%2)
	}
	want := alone(t, story)
	out := filepath.Join(f.dir, "out")
	f.mustCall("compress", "--nats", f.nats, "--model", story, "--recipe", "w4a16-rtn", "--out", out)
	alike(t, "the bundled model, fetched", contents(t, out), want)
	f.mustCall("verify", "--model", story, out)
}
