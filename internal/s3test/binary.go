package s3test

import "testing"

// Program is the path of the server's program, for a test that starts it with
// arguments of its own.
func Program(t testing.TB) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	return path
}

// HoldsAttributes says whether files below dir can hold what the server notes of its
// objects; elsewhere it wants a directory for that (VGW_META_SIDECAR).
func HoldsAttributes(dir string) bool { return attributes(dir) }
