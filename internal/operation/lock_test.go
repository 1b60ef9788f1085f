package operation

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// lockFile says for each operation, and each operation with a method, which bytes
// it makes of fixed inputs. A line is never changed: bytes that change need a new
// version, which gets a line of its own.
const lockFile = "testdata/operations.lock"

var update = flag.Bool("update", false, "add lines for new versions to "+lockFile)

// TestOperationsAreLocked fails when an operation's bytes change without a new
// version: results of the old bytes would be taken for those of the new.
func TestOperationsAreLocked(t *testing.T) {
	t.Parallel()
	locked := readLock(t)
	for _, got := range digests(t) {
		want, ok := locked[got.name]
		switch {
		case ok && want != got.digest:
			t.Errorf("%s makes other bytes (%s) than %s says (%s).\nIf that is meant, give the operation or the method a new version and run go test ./internal/operation -run Locked -update; if not, it is a bug that would mix unlike results.",
				got.name, got.digest[:12], lockFile, want[:12])
		case !ok && *update:
			f, err := os.OpenFile(lockFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(f, "%s %s\n", got.name, got.digest); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		case !ok:
			t.Errorf("%s has no line in %s: run go test ./internal/operation -run Locked -update", got.name, lockFile)
		}
	}
}

func readLock(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(lockFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	locked, err := parseLock(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return locked
}

type locked struct{ name, digest string }

// digests runs every operation of this program, alone and with every method, on
// every kernel of this machine.
func digests(t *testing.T) []locked {
	t.Helper()
	ck := checkpoint(t, fixed())
	jobs, err := fixedJobs(ck.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	var out []locked
	for _, j := range jobs {
		if len(j.cases) == 0 {
			t.Errorf("%s has no variants in selftest_input.go: add some, so that its bytes are locked", j.name)
		}
		var first string
		for _, k := range kernels(t) {
			d, err := j.digest(t.Context(), ck, All(), k)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = d
			}
			if d != first {
				t.Errorf("%s: kernel %s makes other bytes than the first one", j.name, k)
			}
		}
		out = append(out, locked{j.name, first})
	}
	return out
}
